"""Vectors inside Numba kernels: masked lanes are neither read nor written, wherever an array begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backend.select import get_ops
from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.vectors import LANES, fetch, fetch_to_write, load, power, select, splat, sqrt, store
from tests.tolerances import assert_close

GUARD = 64                      # elements before and after an array that must not change


@kernel
def _arithmetic(x, y, i, count):
    fetch(x, i + 1000000)
    fetch_to_write(y, i - 1000000)
    v, two = load(x, i, count), splat(x.dtype.type(2))
    positive = v > splat(x.dtype.type(0))
    store(y, i, count, select(positive | (v != v), v * two + two / (v * v + two), sqrt(v * v)))
    if count == LANES:
        store(y, i, LANES, load(y, i, LANES) + power(two, v))


@kernel
def _where_equal(x, y, i, count):
    v = load(x, i, count)
    store(y, i, count, select(v == splat(x.dtype.type(3)), splat(x.dtype.type(200)), v))


@given(i=st.integers(0, 5), count=st.integers(0, LANES), seed=st.integers(0, 99))
def test_lanes(dtype, i, count, seed):
    x = np.random.default_rng(seed).standard_normal(i + LANES).astype(dtype)
    y, wanted = np.full(i + LANES, 7, dtype), np.full(i + LANES, 7, dtype)
    _arithmetic(x, y, i, count)
    v = x[i : i + count].astype(np.float64)
    wanted[i : i + count] = np.where(v > 0, 2 * v + 2 / (v * v + 2), -v) + (2**v if count == LANES else 0)
    assert_close(y, wanted, "elementwise")


def test_bytes():
    x, y = np.arange(20, dtype=np.uint8), np.zeros(20, np.uint8)
    _where_equal(x, y, 0, LANES)
    _where_equal(x, y, 16, 3)
    np.testing.assert_array_equal(y, np.where(x == 3, 200, x) * (x < 19))


def test_nan_is_not_equal_to_itself(dtype):
    x, y = np.full(LANES, np.nan, dtype), np.zeros(LANES, dtype)
    _arithmetic(x, y, 0, 1)
    assert np.isnan(y[0]) and not y[1:].any()


def guarded(shape, dtype, shift: int, fill) -> tuple[np.ndarray, np.ndarray]:
    """(the memory, an array in it that begins `shift` elements after a cache line)."""
    memory = np.full(int(np.prod(shape)) + 2 * GUARD + LANES, 99, dtype)
    start = GUARD - memory.ctypes.data % 64 // memory.itemsize + shift
    array = memory[start : start + int(np.prod(shape))].reshape(shape)
    array[...] = fill
    return memory, array


@pytest.mark.parametrize("shift", [0, 1, 7])
@pytest.mark.parametrize("C", [1, 15, 16, 17, 48])
def test_kernels_stay_inside_their_arrays(dtype, rng, C, shift):
    ops, shape, small = get_ops("cpu"), (1, 5, 6, C), (1, 2, 2, C)
    x, dy = (guarded(form, dtype, shift, rng.standard_normal(form))[1] for form in (shape, small))
    outputs = [guarded(form, kind, shift, 0) for form, kind in
               ((shape, dtype), (shape, dtype), (small, dtype), (small, np.uint8))]
    y, dx, pooled, argmax = (array for _, array in outputs)
    constants = {"n": 5, "k": 1.0, "alpha": 1.0, "beta": 0.75}
    window = {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 0, 0)}
    results = []
    for name in ("lrn", "lrn_within"):
        getattr(ops, f"{name}_forward")(x, y, **constants)
        getattr(ops, f"{name}_backward")(x, y, dx, **constants)
        results += [y.copy(), dx.copy()]
    ops.maxpool_forward(x, pooled, argmax, **window)
    ops.maxpool_backward(dy, argmax, dx, **window)
    results += [pooled.copy(), argmax.copy(), dx.copy()]
    ops.avgpool_forward(x, pooled, counted=window["pads"], **window)
    ops.avgpool_backward(dy, dx, counted=window["pads"], **window)
    assert all(np.isfinite(result).all() for result in results)
    for memory, array in outputs:
        assert (memory == 99).sum() == memory.size - array.size + (array == 99).sum()
