"""Convolution: the reference against naive loops and central differences, the backends against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.shapes import window_output
from tests.cuda_emulator.device import is_emulated
from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

# name: x (N, H, W, C), kernel (R, S), kernels K, stride, padding, groups, ceil
SMALL = {
    "plain":                  ((2, 5, 6, 3), (3, 3), 4, (1, 1), 0, 1, False),
    "1x1 map, 1x1 kernel":    ((1, 1, 1, 7), (1, 1), 3, (1, 1), 0, 1, False),
    "stride past the kernel": ((2, 7, 9, 3), (2, 1), 5, (3, 4), 0, 1, False),
    "rows left over":         ((1, 8, 7, 2), (3, 3), 3, (3, 2), 0, 1, False),
    "uneven pads":            ((2, 4, 5, 3), (3, 2), 2, (2, 1), (0, 1, 2, 3), 1, False),
    "ceil":                   ((1, 6, 8, 2), (3, 3), 3, (2, 3), 0, 1, True),
    "kernel past the map":    ((1, 2, 2, 3), (5, 5), 2, (1, 1), 2, 1, False),
    "two groups":             ((2, 4, 3, 6), (3, 3), 4, (1, 1), 1, 2, False),
    "groups = C":             ((1, 4, 5, 5), (3, 3), 10, (2, 2), 1, 5, False),
    "depthwise":              ((2, 5, 6, 3), (3, 3), 3, (1, 1), 1, 3, False),
    "depthwise, uneven pads": ((2, 5, 4, 4), (3, 2), 4, (2, 3), (0, 1, 2, 0), 4, True),
}
LARGE = {
    "odd channels":           ((5, 9, 7, 19), (3, 3), 33, (1, 1), 1, 1, False),
    "conv1 of AlexNet":       ((2, 46, 46, 3), (11, 11), 96, (4, 4), 0, 1, True),
    "conv2 of AlexNet":       ((3, 13, 13, 48), (5, 5), 128, (1, 1), 2, 2, False),
    "many images, 1x1":       ((33, 3, 3, 34), (1, 1), 65, (1, 1), 0, 1, False),
    "long runs":              ((2, 6, 5, 130), (3, 3), 70, (1, 1), 1, 1, False),
    "17 groups":              ((2, 6, 6, 51), (3, 3), 34, (2, 1), (1, 0, 0, 1), 17, False),
} | {f"depthwise {name}": case for name, case in {
    "of MobileNet":           ((3, 14, 14, 48), (3, 3), 48, (1, 1), 1, 48, False),
    "every 2 pixels":         ((5, 13, 12, 36), (3, 3), 36, (2, 2), 1, 36, False),
    "past the packed lines":  ((2, 9, 130, 18), (3, 3), 18, (1, 1), 1, 18, False),
    "5x5, ceil":              ((2, 10, 9, 17), (5, 5), 17, (2, 2), 2, 17, True),
    "3x1":                    ((2, 6, 5, 33), (3, 1), 33, (1, 2), (1, 0, 0, 0), 33, False),
    "1x1, every 3 pixels":    ((2, 7, 8, 20), (1, 1), 20, (3, 3), 0, 20, False),
    "past the map":           ((1, 2, 3, 40), (5, 4), 40, (1, 1), 3, 40, False),
}.items()}


class Case:
    """Random arrays and options for one convolution."""

    def __init__(self, rng, dtype, shape, kernel, K, stride, padding, groups, ceil):
        size, pads = window_output(shape[1:3], kernel, stride, padding, ceil)
        self.options = {"stride": stride, "pads": pads, "groups": groups}
        self.w_shape = (*kernel, shape[3] // groups, K)
        self.x, self.w, self.b = (rng.standard_normal(s).astype(dtype) for s in (shape, self.w_shape, K))
        self.dy = rng.standard_normal((shape[0], *size, K)).astype(dtype)

    def work(self, ops):
        """Work space of exactly the required size, full of NaN patterns."""
        return np.full(ops.conv_work(self.x.shape, self.w_shape, self.x.dtype.name, **self.options), 255, np.uint8)

    def compare(self, ops, **work):
        """All three operations against the reference."""
        x, w, b, dy, options = self.x, self.w, self.b, self.dy, {**self.options, **work}
        R, S, D, K = self.w_shape
        for epilogue in ((None, False), (b, False), (b, True)):
            compare(ops, "conv_forward", x, w, garbage(dy.shape, x.dtype), writes=(2,), kind="sum", terms=R * S * D,
                    epilogue=epilogue, **options)
        compare(ops, "conv_backward_data", dy, w, garbage(x.shape, x.dtype), writes=(2,), kind="sum", terms=R * S * K,
                **options)
        for dw, add in ((w.copy(), True), (garbage(w.shape, w.dtype), False)):
            compare(ops, "conv_backward_weights", x, dy, dw, writes=(2,), kind="sum", terms=dy.size // K, add=add,
                    **options)


@pytest.mark.parametrize("case", SMALL)
def test_forward_equals_loops(reference, rng, case):
    c = Case(rng, "float64", *SMALL[case])
    y = call(reference, "conv_forward", c.x, c.w, garbage(c.dy.shape, "float64"), writes=(2,), epilogue=(c.b, False),
             **c.options)
    assert_close(y, naive.conv(c.x, c.w, c.b, c.dy.shape[1:3], **c.options), "sum")


@pytest.mark.parametrize("case", SMALL)
def test_backward_equals_differences(reference, rng, case):
    c = Case(rng, "float64", *SMALL[case])

    def forward():
        return call(reference, "conv_forward", c.x, c.w, garbage(c.dy.shape, "float64"), writes=(2,), **c.options)

    dx = call(reference, "conv_backward_data", c.dy, c.w, garbage(c.x.shape, "float64"), writes=(2,), **c.options)
    dw = call(reference, "conv_backward_weights", c.x, c.dy, np.ones_like(c.w), writes=(2,), **c.options)
    assert_close(dx, numeric_gradient(forward, c.x, c.dy), "numeric")
    assert_close(dw - 1, numeric_gradient(forward, c.w, c.dy), "numeric")                      # added to the ones


@pytest.mark.parametrize("work", ["own work space", "given work space"])
@pytest.mark.parametrize("case", [*SMALL, *LARGE])
def test_equals_reference(ops, dtype, rng, case, work):
    if is_emulated(ops) and "AlexNet" in case:
        pytest.skip("takes the emulator many seconds; tests/models/test_cuda.py trains these layers")
    c = Case(rng, dtype, *(SMALL | LARGE)[case])
    c.compare(ops, work=c.work(ops) if work == "given work space" else None)


@given(data=st.data())
def test_any_shape_equals_reference(ops, dtype, data):
    draw = data.draw
    R, S, u, v = (draw(st.integers(1, 4), label=label) for label in ("R", "S", "u", "v"))
    pads = tuple(draw(st.integers(0, size - 1)) for size in (R, S, R, S))
    groups, D, M = (draw(st.integers(1, top), label=label) for top, label in ((3, "G"), (9, "C/G"), (9, "K/G")))
    N, H, W = draw(st.integers(1, 3)), draw(st.integers(R, 9)), draw(st.integers(S, 9))
    ceil, rng = draw(st.booleans(), label="ceil"), np.random.default_rng(draw(st.integers(0, 99), label="seed"))
    c = Case(rng, dtype, (N, H, W, groups * D), (R, S), groups * M, (u, v), pads, groups, ceil)
    c.compare(ops, work=c.work(ops))


@given(data=st.data())
def test_any_depthwise_shape_equals_reference(ops, dtype, data):
    draw = data.draw
    R, S, u, v = (draw(st.integers(1, top), label=label) for label, top in (("R", 5), ("S", 4), ("u", 3), ("v", 3)))
    pads = tuple(draw(st.integers(0, size)) for size in (R, S, R, S))
    N, H, W, C = (draw(st.integers(least, most)) for least, most in ((1, 3), (R, 9), (S, 9), (2, 37)))
    ceil, rng = draw(st.booleans(), label="ceil"), np.random.default_rng(draw(st.integers(0, 99), label="seed"))
    c = Case(rng, dtype, (N, H, W, C), (R, S), C, (u, v), pads, C, ceil)
    c.compare(ops, work=c.work(ops))


@pytest.mark.parametrize(("C", "K", "groups", "depthwise"), [
    (6, 6, 6, True), (6, 12, 6, False), (6, 6, 3, False), (1, 1, 1, False), (6, 6, 1, False)])
def test_algorithm_is_depthwise_where_every_channel_has_its_own_kernel(ops, C, K, groups, depthwise):
    name = ops.conv_algorithm((2, 5, 5, C), (3, 3, C // groups, K), "float32", stride=(1, 1), pads=(1,) * 4,
                              groups=groups)
    assert (name == "depthwise") == (depthwise and ops.name != "reference")


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("case", ["two groups", "depthwise"])
def test_relu_without_bias(ops, dtype, rng, relu, case):
    c = Case(rng, dtype, *SMALL[case])
    y = compare(ops, "conv_forward", c.x, c.w, garbage(c.dy.shape, dtype), writes=(2,), kind="sum", terms=27,
                epilogue=(None, relu), **c.options)
    assert (y.min() >= 0) == relu


@pytest.mark.parametrize("case", ["conv2 of AlexNet", "depthwise of MobileNet"])
def test_same_bits_twice(ops, dtype, rng, case):
    c = Case(rng, dtype, *LARGE["odd channels" if is_emulated(ops) and "AlexNet" in case else case])
    for function, inputs, output in (("conv_forward", (c.x, c.w), garbage(c.dy.shape, dtype)),
                                     ("conv_backward_data", (c.dy, c.w), garbage(c.x.shape, dtype)),
                                     ("conv_backward_weights", (c.x, c.dy), np.zeros_like(c.w))):
        first, second = (call(ops, function, *inputs, output, writes=(2,), **c.options) for _ in range(2))
        np.testing.assert_array_equal(first, second)
