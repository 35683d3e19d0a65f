"""Max and average pooling: overlapping windows, ties, padding, ceil sizes."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.shapes import window_output
from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

# name: x (N, H, W, C), window, stride, padding, ceil
SMALL = {
    "overlapping":            ((2, 7, 5, 3), (3, 3), (2, 2), 0, False),
    "2x2":                    ((1, 4, 6, 2), (2, 2), (2, 2), 0, False),
    "1x1 map":                ((1, 1, 1, 5), (1, 1), (1, 1), 0, False),
    "whole map":              ((2, 4, 3, 5), (4, 3), (1, 1), 0, False),
    "stride past the window": ((1, 8, 7, 3), (2, 1), (3, 4), 0, False),
    "padded":                 ((2, 5, 4, 3), (3, 2), (2, 1), (1, 0, 1, 1), False),
    "uneven pads, ceil":      ((1, 6, 6, 2), (3, 3), (2, 2), (0, 2, 1, 0), True),
}
LARGE = {
    "pool1 of AlexNet":       ((3, 27, 27, 33), (3, 3), (2, 2), 0, False),
    "pool2 of Caffe's nets":  ((2, 16, 15, 65), (3, 3), (2, 2), 0, True),
    "every pixel":            ((2, 9, 9, 19), (3, 3), (1, 1), 1, False),
    "five windows a pixel":   ((1, 9, 8, 35), (5, 4), (1, 2), (2, 1, 2, 1), False),
    "15x17 window":           ((1, 20, 21, 2), (15, 17), (3, 2), 0, False),
}


def geometry(shape, window, stride, padding, ceil):
    """Output shape, and the options of every pooling operation."""
    size, pads = window_output(shape[1:3], window, stride, padding, ceil)
    return (shape[0], *size, shape[3]), {"kernel": window, "stride": stride, "pads": pads}


def borders(pads):
    """What may count in the divisor: all of the padding, none, and a part that differs from side to side."""
    return [pads, (0, 0, 0, 0), tuple(max(0, pad - part) for pad, part in zip(pads, (0, 1, 1, 2), strict=True))]


def distinct(rng, shape):
    """No two values nearer than 0.1, nearly all negative, so that padding with 0 would win if it counted."""
    return (rng.permutation(int(np.prod(shape))).reshape(shape) - 0.9 * np.prod(shape)) * 0.1


def check(ops, x, dy, options):
    """All four operations against the reference; argmax must agree where values tie, too."""
    y, argmax = compare(ops, "maxpool_forward", x, garbage(dy.shape, x.dtype), garbage(dy.shape, np.uint8),
                        writes=(1, 2), kind="exact", **options)
    alone = call(ops, "maxpool_forward", x, garbage(dy.shape, x.dtype), None, writes=(1,), **options)
    np.testing.assert_array_equal(alone, y)
    compare(ops, "maxpool_backward", dy, argmax, garbage(x.shape, x.dtype), writes=(2,), kind="elementwise", **options)
    terms = options["kernel"][0] * options["kernel"][1]
    for counted in borders(options["pads"]):
        compare(ops, "avgpool_forward", x, garbage(dy.shape, x.dtype), writes=(1,), kind="sum", terms=terms, **options,
                counted=counted)
        compare(ops, "avgpool_backward", dy, garbage(x.shape, x.dtype), writes=(1,), kind="sum", terms=terms, **options,
                counted=counted)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("case", SMALL)
def test_max_equals_loops(reference, rng, case, ties):
    x = rng.integers(-3, 0, SMALL[case][0]).astype(float) if ties else distinct(rng, SMALL[case][0])
    out_shape, options = geometry(*SMALL[case])
    y, argmax = call(reference, "maxpool_forward", x, garbage(out_shape, "float64"), garbage(out_shape, np.uint8),
                     writes=(1, 2), **options)
    wanted, wanted_argmax = naive.maxpool(x, out_shape[1:3], **options)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(argmax, wanted_argmax)


@pytest.mark.parametrize("case", SMALL)
def test_max_backward_equals_differences(reference, rng, case):
    x, (out_shape, options) = distinct(rng, SMALL[case][0]), geometry(*SMALL[case])
    dy = rng.standard_normal(out_shape)

    def forward():
        return call(reference, "maxpool_forward", x, garbage(out_shape, "float64"), None, writes=(1,), **options)

    _, argmax = call(reference, "maxpool_forward", x, garbage(out_shape, "float64"), garbage(out_shape, np.uint8),
                     writes=(1, 2), **options)
    dx = call(reference, "maxpool_backward", dy, argmax, garbage(x.shape, "float64"), writes=(2,), **options)
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("border", [0, 1, 2], ids=["all", "none", "part"])
@pytest.mark.parametrize("case", SMALL)
def test_average_equals_loops_and_differences(reference, rng, case, border):
    x, (out_shape, options) = rng.standard_normal(SMALL[case][0]), geometry(*SMALL[case])
    dy, options = rng.standard_normal(out_shape), {**options, "counted": borders(options["pads"])[border]}

    def forward():
        return call(reference, "avgpool_forward", x, garbage(out_shape, "float64"), writes=(1,), **options)

    assert_close(forward(), naive.avgpool(x, out_shape[1:3], **options), "sum")
    dx = call(reference, "avgpool_backward", dy, garbage(x.shape, "float64"), writes=(1,), **options)
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
@pytest.mark.parametrize("case", [*SMALL, *LARGE])
def test_equals_reference(ops, dtype, rng, case, ties):
    shape = (SMALL | LARGE)[case][0]
    out_shape, options = geometry(*(SMALL | LARGE)[case])
    x = (rng.integers(-3, 0, shape) if ties else rng.standard_normal(shape) - 2).astype(dtype)
    check(ops, x, rng.standard_normal(out_shape).astype(dtype), options)


@pytest.mark.parametrize("everywhere", [False, True], ids=["one", "all"])
def test_the_winner_of_a_window_with_nan_is_one(ops, dtype, rng, everywhere):
    x = rng.standard_normal((1, 5, 5, 19)).astype(dtype)
    x[... if everywhere else (0, 2, 2)] = np.nan                                # the cell (2, 2) is in all four windows
    out_shape, options = geometry(x.shape, (3, 3), (2, 2), 0, False)
    y, argmax = call(ops, "maxpool_forward", x, garbage(out_shape, dtype), garbage(out_shape, np.uint8), writes=(1, 2),
                     **options)
    assert np.isnan(y).all() and (argmax < 9).all()
    dx = call(ops, "maxpool_backward", np.ones_like(y), argmax, garbage(x.shape, dtype), writes=(2,), **options)
    assert dx.sum() == y.size


@given(data=st.data())
def test_any_shape_equals_reference(ops, dtype, data):
    draw = data.draw
    R, S, u, v = (draw(st.integers(1, 4), label=label) for label in ("R", "S", "u", "v"))
    pads = tuple(draw(st.integers(0, size - 1)) for size in (R, S, R, S))
    shape = (draw(st.integers(1, 3)), draw(st.integers(R, 9)), draw(st.integers(S, 9)), draw(st.integers(1, 40)))
    out_shape, options = geometry(shape, (R, S), (u, v), pads, draw(st.booleans(), label="ceil"))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.integers(-3, 3, shape).astype(dtype)
    check(ops, x, rng.standard_normal(out_shape).astype(dtype), options)


def test_global_average_equals_loops_and_differences(reference, rng):
    x, dy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 5))

    def forward():
        return call(reference, "global_avgpool_forward", x, garbage(dy.shape, "float64"), writes=(1,))

    assert_close(forward(), naive.global_avgpool(x), "sum")
    dx = call(reference, "global_avgpool_backward", dy, garbage(x.shape, "float64"), writes=(1,))
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 7, 7, 19), (2, 1, 9, 140), (5, 8, 8, 64)], ids=str)
def test_global_average_equals_reference(ops, dtype, rng, shape):
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal((shape[0], shape[3])).astype(dtype)
    compare(ops, "global_avgpool_forward", x, garbage(dy.shape, dtype), writes=(1,), kind="sum",
            terms=shape[1] * shape[2])
    compare(ops, "global_avgpool_backward", dy, garbage(shape, dtype), writes=(1,), kind="elementwise")


def adaptive_windows(size: int, count: int) -> list[range]:
    return [range(math.floor(i * size / count), math.ceil((i + 1) * size / count)) for i in range(count)]


@pytest.mark.parametrize(("shape", "size"), [((2, 14, 14, 19), (4, 4)), ((2, 7, 5, 3), (3, 4)), ((1, 2, 6, 4), (3, 2))])
def test_adaptive_average(ops, dtype, rng, shape, size):
    """The means of the windows that PyTorch documents, and their gradient."""
    x, (N, H, W, C), (P, Q) = rng.standard_normal(shape).astype(dtype), shape, size
    y = compare(ops, "adaptive_avgpool_forward", x, garbage((N, P, Q, C), dtype), writes=(1,), kind="sum", terms=H * W)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = compare(ops, "adaptive_avgpool_backward", dy, garbage(shape, dtype), writes=(1,), kind="sum", terms=P * Q)
    wanted = np.zeros(shape)
    for (p, rows), (q, columns) in product(enumerate(adaptive_windows(H, P)), enumerate(adaptive_windows(W, Q))):
        window = np.s_[:, rows.start : rows.stop, columns.start : columns.stop]
        assert_close(y[:, p, q], x[window].astype("float64").mean(axis=(1, 2)), "sum", H * W)
        wanted[window] += dy[:, p, None, q, None] / (len(rows) * len(columns))
    assert_close(dx, wanted, "sum", P * Q)
