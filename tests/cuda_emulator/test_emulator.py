"""The emulator must detect errors: small kernels with one mistake each, and the real ones with a line changed."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from minicnn.backend.cuda import source as cuda_source
from minicnn.backend.select import get_ops
from tests.cuda_emulator import build
from tests.cuda_emulator.build import EmulatorError, why_not
from tests.cuda_emulator.device import ORDERS, EmulatorDevice, emulated_ops

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")

HEAD = 'extern "C" __global__ void k(float* x) { unsigned t = threadIdx.x; (void)t; '
# name: (body of a kernel on 64 floats run by 2 blocks of 32 x 2, part of the complaint)
MISTAKES = {
    "write past the end": (
        "if (!blockIdx.x) x[t + 1] = 1; }", "writes 4 bytes out of bounds, at byte 256 of x, which has 256"),
    "write before the beginning": (
        "if (!blockIdx.x) x[(int)t - 1] = 1; }", "writes 4 bytes out of bounds, at byte -4 of x"),
    "read past the end": ("float v = x[t + 1]; if (v == 9999) x[t] = v; }", "reads 4 bytes out of bounds, at byte 256"),
    "read from nowhere": ("float* p = nullptr; if (t == 5) x[0] = *(volatile float*)p; }", "belongs to no argument"),
    "two threads write": ("x[t / 2] = t; }", r"race: writes byte \d+ of x, which thread \d+ wrote"),
    "two threads, read and write": ("float v = x[(t + 1) % 64]; x[t] = v; }", "race: .* with no barrier in between"),
    "two blocks write": ("x[t] = blockIdx.x; }", r"race: writes byte \d+ of x, which another block wrote"),
    "two blocks, read and write": ("if (blockIdx.x) x[t] = 1; else if (x[t] == 9999) x[0] = 1; }", "another block"),
    "missing barrier": (
        "__shared__ float s[64]; if (blockIdx.x) return; s[t] = x[t]; x[t] = s[63 - t]; }",
        "shared memory, which (no thread has written|thread)"),
    "uninitialised shared memory": (
        "__shared__ float s[65]; if (blockIdx.x) return; s[t] = 1; __syncthreads(); x[t] = s[t + 1]; }",
        "reads byte 256 of shared memory, which no thread has written"),
    "past dynamic shared memory": (
        "extern __shared__ float s[]; s[t + 1] = 1; }", "writes 4 bytes outside of shared memory, at byte 256 of 256"),
    "barrier for some": ("if (t < 3) __syncthreads(); }", "3 threads wait at a barrier that 61 threads never reach"),
    "two barriers": ("if (t < 3)\n __syncthreads();\n else\n __syncthreads(); }", "divergent barrier"),
    "absent lane": (
        "if (t < 16) x[t] = __shfl_xor_sync(0xffffffffu, 1.f, 1); }", "names lane 16, which has returned"),
    "lane outside its mask": ("x[t] = __shfl_xor_sync(1u, 1.f, 1); }", r"lane \d+ is not in its own mask"),
    "two warp operations": (
        "float v = 0;\n if (t % 32 < 16) v = __shfl_xor_sync(0xffffffffu, 1.f, 1);\n"
        " else v = __shfl_xor_sync(0xffffffffu, 1.f, 2);\n x[t] = v; }", "is at another warp operation"),
    "warp and barrier": (
        "if (t % 32 < 16) x[t] = __shfl_xor_sync(0xffffffffu, 1.f, 1); else __syncthreads(); }", "deadlock"),
    "warp without its barrier": (
        "__shared__ float s[64]; if (blockIdx.x) return; s[t] = x[t]; x[t] = s[t ^ 1]; }",
        "shared memory, which (no thread has written|thread)"),
    "misaligned vector": (
        "struct alignas(16) Four { float v[4]; }; if (!t && !blockIdx.x) *(Four*)(x + 1) = Four{}; }", "misaligned"),
    "async copy without its wait": (
        "__shared__ float s[64]; if (blockIdx.x) return; cuemu_copy_async(s + t, x + t, 4, 4); cuemu_copy_commit();"
        " __syncthreads(); x[t] = s[t]; }", "whose copy has not been waited for"),
    "async copy into what others read": (
        "__shared__ float s[64]; if (blockIdx.x) return; s[t] = 1; __syncthreads(); if (s[63 - t] == 9999) x[t] = 1;"
        " cuemu_copy_async(s + t, x + t, 4, 4); cuemu_copy_commit(); cuemu_copy_wait(0); }", "race: .* no barrier"),
    "async copy, wait without barrier": (
        "__shared__ float s[64]; if (blockIdx.x) return; cuemu_copy_async(s + t, x + t, 4, 4); cuemu_copy_commit();"
        " cuemu_copy_wait(0); x[t] = s[t ^ 1]; }", "shared memory, which (no thread has written|thread)"),
}
RIGHT = {
    "reverse a block": (
        "__shared__ float s[64]; if (blockIdx.x) return; s[t] = x[t]; __syncthreads(); x[t] = s[63 - t]; }",
        lambda x: x[::-1]),
    "swap in a warp": (
        "__shared__ float s[64]; if (blockIdx.x) return; s[t] = x[t]; __syncwarp(); x[t] = s[t ^ 1]; }",
        lambda x: x[np.arange(64) ^ 1]),
    "part of a warp, then all of it": (
        "if (blockIdx.x) return; float v = t; if (t % 32 < 16) v += __shfl_xor_sync(0xffffu, v, 1);"
        " v = __shfl_down_sync(0xffffffffu, v, 16); x[t] = v; }",
        lambda x: np.r_[16:32, 16:32, 48:64, 48:64].astype("f4")),
    "an async copy": (
        "__shared__ float s[64]; if (blockIdx.x) return; cuemu_copy_async(s + t, x + t, 4, t < 60 ? 4 : 0);"
        " cuemu_copy_commit(); cuemu_copy_wait(0); __syncthreads(); x[t] = s[63 - t]; }",
        lambda x: np.where(np.arange(64) < 4, 0, x[::-1])),
    "each block its own half": ("if (t < 32) x[32 * blockIdx.x + t] += 1; }", lambda x: x + 1),
}


@pytest.fixture(params=ORDERS, ids=["forward", "backward", "shuffled"])
def device(request, cuda_cache):
    return EmulatorDevice(cuda_cache, order=request.param)


def run(device, text, arguments, grid=(2,), block=(64,), shared=256):
    device.launch(device.function(device.compile("k", text, ()), "k"), grid, block, arguments, shared)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_detected_in_every_order(device, name):
    body, complaint = MISTAKES[name]
    with pytest.raises(EmulatorError, match=complaint):
        run(device, HEAD + body, (np.arange(64, dtype="f4"),))


@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_pass_in_every_order(device, name):
    body, wanted = RIGHT[name]
    x = np.arange(64, dtype="f4")
    run(device, HEAD + body, (x,))
    np.testing.assert_array_equal(x, wanted(np.arange(64, dtype="f4")))


def test_unwatched_writes_out_of_bounds_are_detected_by_the_guard_zones(cuda_cache):
    device = EmulatorDevice(cuda_cache, watch=False)
    with pytest.raises(EmulatorError, match="x was written out of bounds, at byte 256 of 256"):
        run(device, HEAD + MISTAKES["write past the end"][0], (np.zeros(64, "f4"),))


TWO = ('extern "C" __global__ void k(const float* x, float* y, int n, float a) '
       '{ if (threadIdx.x < n) y[threadIdx.x] = a * x[0]; }')


@pytest.mark.parametrize(("arguments", "complaint"), [
    ((np.int32(3),), "3 arguments for 4"),
    ((np.int64(3), np.float32(1)), "n is 4 bytes of kind 'i', got int64"),
    ((3, np.float32(1)), "n is 4 bytes of kind 'i', got int"),
    ((np.int32(3), 1.5), "a is 4 bytes of kind 'f', got float"),
    ((np.int32(3), np.float64(1.5)), "a is 4 bytes of kind 'f', got float64"),
])
def test_wrong_arguments_are_refused(device, arguments, complaint):
    with pytest.raises(EmulatorError, match=complaint):
        run(device, TWO, (np.ones(4, "f4"), np.ones(4, "f4"), *arguments), grid=(1,))


def test_arrays_that_overlap_in_part_or_have_strides_are_refused(device):
    memory = np.ones(10, "f4")
    for x, complaint in ((memory[1:5], "overlaps"), (memory[:3], "not as long"), (memory[::2], "contiguous")):
        with pytest.raises(EmulatorError, match=complaint):
            run(device, TWO, (x, memory[:4], np.int32(3), np.float32(1)), grid=(1,))


@pytest.mark.parametrize(("grid", "block"), [((0,), (64,)), ((1, 70000), (64,)), ((1,), (1025,)), ((1,), (1, 1, 65))])
def test_impossible_launches_are_refused(device, grid, block):
    with pytest.raises(EmulatorError, match="cannot be launched"):
        run(device, HEAD + "}", (np.ones(64, "f4"),), grid, block)


# ---- the real kernels with a mistake: file, context (first occurrence), old and new text in it, an operation to run
def lrn(ops):
    x = np.random.default_rng(0).standard_normal((1, 5, 5, 67)).astype("f4")
    ops.lrn_backward(x, x.copy(), np.empty_like(x), n=5, k=1.0, alpha=1.0, beta=0.75)


def linear(ops):
    x, w = np.ones((70, 50), "f4"), np.ones((50, 67), "f4")
    ops.linear_forward(x, w, np.empty((70, 67), "f4"))


def epilogue(ops):
    ops.epilogue_backward(np.ones((70, 5), "f4"), np.zeros(5, "f4"))


def softmax(ops):
    x = np.ones((5, 40), "f4")
    ops.softmax_forward(x, x)


def pool(ops):
    x, window = np.ones((2, 6, 6, 5), "f4"), {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 0, 0)}
    ops.maxpool_backward(np.ones((2, 2, 2, 5), "f4"), np.zeros((2, 2, 2, 5), "u1"), x, **window)


def deep(ops):
    """A sum that cycles through all stages of version 5."""
    ops.linear_forward(np.ones((3, 164), "f4"), np.ones((164, 7), "f4"), np.ones((3, 7), "f4"))


def conv(ops):
    x, w = np.ones((2, 6, 6, 3), "f4"), np.ones((3, 3, 3, 5), "f4")
    ops.conv_backward_data(np.ones((2, 3, 3, 5), "f4"), w, x, stride=(2, 2), pads=(1, 1, 1, 1))


def depthwise(ops):
    x, w = np.ones((2, 6, 6, 5), "f4"), np.ones((3, 3, 1, 5), "f4")
    ops.conv_backward_weights(x, np.ones((2, 3, 3, 5), "f4"), w, stride=(2, 2), pads=(1, 1, 1, 1), groups=5)


def relu(ops):
    ops.relu_forward(np.ones(1003, "f4"), np.ones(1003, "f4"))


HOPPER = "linear_hopper"
BROKEN = {
    "lrn: first barrier gone": ("lrn", "+ 2 * half, total);\n  __syncthreads();", "__syncthreads();", "", lrn),
    "lrn: second barrier gone": ("lrn", "direct[i - begin] = g;\n  }\n  __syncthreads();", "__syncthreads();", "", lrn),
    "lrn: margin too small": ("lrn", "far = low - half;", "far = low - half;", "far = low;", lrn),
    "gemm: first barrier gone": ("linear", "__syncthreads();        ", "__syncthreads();", "", linear, "v1"),
    "gemm: last row too far": ("linear", "if (m < M && n < N)", "m < M", "m <= M", linear, "v1"),
    "gemm_async: last wait gone": ("linear", "copy_wait<0>();\n    }", "copy_wait<0>();", "", linear, "v3"),
    "gemm_async: waits for too few": ("linear", "copy_wait<1>();  ", "copy_wait<1>", "copy_wait<2>", linear, "v3"),
    "gemm_async: first barrier gone": (
        "linear", "__syncthreads();                                                          // those of all",
        "__syncthreads();", "", linear, "v3"),
    "gemm_async: last barrier gone": (
        "linear", "__syncthreads();                                                          // this set",
        "__syncthreads();", "", linear, "v3"),
    "gemm_async: one set of pieces": ("linear", "start(k + DEEP, turn ^ 1)", "turn ^ 1", "turn", linear, "v3"),
    "gemm_async: packs where rows are odd": ("linear", "if (packs) {", "if (packs)", "if (true)", linear, "v3"),
    "hopper: first barrier gone": (
        HOPPER, "__syncthreads();                                                            // the first stage",
        "__syncthreads();", "", deep, "v5"),
    "hopper: last barrier gone": (HOPPER, "again\n    __syncthreads();", "__syncthreads();", "", deep, "v5"),
    "hopper: no fence after writing": (HOPPER, "    finish_writes();", "finish_writes();", "", deep, "v5"),
    "hopper: no fence before products": (HOPPER, "begin_products(sums);", "begin_products(sums);", "", deep, "v5"),
    "hopper: products not waited for": (HOPPER, "await_products<1>(sums);", "await_products<1>", "", deep, "v5"),
    "hopper: waits for too few": (HOPPER, "await_products<1>(sums);", "<1>", "<2>", deep, "v5"),
    "hopper: last wait gone": (HOPPER, "await_products<0>(sums);", "await_products<0>(sums);", "", deep, "v5"),
    "hopper: two stages": (HOPPER, "STAGES = 3;", "3", "2", deep, "v5"),
    "hopper: packs where rows are odd": (HOPPER, "PACKS = PACKED;", "PACKED", "true", deep, "v5"),
    "hopper: rows not waited for": (
        HOPPER, "__syncthreads();                                                            // all rows",
        "__syncthreads();", "", deep, "v5"),
    "hopper: a misaligned stage": (HOPPER, "-shared_address(memory) & 1023", "& 1023", "& 1023 | 512", deep, "v5"),
    "epilogue: barrier gone": ("epilogue", "sum.v[j];\n  __syncthreads();", "__syncthreads();", "", epilogue),
    "epilogue: every thread adds": ("epilogue", "if (threadIdx.y == 0 && k < K)", "threadIdx.y == 0 && ", "", epilogue),
    "softmax: a warp too many": ("loss", "if (row >= N) return;", "row >= N", "row > N", softmax),
    "pool: a window too many": ("pool", "return min(count - 1, (int)((un", "count - 1", "count", pool),
    "col2im: a window too many": ("conv", "p >= t.P", "p >=", "p >", conv, "v1"),
    "dx: a window too many": ("conv", "p < t.P.by", "p <", "p <=", conv, "v3"),
    "depthwise: first barrier gone": (
        "depthwise", "sum[t].v[j];\n    __syncthreads();", "__syncthreads();", "", depthwise),
    "depthwise: last barrier gone": (
        "depthwise", "__syncthreads();                                                        // the next tap",
        "__syncthreads();", "", depthwise),
    "depthwise: every thread adds": ("depthwise", "if (threadIdx.y == 0 && c < g.C)", "threadIdx.y == 0 && ", "",
                                     depthwise),
    "map: a pack too many": ("activation", "? n / VECTOR : 0", "n / VECTOR", "(n + VECTOR - 1) / VECTOR", relu),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernel_is_detected_in_every_order(monkeypatch, cuda_cache, device, name):
    file, context, old, new, operation, *version = BROKEN[name]
    text = cuda_source.source(file)
    assert context in text and old in context, "the kernel has changed; change this test with it"
    broken = text.replace(context, context.replace(old, new), 1)
    monkeypatch.setattr(cuda_source, "source", {**{name: cuda_source.source(name) for name in cuda_source.files()},
                                                file: broken}.get)
    ops = emulated_ops(cuda_cache, *version, order=device.order)
    with pytest.raises(EmulatorError):
        operation(ops)


@pytest.mark.parametrize("operation", dict.fromkeys(entry[4] for entry in BROKEN.values()), ids=lambda f: f.__name__)
def test_the_same_operations_pass_with_the_right_kernels(cuda_cache, device, operation):
    for version in ("v1", "v3", "v5") if operation in (linear, deep, conv) else ("v3",):
        operation(emulated_ops(cuda_cache, version, order=device.order))


@pytest.mark.parametrize(("products", "old", "new"), [
    ("Tf32", "g + r % 2 * 8, l", "g + r / 2 * 8, l"), ("Bf16", "l, t, r / 2)", "l, t, r % 2)"),
    ("Tf32", "k + t + 4 * half", "k + t"), ("Tf32", "2 * member() + r % 2", "member() + 4 * (r % 2)"),
    ("Bf16", "2 * t + 8 * half", "2 * t"), ("Bf16", "2 * t + 8 * half", "t + 8 * half"),
    ("Bf16", "(piece.at(i, first), piece.at(i, first + 1))", "(piece.at(i, first + 1), piece.at(i, first + 1))"),
    ("Fp16", "2 * t + 8 * half", "2 * t")])
def test_a_wrong_fragment_of_the_tensor_cores_changes_the_result(monkeypatch, cuda_cache, rng, products, old, new):
    text = cuda_source.source("linear")
    assert old in text
    x, w = (rng.integers(-20, 21, shape).astype("f4") for shape in ((16, 16), (16, 8)))
    for wrong in (False, True):
        monkeypatch.setattr(cuda_source, "source", lambda file, wrong=wrong: text.replace(old, new) if wrong else text)
        y = np.zeros((16, 8), "f4")
        emulated_ops(cuda_cache, "v4", products).linear_forward(x, w, y)
        assert (y == x @ w).all() != wrong


@pytest.mark.parametrize(("products", "old", "new"), [
    ("Tf32", "return at ^ swizzle(at);", "return at;"), ("Bf16", "ROW / 16 - 1", "7"),
    ("Tf32", "8 * ROW >> 4", "ROW >> 4"), ("Tf32", "(to ^ swizzle(e * ROW))", "to"),
    ("Fp16", "(to ^ swizzle(e * ROW))", "to"), ("Tf32", "warpgroup * 64 * ROW", "0 * warpgroup"),
    ("Tf32", "APART * n * ROW", "APART * n"), ("Tf32", "row + i * 4", "row + i * 2"), ("Bf16", "l += 2", "l += 4"),
    ("Bf16", "k * 4 / Products::PER_WORD", "k * 2 / Products::PER_WORD"),
    ("Tf32", "{v[n][0][e], v[n][1][e]}", "{v[n][1][e], v[n][0][e]}")])
def test_a_wrong_place_in_a_stage_of_version_5_changes_the_result(monkeypatch, cuda_cache, rng, products, old, new):
    text = cuda_source.source("linear_hopper")
    assert old in text
    x, w = (rng.integers(-20, 21, shape).astype("f4") for shape in ((72, 36), (36, 24)))
    for wrong in (False, True):
        monkeypatch.setattr(cuda_source, "source", lambda file, wrong=wrong: text.replace(old, new) if wrong else text)
        y = np.zeros((72, 24), "f4")
        try:
            emulated_ops(cuda_cache, "v5", products).linear_forward(x, w, y)
        except EmulatorError:
            assert wrong
        else:
            assert (y == x @ w).all() != wrong


def test_every_order_gives_the_same_bits(cuda_cache, rng):
    x, w = rng.standard_normal((3, 7, 7, 5)).astype("f4"), rng.standard_normal((3, 3, 5, 7)).astype("f4")
    dy = rng.standard_normal((3, 7, 7, 7)).astype("f4")
    results = set()
    for order in ORDERS:
        ops, dw, db = emulated_ops(cuda_cache, order=order), np.zeros_like(w), np.zeros(7, "f4")
        ops.conv_backward_weights(x, dy, dw, stride=(1, 1), pads=(1, 1, 1, 1))
        ops.epilogue_backward(dy.copy(), db)
        results.add((dw.tobytes(), db.tobytes()))
    assert len(results) == 1


def test_the_reference_is_not_emulated():
    from tests.cuda_emulator.device import is_emulated
    assert not is_emulated(get_ops("reference"))


def test_a_damaged_or_outdated_build_is_not_used(tmp_path, monkeypatch):
    def three() -> Path:
        return build._build("extern \"C\" int three() { return 3; }", [], [], tmp_path)

    kept = three()
    assert three() == kept
    kept.write_bytes(kept.read_bytes()[:-100] + bytes(100))
    assert ctypes.CDLL(str(three())).three() == 3 and len(list(tmp_path.glob("*.so"))) == 1
    monkeypatch.setattr(build, "compiler", lambda: "another version")
    three()
    assert len(list(tmp_path.glob("*.so"))) == 2
