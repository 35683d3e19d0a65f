"""Winograd's filtering: where it runs, that it computes the convolution, and what its rounding costs."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.ops import get_ops
from minicnn.kernels.cpu import conv, winograd
from minicnn.models.alexnet import alexnet
from tests.tolerances import assert_close

# x (N, H, W, C), kernel size, kernels K, pads, groups: whole tiles and cut ones, all pads, one group and two
CASES = {
    "13 x 13 as in AlexNet": ((4, 13, 13, 64), 3, 128, (1, 1, 1, 1), 1),
    "two groups":            ((5, 13, 13, 128), 3, 64, (1, 1, 1, 1), 2),
    "no padding, whole":     ((4, 18, 18, 32), 3, 48, (0, 0, 0, 0), 1),
    "uneven pads":           ((3, 17, 22, 48), 3, 32, (2, 0, 1, 2), 1),
    "one pixel over":        ((9, 13, 9, 32), 3, 80, (1, 1, 1, 1), 1),
}


def run(ops, case, dtype, monkeypatch, direct):
    """y, dx and whether Winograd's algorithm was asked, for N(0, 1) numbers that fill 1 in the sum."""
    (N, H, W, C), R, K, pads, groups = CASES[case]
    rng = np.random.default_rng(0)
    P, Q = H + pads[0] + pads[2] - R + 1, W + pads[1] + pads[3] - R + 1
    x, w, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in
                   ((N, H, W, C), (R, R, C // groups, K), (K,), (N, P, Q, K)))
    asked = []
    with monkeypatch.context() as patch:
        suited = winograd.is_suited
        patch.setattr(winograd, "is_suited", lambda *case: asked.append(suited(*case)) or (asked[-1] and not direct))
        y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
        options = {"stride": (1, 1), "pads": pads, "groups": groups}
        work = np.full(ops.conv_work(x.shape, w.shape, dtype, **options), 255, np.uint8)
        ops.conv_forward(x, w, y, epilogue=(b, True), work=work, **options)
        ops.conv_backward_data(dy, w, dx, work=work, **options)
    return y, dx, asked


@pytest.mark.parametrize("case", CASES)
def test_equals_the_direct_algorithm_in_float64(case, monkeypatch):
    """Against the direct convolution in float64: the float32 tolerance of sums, times what rounding costs."""
    ops = get_ops("cpu")
    wanted = run(ops, case, "float64", monkeypatch, direct=True)
    got = run(ops, case, "float32", monkeypatch, direct=False)
    assert any(got[2]) and not any(wanted[2])                                  # float64 stays direct by itself
    (_, _, _, C), R, K, _, groups = CASES[case]
    assert_close(got[0], wanted[0].astype("float32"), "winograd", R * R * C // groups)
    assert_close(got[1], wanted[1].astype("float32"), "winograd", R * R * K // groups)


def test_rounding_is_a_few_times_that_of_the_direct_algorithm(monkeypatch):
    """Root mean square error in units of the result's own size: 3e-6 beside 8e-7 for AlexNet's conv3."""
    ops, case = get_ops("cpu"), "13 x 13 as in AlexNet"
    exact = run(ops, case, "float64", monkeypatch, direct=True)
    errors = []
    for direct in (True, False):
        got = run(ops, case, "float32", monkeypatch, direct)
        errors.append(np.sqrt(np.mean((got[1] - exact[1]) ** 2)) / np.std(exact[1]))
    assert errors[0] < errors[1] < 8 * errors[0]


@pytest.mark.parametrize("shape, why", [
    (((3, 3), (2, 2), (1, 1, 1, 1), 64, 64, 8, 28, 28, "float32"), "a stride"),
    (((5, 5), (1, 1), (2, 2, 2, 2), 64, 64, 8, 28, 28, "float32"), "a larger kernel"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 3, 64, 8, 28, 28, "float32"), "few channels"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 64, 64, 1, 13, 13, "float32"), "few tiles"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 33, 64, 8, 28, 28, "float32"), "channels that do not fill vectors"),
    (((3, 3), (1, 1), (3, 1, 1, 1), 64, 64, 8, 28, 28, "float32"), "padding wider than the kernel"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 64, 64, 8, 28, 28, "float64"), "float64"),
])
def test_everything_else_stays_direct(shape, why):
    assert not winograd.is_suited(*shape), why


def test_the_summary_names_the_algorithm():
    """conv3 runs by Winograd, conv1 has a stride, and a batch of one has too few tiles."""
    net = alexnet(device="cpu", fc=8)
    runs = {line.split()[0]: line.split("  ")[-1].strip() for line in net.summary(32).splitlines() if "conv" in line}
    assert runs["conv1"] == "cpu direct + ReLU" and runs["conv3"] == "cpu Winograd + ReLU"
    alone = next(line for line in net.summary(1).splitlines() if line.startswith("conv3"))
    assert alone.endswith("cpu direct + ReLU")


def test_work_space_holds_it(monkeypatch):
    """Given just what conv_work asks for, nothing is allocated besides."""
    asked = []
    inner = conv.arrays_in
    monkeypatch.setattr(conv, "arrays_in", lambda work, requests: asked.append(work.size >= conv.bytes_of(requests))
                        or inner(work, requests))
    run(get_ops("cpu"), "two groups", "float32", monkeypatch, direct=False)
    assert asked and all(asked)
