"""Winograd's filtering: where it runs, that it computes the convolution, and its rounding error."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.builder import Builder
from minicnn.kernels.cpu import conv, winograd, winograd_weights
from minicnn.models.alexnet import alexnet
from tests.tolerances import assert_close

# x (N, H, W, C), kernel size, kernels K, pads, groups: whole tiles and cut ones, all pads, one group and two
CASES = {
    "13 x 13 as in AlexNet": ((4, 13, 13, 64), 3, 128, (1, 1, 1, 1), 1),
    "two groups":            ((5, 13, 13, 128), 3, 64, (1, 1, 1, 1), 2),
    "no padding, whole":     ((4, 18, 18, 32), 3, 48, (0, 0, 0, 0), 1),
    "uneven pads":           ((3, 17, 22, 48), 3, 32, (2, 0, 1, 2), 1),
    "one pixel over":        ((9, 13, 9, 32), 3, 80, (1, 1, 1, 1), 1),
    "27 x 27, 5 x 5 kernels": ((2, 27, 27, 96), 5, 256, (2, 2, 2, 2), 2),
    "64 tiles, one panel":   ((16, 8, 8, 32), 3, 32, (1, 1, 1, 1), 1),
    "5 x 5, uneven pads":    ((4, 14, 16, 80), 5, 32, (4, 0, 1, 3), 1),
    "5 x 5, no padding":     ((5, 15, 17, 32), 5, 48, (0, 0, 0, 0), 1),
    "panels in pieces":      ((16, 8, 8, 192), 3, 272, (1, 1, 1, 1), 1),      # the last piece of 272 is shorter
}


def run(ops, case, dtype, monkeypatch, direct):
    """y, dx, dw and where Winograd's algorithm was chosen, for values from N(0, 1)."""
    (N, H, W, C), R, K, pads, groups = CASES[case]
    rng = np.random.default_rng(0)
    P, Q = H + pads[0] + pads[2] - R + 1, W + pads[1] + pads[3] - R + 1
    x, w, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in
                   ((N, H, W, C), (R, R, C // groups, K), (K,), (N, P, Q, K)))
    chosen = []
    with monkeypatch.context() as patch:
        suited = winograd.outputs_of_a_tile
        patch.setattr(winograd, "outputs_of_a_tile",
                      lambda *case: chosen.append(suited(*case)) or (0 if direct else chosen[-1]))
        y, dx, dw = np.full_like(dy, np.nan), np.full_like(x, np.nan), np.ones_like(w)
        options = {"stride": (1, 1), "pads": pads, "groups": groups}
        work = np.full(ops.conv_work(x.shape, w.shape, dtype, **options), 255, np.uint8)
        ops.conv_forward(x, w, y, epilogue=(b, True), work=work, **options)
        ops.conv_backward_data(dy, w, dx, work=work, **options)
        work[:] = 255                                                          # NaN, which none of its sums may hold
        ops.conv_backward_weights(x, dy, dw, work=work, **options)
        alone = np.full_like(w, np.nan)                                        # written, whatever it held; dw: added
        ops.conv_backward_weights(x, dy, alone, add=False, work=work, **options)
        np.testing.assert_allclose(alone + 1, dw, rtol=1e-5, atol=1e-4)
    return y, dx, dw, chosen


@pytest.mark.parametrize("case", CASES)
def test_equals_the_direct_algorithm_in_float64(case, monkeypatch):
    """Against the direct convolution in float64: the float32 tolerance of sums, times a factor for its rounding."""
    ops = get_ops("cpu")
    wanted = run(ops, case, "float64", monkeypatch, direct=True)
    got = run(ops, case, "float32", monkeypatch, direct=False)
    assert all(got[3]) and not any(wanted[3])                                  # float64 stays direct by itself
    (_, _, _, C), R, K, _, groups = CASES[case]
    assert_close(got[0], wanted[0].astype("float32"), "winograd", R * R * C // groups)
    assert_close(got[1], wanted[1].astype("float32"), "winograd", R * R * K // groups)
    assert_close(got[2], wanted[2].astype("float32"), "winograd", wanted[0][..., 0].size)


def test_more_threads_than_tiles(monkeypatch):
    """Each adds up a part of the tiles of dw, and there are no more parts than tiles."""
    wanted = run(get_ops("cpu"), "64 tiles, one panel", "float64", monkeypatch, direct=True)[2]
    monkeypatch.setattr(winograd_weights, "threads", lambda: 80)
    got = run(get_ops("cpu"), "64 tiles, one panel", "float32", monkeypatch, direct=False)[2]
    assert_close(got, wanted.astype("float32"), "winograd", 16 * 8 * 8)


@pytest.mark.parametrize("case", ["13 x 13 as in AlexNet", "27 x 27, 5 x 5 kernels"])
def test_rounding_is_a_few_times_that_of_the_direct_algorithm(case, monkeypatch):
    """Root mean square error in units of the result's own size: 3e-6 beside 8e-7 for AlexNet's conv2 and conv3."""
    ops = get_ops("cpu")
    exact = run(ops, case, "float64", monkeypatch, direct=True)
    errors = []
    for direct in (True, False):
        got = run(ops, case, "float32", monkeypatch, direct)
        errors.append([np.sqrt(np.mean((got[i] - exact[i]) ** 2)) / np.std(exact[i]) for i in range(3)])
    for got, direct in zip(errors[1][:2], errors[0][:2], strict=True):
        assert direct < got < 8 * direct
    assert errors[0][2] < errors[1][2] < 6e-6                                  # dw: 3e-6 beside 2e-7


@pytest.mark.parametrize("shape, why", [
    (((3, 3), (2, 2), (1, 1, 1, 1), 64, 64, 8, 28, 28, "float32"), "a stride"),
    (((7, 7), (1, 1), (3, 3, 3, 3), 64, 64, 8, 28, 28, "float32"), "a larger kernel"),
    (((3, 5), (1, 1), (1, 2, 1, 2), 64, 64, 8, 28, 28, "float32"), "a kernel that is not square"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 3, 64, 8, 28, 28, "float32"), "few channels"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 64, 64, 1, 13, 13, "float32"), "few tiles"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 33, 64, 8, 28, 28, "float32"), "channels that do not fill vectors"),
    (((3, 3), (1, 1), (3, 1, 1, 1), 64, 64, 8, 28, 28, "float32"), "padding wider than the kernel"),
    (((3, 3), (1, 1), (1, 1, 1, 1), 64, 64, 8, 28, 28, "float64"), "float64"),
])
def test_everything_else_stays_direct(shape, why):
    assert not winograd.outputs_of_a_tile(*shape), why


@pytest.mark.parametrize("outputs, taps", [(4, 3), (3, 5), (2, 2)])
def test_the_matrices_compute_a_correlation_exactly(outputs, taps):
    """In fractions: A' [(G g) * (B' d)] is the sum over taps, with no rounding at all."""
    rng, M = np.random.default_rng(0), winograd.matrices(outputs, taps)
    g, d = ([Fraction(int(i)) for i in rng.integers(-9, 9, size)] for size in (taps, outputs + taps - 1))

    def times(name, vector):
        return [sum(a * b for a, b in zip(line, vector, strict=True)) for line in M[name]]

    products = [a * b for a, b in zip(times("kernel", g), times("input", d), strict=True)]
    assert times("output", products) == [sum(g[r] * d[i + r] for r in range(taps)) for i in range(outputs)]


def test_the_matrices_of_the_paper():
    """B' and A' of F(4 x 4, 3 x 3) as printed by Lavin & Gray (2016, section 4.3)."""
    M = winograd.matrices(4, 3)
    assert M["input"] == [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                          [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
    assert M["output"] == [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def test_the_summary_names_the_algorithm():
    """conv2 and conv3 run by Winograd, conv1 has a stride, and a batch of one has too few tiles."""
    net = alexnet(device="cpu", fc=8)
    runs = {line.split()[0]: line.split("  ")[-1].strip() for line in net.summary(32).splitlines() if "conv" in line}
    assert runs["conv1"] == "cpu direct + ReLU" and runs["conv2"] == runs["conv3"] == "cpu Winograd + ReLU"
    alone = next(line for line in net.summary(1).splitlines() if line.startswith("conv3"))
    assert alone.endswith("cpu direct + ReLU")


def test_the_summary_explains_dx_where_it_differs():
    b = Builder((6, 6, 64))
    b.conv("conv", 64, 3)
    b.loss("loss", input=b.linear("fc", 2, input=b.flatten("flat")))
    net, words = b.net(device="cpu"), "; dx, dw: of the gradients with respect to input and weights, where it differs"
    assert "cpu direct, dx Winograd" in net.summary(32) and words in net.summary(32)
    assert "dx Winograd" not in net.summary(1) and "dx" not in net.summary(1)


def test_work_space_holds_it(monkeypatch):
    """With exactly the bytes of conv_work, nothing else is allocated."""
    enough = []
    inner = conv.arrays_in
    monkeypatch.setattr(conv, "arrays_in", lambda work, requests: enough.append(work.size >= conv.bytes_of(requests))
                        or inner(work, requests))
    run(get_ops("cpu"), "two groups", "float32", monkeypatch, direct=False)
    assert enough and all(enough)
