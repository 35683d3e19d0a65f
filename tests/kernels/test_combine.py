"""Concatenation, sum, and the sum of gradients at a fan-out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.harness import call, compare, garbage


@pytest.mark.parametrize("widths", [(1,), (3, 5), (19, 1, 33)], ids=str)
@pytest.mark.parametrize("lead", [(1,), (2, 3, 5), (7, 31, 33)], ids=str)
def test_concat(ops, dtype, rng, lead, widths):
    xs = [rng.standard_normal((*lead, width)).astype(dtype) for width in widths]
    y = compare(ops, "concat_forward", xs, garbage((*lead, sum(widths)), dtype), writes=(1,), kind="exact")
    starts = np.cumsum((0, *widths))
    for x, start in zip(xs, starts, strict=False):
        np.testing.assert_array_equal(y[..., start : start + x.shape[-1]], x)
    dxs = [garbage(x.shape, dtype) for x in xs]
    dxs = compare(ops, "concat_backward", y, dxs, writes=(1,), kind="exact", widths=widths)
    for dx, x in zip(dxs, xs, strict=True):
        np.testing.assert_array_equal(dx, x)
    for left_out in range(len(widths)):
        dxs = [None if i == left_out else garbage(x.shape, dtype) for i, x in enumerate(xs)]
        for dx, x in zip(call(ops, "concat_backward", y, dxs, writes=(1,), widths=widths), xs, strict=True):
            assert dx is None or np.array_equal(dx, x)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_add(ops, dtype, rng, count):
    shape = (7, 31, 33, 19)
    xs = [rng.standard_normal(shape).astype(dtype) for _ in range(count)]
    y = compare(ops, "add_forward", xs, garbage(shape, dtype), writes=(1,), kind="elementwise")
    np.testing.assert_allclose(y, sum(xs), rtol=1e-5, atol=1e-6)
    dxs = [garbage(shape, dtype) if i != 1 else None for i in range(count)]
    for i, dx in enumerate(call(ops, "add_backward", y, dxs, writes=(1,))):
        assert (dx is None and i == 1) or np.array_equal(dx, y)


def test_add_of_one_array_to_itself(ops, dtype, rng):
    x = rng.standard_normal((3, 5)).astype(dtype)
    np.testing.assert_array_equal(call(ops, "add_forward", [x, x], garbage(x.shape, dtype), writes=(1,)), 2 * x)


def test_accumulate(ops, dtype, rng):
    x, y = (rng.standard_normal((7, 31, 33, 19)).astype(dtype) for _ in range(2))
    np.testing.assert_array_equal(compare(ops, "accumulate", x, y, writes=(1,), kind="elementwise"), x + y)


@pytest.mark.parametrize(("shape", "stride", "channels", "first"), [
    ((2, 7, 31, 19), (2, 2), 40, 0), ((3, 4, 5, 3), (1, 3), 8, 2), ((1, 6, 6, 8), (2, 2), 8, 0),
    ((2, 5, 4, 1), (3, 2), 2, 1)])
def test_subsample(ops, dtype, rng, shape, stride, channels, first):
    (N, H, W, C), (u, v) = shape, stride
    x = rng.standard_normal(shape).astype(dtype)
    y = garbage((N, -(-H // u), -(-W // v), channels), dtype)
    y = compare(ops, "subsample_forward", x, y, writes=(1,), kind="exact", stride=stride, first=first)
    for p, q, k in np.ndindex(y.shape[1:]):
        c = k - first
        np.testing.assert_array_equal(y[:, p, q, k], x[:, u * p, v * q, c] if 0 <= c < C else 0)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = compare(ops, "subsample_backward", dy, garbage(shape, dtype), writes=(1,), kind="exact", stride=stride,
                 first=first)
    for h, w in np.ndindex(H, W):
        kept = h % u == 0 and w % v == 0
        np.testing.assert_array_equal(dx[:, h, w], dy[:, h // u, w // v, first : first + C] if kept else 0)
