"""The CUDA launcher: arguments that it refuses and CuPy would accept, precisions, and the reasons why a GPU cannot be
used. All of it on the emulator; nothing here needs CuPy or a GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn.backend.cuda import device as cuda_device
from minicnn.backend.cuda import gemm_tiling
from minicnn.backend.cuda import ops as cuda
from minicnn.backend.cuda import source as cuda_source
from minicnn.backend.cuda.arguments import checker
from minicnn.backend.ops import OPS
from minicnn.backend.select import make_ops
from minicnn.errors import DeviceError, ShapeError
from tests.cuda_emulator.build import why_not
from tests.cuda_emulator.device import EmulatorDevice

needs_emulator = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")

# ---- the text of the kernels
def test_headers_are_inserted_into_the_text():
    """CuPy caches compiled kernels by their text alone: an edited header must change it."""
    for name in cuda_source.files():
        text = cuda_source.source(name)
        assert "#include" not in text and text.count("typedef REAL T;") == 1


def test_parameters_are_read_from_the_text():
    step = cuda_source.kernels("sgd")["sgd_step"]
    assert [(p.name, p.type, p.pointer, p.const) for p in step[:4]] == [
        ("w", "T", True, False), ("dw", "T", True, True), ("v", "T", True, False), ("n", "unsigned", False, False)]
    window = cuda_source.kernels("pool")["maxpool_forward"][3]
    assert window.fields[0] == ("W", "int") and window.fields[-1] == ("stride_w", "Divisor")
    assert window.dtype("float32").itemsize == 6 * 4 + 5 * 12


def test_a_parameter_that_cannot_be_checked_is_refused(monkeypatch):
    text = 'extern "C" __global__ void k(const half* x) { }'
    monkeypatch.setattr(cuda_source, "source", lambda name: text)
    with pytest.raises(DeviceError, match=r"kernels/cuda/odd.cu: k takes 'const half\* x'; .*float"):
        cuda_source.kernels.__wrapped__("odd")


def test_tiles_are_those_of_the_kernels():
    text = cuda_source.source("conv")
    assert "constexpr int TILE = 64, STEP = 16;" in text
    assert "constexpr int TALL = 128, WIDE = 64, DEEP = 64 / sizeof(T), ASYNC_THREADS = 128;" in text
    assert "constexpr int TILE = 1024;" in cuda_source.source("lrn")
    tiles = gemm_tiling.TILES
    assert tiles["v3"] == tiles["v4"] == (128, 64, 128) and tiles["v2"] == (64, 64, 256)
    hopper = cuda_source.source("conv_hopper")
    assert "TALL = ROWS, WIDE = COLUMNS, DEEP = 32, THREADS = 2 * TALL, STAGES = 3;" in hopper
    assert tiles["v5"] == (256, 128, 512) and (gemm_tiling.DEEP, gemm_tiling.STAGES) == (32, 3)
    for width in gemm_tiling.WIDTHS:
        assert f"#define ALL_SUMS_{width} " in hopper


# ---- what is refused
@pytest.fixture
def x():
    return np.ones((2, 3, 4, 5), "f4")


@needs_emulator
@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x.astype("f8"), "relu_forward: y must be float32, it is float64"),
    (lambda x: x.astype("i4"), "relu_forward: y must be float32, it is int32"),
    (lambda x: x.T, r"relu_forward: y, an array of shape \(5, 4, 3, 2\), is not C-contiguous"),
    (lambda x: x.tolist(), "relu_forward: y must be an array of this backend's device, it is builtins.list"),
])
def test_wrong_arrays_are_refused(emulated, x, change, message):
    with pytest.raises(ShapeError, match=message):
        emulated.relu_forward(x, change(x))


@needs_emulator
def test_other_number_types_are_refused(emulated, x):
    with pytest.raises(ShapeError, match="relu_forward: x must be float32 or float64, it is float16"):
        emulated.relu_forward(x.astype("f2"), x.astype("f2"))


@needs_emulator
def test_numbers_that_do_not_fit_are_refused(emulated, x):
    options = {"rate": 0.5, "scale": 1.0, "seed": 1, "purpose": 2, "sample_ids": np.arange(2, dtype=np.uint32)}
    with pytest.raises(ShapeError, match="dropout: epoch = 4294967296 does not fit uint32"):
        emulated.dropout_forward(x, x, epoch=2**32, **options)
    with pytest.raises(ShapeError, match="dropout: epoch = -1 does not fit uint32"):
        emulated.dropout_forward(x, x, epoch=-1, **options)


@needs_emulator
def test_arrays_too_large_to_index_are_refused(emulated):
    large = np.lib.stride_tricks.as_strided(np.empty(1, "u1"), (2**31,), (0,))
    huge = SimpleNamespace(dtype=np.dtype("u1"), flags=SimpleNamespace(c_contiguous=True), size=large.size)
    parameter = cuda_source.Parameter("images", "byte", pointer=True)
    with pytest.raises(ShapeError, match="images has 2,147,483,648 elements.*smaller batch"):
        checker("k", parameter, "float32", lambda array: True)(huge)


@needs_emulator
def test_too_much_shared_memory_is_refused(emulated):
    x = np.ones((1, 1, 1, 20001), "f8")
    with pytest.raises(ShapeError, match="lrn_backward: a grid of .* shared memory is more than a GPU allows"):
        emulated.lrn_backward(x, x.copy(), x.copy(), n=9999, k=1.0, alpha=1.0, beta=0.5)


@needs_emulator
def test_nothing_is_launched_for_an_empty_batch(emulated):
    """CuPy would turn an empty grid into a grid of one block."""
    before, empty = emulated.device.launches, np.ones((0, 4, 4, 3), "f4")
    emulated.relu_forward(empty, empty.copy())
    emulated.add_backward(empty, [empty.copy(), None])
    assert emulated.device.launches == before


@needs_emulator
def test_an_array_of_the_device_is_returned_as_it_is(emulated, x):
    assert emulated.from_host(x) is x
    assert emulated.from_host(x.T).flags.c_contiguous


def test_a_missing_operation_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(OPS, "sgd", ("sgd_step", "sgd_leap"))
    with pytest.raises(DeviceError, match="backend 'cuda' lacks the operation sgd_leap"):
        cuda.CudaOps(EmulatorDevice(tmp_path), "v3", "Tf32")


# ---- precisions
@pytest.mark.parametrize(("spec", "version", "products"), [
    ("cuda", "v4", "Tf32"), ("cuda:fp32", "v3", "Tf32"), ("cuda:tf32", "v4", "Tf32"), ("cuda:bf16", "v4", "Bf16"),
    ("cuda:fp16", "v4", "Fp16")])
@pytest.mark.parametrize("architecture", ["80", "90", "120"])
def test_precision(monkeypatch, tmp_path, spec, version, products, architecture):
    """On a Hopper GPU, and on no other, its own version for the tensor cores."""
    monkeypatch.setattr(cuda_device, "CupyDevice", lambda: EmulatorDevice(tmp_path))
    monkeypatch.setattr(EmulatorDevice, "architecture", architecture)
    ops = make_ops(spec)
    version = "v5" if (version, architecture) == ("v4", "90") else version
    assert (ops.name, ops.version, ops.products) == ("cuda", version, products)
    assert make_ops(ops.spec).spec == ops.spec == (spec if ":" in spec else "cuda:tf32")


@pytest.mark.parametrize(("spec", "complaint"), [
    ("cuda:fp8", "unknown precision 'fp8' of device 'cuda': expected one of fp32, tf32, bf16, fp16"),
    ("cpu:fp16", "unknown precision 'fp16' of device 'cpu': expected one of fp32, bf16"),
    ("reference:bf16", "device 'reference' computes in the precision of its arrays; one can be chosen for cpu and")])
def test_precisions_that_do_not_exist(spec, complaint):
    with pytest.raises(DeviceError, match=complaint):
        make_ops(spec)


# ---- kernels that CuPy cannot compile itself
class NoNvrtc:
    """As much of cupy.cuda.nvrtc as `compiled` uses."""

    class NVRTCError(Exception):
        pass

    def __init__(self):
        self.compiled = []

    def getVersion(self):
        return 13, 0

    def createProgram(self, text, name, headers, names):
        return text

    def compileProgram(self, program, options):
        self.compiled.append(options)
        if "wrong" in program:
            raise self.NVRTCError

    def getCUBIN(self, program):
        return program.encode()             # CuPy's cuts off the last byte

    def getProgramLog(self, program):
        return "k.cu(1): error: wrong\n"

    def destroyProgram(self, program):
        pass


def test_hoppers_kernels_are_compiled_once(monkeypatch, tmp_path):
    nvrtc = NoNvrtc()
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(nvrtc=nvrtc)))
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    text = cuda_source.source("linear_hopper")
    options = cuda_source.options(text, "float32", "Bf16", gemm_tiling.Product("v5", 9, 96, 9, packs=False).options)
    assert options[1:] == ("-DREAL=float", "-DPRODUCTS=Bf16", "-DROWS=128", "-DCOLUMNS=96", "-DPACKED=0",
                           "-arch=sm_90a")
    paths = {cuda_source.compiled("linear_hopper", text, options) for _ in range(3)}
    assert [path.read_text() for path in paths] == [text + "\0"]
    assert nvrtc.compiled == [(*options, *cuda_source.CUPY_ADDS)]
    [path] = paths
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    assert cuda_source.compiled("linear_hopper", text, options) == path and path.read_text() == text + "\0"
    assert len(nvrtc.compiled) == 2
    paths |= {cuda_source.compiled("linear_hopper", text + "\n", options),
              cuda_source.compiled("linear_hopper", text, options[:-1])}
    assert len(paths) == len(list((tmp_path / "kernels").iterdir())) == 3
    with pytest.raises(DeviceError, match=r"k.cu cannot be compiled with -arch=sm_90a .*: k.cu\(1\): error"):
        cuda_source.compiled("k", "wrong", ("-arch=sm_90a",))
    (tmp_path / "file").touch()
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="minicnn-k-.*cubin: a compiled kernel cannot be written: File exists; cho"):
        cuda_source.compiled("k", "right", ("-arch=sm_90a",))


@pytest.mark.parametrize(("threads", "shared", "percent", "cache"), [(512, 154_624, 67, 92), (256, 103_424, 90, 28)])
def test_memory_that_is_not_shared_is_left_to_the_cache(threads, shared, percent, cache):
    """An H100: 256 KB for each multiprocessor, of which up to 228 may be shared memory, in fixed sizes."""
    runtime = SimpleNamespace(cudaDevAttrMaxSharedMemoryPerMultiprocessor=81, deviceGetAttribute=lambda *_: 228 * 1024)
    device = SimpleNamespace(cupy=SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)), index=0)
    assert cuda_device.CupyDevice._carveout(device, threads, shared) == percent
    sizes = [size for size in (0, 8, 16, 32, 64, 100, 132, 164, 196, 228) if size >= percent / 100 * 228]
    assert 256 - sizes[0] == cache
    product = gemm_tiling.Product("v5", 128 * threads // 256, 128, 64)
    assert (product.threads, product.shared("Tf32")) == (threads, shared)


# ---- why a GPU cannot be used
class DriverError(Exception):
    pass


def fake_cupy(devices=1, result=42, driver=None, compiles=True, major=9):
    """As much of CuPy as the probe touches."""
    def device_count():
        if driver:
            raise DriverError(driver)
        return devices

    def kernel(text, name, options):
        assert "probe" in text
        if not compiles:
            raise RuntimeError("cannot find libnvrtc.so.13\nand more")
        return lambda grid, block, arguments: None

    runtime = SimpleNamespace(getDeviceCount=device_count, getDevice=lambda: 0,
                              getDeviceProperties=lambda index: {"name": b"Card", "major": major, "minor": 5})
    return SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime), RawKernel=kernel,
                           zeros=lambda n, dtype: np.full(n, result, dtype))


@pytest.fixture
def reason(monkeypatch):
    """The result of the probe for a given CuPy."""
    def probe(cupy):
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        return cuda_device.why_not.__wrapped__()
    return probe


def test_the_probe_accepts_a_kernel_that_ran(reason):
    assert reason(fake_cupy()) is None


@pytest.mark.parametrize(("cupy", "message"), [
    (None, r"CuPy is not installed or cannot be loaded \(.*\); pip install 'minicnn\[cuda13\]'.*nvidia-smi"),
    (fake_cupy(devices=0), "there is no NVIDIA GPU in this machine"),
    (fake_cupy(driver="cudaErrorInsufficientDriver"), "finds no NVIDIA driver .*cudaErrorInsufficientDriver.*install"),
    (fake_cupy(result=7), "gave a wrong result"),
    (fake_cupy(major=7), r"the GPU, Card, has compute capability 7.5; the kernels need 8.0"),
    (fake_cupy(compiles=False), r"cannot be compiled and run \(RuntimeError: cannot find libnvrtc.so.13\); pip"),
])
def test_the_probe_says_why_not_in_one_line(reason, cupy, message):
    import re
    found = reason(cupy)
    assert re.search(message, found) and "\n" not in found


def test_a_device_that_cannot_be_used_is_refused_and_auto_falls_back_to_cpu(monkeypatch):
    monkeypatch.setattr(cuda_device, "why_not", lambda: "there is no GPU")
    with pytest.raises(DeviceError, match="device 'cuda' cannot be used: there is no GPU; or use --device cpu"):
        make_ops("cuda")
    assert make_ops("auto").name == "cpu"


@needs_emulator
def test_auto_uses_a_gpu_that_works(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_device, "why_not", lambda: None)
    monkeypatch.setattr(cuda_device, "CupyDevice", lambda: EmulatorDevice(tmp_path))
    assert make_ops("auto").name == "cuda"
