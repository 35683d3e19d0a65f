"""What a step moves on a GPU, counted without one, and the predicted times."""

from __future__ import annotations

import json
import sys

import gpu_prediction
import numpy as np
import pytest

from minicnn.backend.cuda.gemm_tiling import Product
from tests.cuda_emulator import nvrtc

BEFORE = 6.591e9            # bytes at batch 128, by this script, when no plan fused LRN, pooling or the update


@pytest.fixture(scope="module")
def launches():
    return gpu_prediction.launches_of(128, "tf32")


def rows_of(launches):
    return list(gpu_prediction.predicted(launches, "Tf32", 2.8e12))


def test_a_step_moves_two_gigabytes_less_than_it_did(launches):
    rows = rows_of(launches)
    assert sum(row.moved for row in rows) < BEFORE - 2.0e9 and len(rows) == 74
    assert sum(row.flop for row in rows) == pytest.approx(2 * 264e9, rel=0.01)
    print(f"{sum(row.moved for row in rows) / 1e9:.3f} GB moved, {BEFORE / 1e9:.3f} before")


def test_activations_in_bf16_move_less():
    """And nothing is converted: images are given as they are stored."""
    rows = list(gpu_prediction.predicted(gpu_prediction.launches_of(128, "bf16"), "Bf16", 2.8e12))
    wide = gpu_prediction.predicted(gpu_prediction.launches_of(128, "bf16", float32=True), "Bf16", 2.8e12)
    moved, before = (sum(row.moved for row in each) for each in (rows, wide))
    assert len(rows) == 74 and not {"widen", "narrow"} & {row.kernel for row in rows}
    assert moved < before - 1.2e9
    print(f"{moved / 1e9:.3f} GB moved, {before / 1e9:.3f} with activations in float32")


def test_products_take_the_time_that_was_reckoned_by_hand(launches):
    """730 tiles of 38 and of 100 stages, on 132 multiprocessors: six rounds of 1,792 and of 1,408 cycles a stage."""
    seconds = {f"{row.layer} {row.kernel}": row.seconds for row in rows_of(launches)}
    assert seconds["conv2 forward conv_v5_forward"] == pytest.approx(6 * (38 * 1792 + 6000) / 1.755e9)
    assert seconds["conv2 backward conv_v5_backward_data"] == pytest.approx(6 * (100 * 1408 + 6000) / 1.755e9)
    cycles = gpu_prediction.cycles_of(Product("v5", 256, 128, 320), "Tf32")
    assert cycles == {"tensor cores": 10 * 1024 + 6000, "shared memory": 10 * 1792 + 6000}


def test_each_array_is_counted_once_for_reading_and_once_for_writing():
    w, dw, v = (np.empty(100, "f4") for _ in range(3))
    step = (w, dw, v, 100, 0.1, None, 0.9, 0.1, None)
    assert gpu_prediction.bytes_of("sgd", "sgd_step", step) == (1200, 800)
    assert gpu_prediction.bytes_of("combine", "add", (w, dw, w, 100)) == (800, 400)
    assert gpu_prediction.bytes_of("epilogue", "epilogue_add", (w, v, 10, 10, 1)) == (800, 400)
    assert gpu_prediction.bytes_of("epilogue", "epilogue_add", (w, v, 10, 10, 0)) == (400, 400)


def test_what_a_kernel_updates_is_known():
    """A parameter that is not const, in a kernel that reads it: what the text of the kernels says."""
    for file, kernels in {"epilogue": {"epilogue_sums"}, "sgd": {"sgd_step"}, "linear_hopper": {"linear_v5_sgd_step"},
                          "running_metrics": {"count_losses", "count_correct"}}.items():
        for kernel in kernels:
            named = {parameter.name for parameter in gpu_prediction.source.kernels(file)[kernel] if not parameter.const}
            assert gpu_prediction.UPDATED[kernel] <= named


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc")
def test_instructions_are_those_of_the_compiled_code():
    text = 'extern "C" __global__ void one(float* x) { *x = 1; }\n' \
           'extern "C" __global__ void more(float* x) { x[threadIdx.x] = x[threadIdx.x] * x[9] + x[7]; }'
    cubin, _ = nvrtc.compile_cubin(text, "k", "90", ())
    sizes = gpu_prediction.code_sizes(cubin)
    assert set(sizes) == {"one", "more"} and 0 < sizes["one"] <= sizes["more"] and sizes["one"] % 16 == 0


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_prediction, "compiled_sizes", lambda *_: {})
    monkeypatch.setattr(sys, "argv", ["gpu_prediction.py", "--batch", "2", "--json", str(tmp_path / "rows.json")])
    gpu_prediction.main()
    printed = capsys.readouterr().out.splitlines()
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert printed[-1].startswith(f"{len(rows)} launches, ") and printed[-1].endswith(" ms predicted")
    assert rows[0]["kernel"] == "conv_v5_forward" and printed[1].startswith("conv1 forward")
    monkeypatch.setattr(sys, "argv", ["gpu_prediction.py", "--batch", "0"])
    with pytest.raises(SystemExit):
        gpu_prediction.main()
