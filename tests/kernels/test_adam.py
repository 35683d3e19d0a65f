"""Adam and AdamW, and the moving average of the weights: one step of each, and what counts the steps."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import naive
from tests.helpers.harness import call, compare
from tests.tolerances import assert_close

SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3}
DECAYS = [{"decay": 0.0}, {"decay": 0.3}, {"decay": 0.3, "decoupled": True}]
SHAPES = [(1,), (37,), (3, 3, 5, 19), (70001,)]
GOOD, OVERFLOW = np.array([3, 0, 0, 0], np.int32), np.array([3, 0, 1, 0], np.int32)
advanced = pytest.mark.parametrize("operation, counts, options", [
    ("adam_advance", [6.0, 0.5, 0.5], {"beta1": 0.9, "beta2": 0.99}), ("ema_advance", [6.0, 0.5],
                                                                       {"factor": 0.99, "warmup": True})])


def counts_at(t: int) -> np.ndarray:
    return np.array([t, 1 - 0.9**t, np.sqrt(1 - 0.99**t)])


def arrays(rng, shape, dtype):
    """w, dw, m and v, which is no square of less than 0."""
    w, dw, m, v = (rng.standard_normal(shape).astype(dtype) for _ in range(4))
    return w, dw, m, abs(v)


@pytest.mark.parametrize("decay", DECAYS, ids=str)
@pytest.mark.parametrize("t", [1, 7])
def test_equals_loops(reference, rng, decay, t):
    given = arrays(rng, (3, 5), "f8")
    got = call(reference, "adam_step", *given, counts_at(t), writes=(0, 2, 3), **SETTINGS, **decay)
    for a, b in zip(got, naive.adam(*given, t, **SETTINGS, **decay), strict=True):
        assert_close(a, b, "elementwise")


@pytest.mark.parametrize("decay", DECAYS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(ops, dtype, rng, shape, decay):
    scaled = {"loss_scale": GOOD} if "decoupled" in decay else {}
    compare(ops, "adam_step", *arrays(rng, shape, dtype), counts_at(7), writes=(0, 2, 3), kind="elementwise",
            **SETTINGS, **decay, **scaled)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_average_equals_reference(ops, dtype, rng, shape):
    value, average = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    got = compare(ops, "ema_step", value, average, np.array([5, 0.3]), writes=(1,), kind="elementwise")
    np.testing.assert_allclose(got, 0.7 * average + 0.3 * value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", [0.1, 0.3, 1 - 0.9999])
def test_the_average_of_a_constant_is_that_constant(ops, dtype, rng, part):
    value = rng.standard_normal(70001).astype(dtype)
    got = call(ops, "ema_step", value, value.copy(), np.array([5, part]), writes=(1,))
    np.testing.assert_array_equal(got, value)


def test_steps_are_counted(ops):
    for t, wanted in ((0, counts_at(1)), (1, counts_at(2)), (999, counts_at(1000))):
        got = call(ops, "adam_advance", np.array([t, 0.0, 0.0]), writes=(0,), beta1=0.9, beta2=0.99)
        np.testing.assert_allclose(got, wanted, rtol=1e-13)
    for t, warmup, d in ((0, True, 0.1), (8, True, 0.5), (8, False, 0.6), (90, True, 0.6)):
        got = call(ops, "ema_advance", np.array([t, 0.0]), writes=(0,), factor=0.6, warmup=warmup)
        np.testing.assert_allclose(got, [t + 1, 1 - d], rtol=1e-14)


@advanced
def test_a_skipped_step_is_not_counted(ops, operation, counts, options):
    counts = np.array(counts)
    got = compare(ops, operation, counts, writes=(0,), kind="elementwise", **options, loss_scale=GOOD)
    assert got[0] == 7
    got = call(ops, operation, counts, writes=(0,), **options, loss_scale=OVERFLOW)
    np.testing.assert_array_equal(got, counts)


def test_after_an_overflow_nothing_is_updated(ops, dtype, rng):
    w, dw, m, v = arrays(rng, 37, dtype)
    got = call(ops, "adam_step", w, np.full_like(dw, np.inf), m, v, counts_at(7), writes=(0, 2, 3), **SETTINGS,
               decay=0.3, decoupled=True, loss_scale=OVERFLOW)
    np.testing.assert_array_equal(got, [w, m, v])
    got = call(ops, "ema_step", w, m, np.array([5, 0.3]), writes=(1,), loss_scale=OVERFLOW)
    np.testing.assert_array_equal(got, m)


def test_a_scaled_step_is_the_same_step(ops, dtype, rng):
    """A power of two rounds nothing: the weights have the bits of an unscaled step."""
    w, dw, m, v = arrays(rng, 70, dtype)
    options = {**SETTINGS, "decay": 0.3, "writes": (0, 2, 3)}
    plain = call(ops, "adam_step", w, dw, m, v, counts_at(7), **options)
    scaled = call(ops, "adam_step", w, 8 * dw, m, v, counts_at(7), **options, loss_scale=GOOD)
    np.testing.assert_array_equal(scaled, plain)
