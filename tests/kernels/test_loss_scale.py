"""Loss scaling and running metrics: every backend equals the reference, and the reference known values."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.evaluate.metrics import top_k_correct
from tests.helpers.harness import call, compare

STATE = np.array([16, 3, 0, 1], np.int32)


@pytest.mark.parametrize("size", [1, 5, 37, 4096, 70001])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_an_overflow_is_found_wherever_it_is(ops, dtype, rng, size, bad):
    clean = rng.standard_normal(size).astype(dtype)
    assert call(ops, "find_overflow", clean, STATE, writes=(1,)).tolist() == STATE.tolist()
    for place in {0, size // 3, size - 1}:
        dw = clean.copy()
        dw[place] = bad
        state = compare(ops, "find_overflow", dw, STATE, writes=(1,), kind="exact")
        assert state.tolist() == [16, 3, int(not np.isfinite(bad)), 1]


@pytest.mark.parametrize(("state", "wanted"), [
    ([16, 3, 0, 1], [16, 4, 0, 1]), ([16, 9, 0, 1], [17, 0, 0, 1]), ([20, 9, 0, 1], [20, 0, 0, 1]),
    ([16, 3, 1, 1], [15, 0, 0, 2]), ([16, 9, 1, 1], [15, 0, 0, 2]), ([0, 9, 1, 1], [0, 0, 0, 2])])
def test_the_scale_rises_and_falls(ops, state, wanted):
    got = compare(ops, "next_loss_scale", np.array(state, np.int32), writes=(0,), kind="exact", steady=10, lowest=0,
                  highest=20)
    assert got.tolist() == wanted


def test_a_scaled_step_is_the_same_step(ops, dtype, rng):
    """A power of two rounds nothing: the weights have the bits of an unscaled step."""
    x, labels = rng.standard_normal((4, 10)).astype(dtype), np.array([1, 9, 0, 3], np.int32)
    results = []
    for scaled in ({}, {"loss_scale": ops.from_host(STATE)}):
        w, v, probs, dx = (ops.from_host(array.copy()) for array in (x, x, np.abs(x), x))
        ops.softmax_cross_entropy_backward(probs, ops.from_host(labels), dx, scale=1 / 4, **scaled)
        ops.sgd_step(w, dx, v, lr=0.01, momentum=0.9, decay=0.0005, **scaled)
        results.append([np.array(ops.to_host(array)) for array in (dx, w, v)])
    np.testing.assert_array_equal(results[0][0] * 2**16, results[1][0])
    np.testing.assert_array_equal(results[0][1:], results[1][1:])


def test_after_an_overflow_nothing_is_updated(ops, dtype, rng):
    w, v = rng.standard_normal((2, 37)).astype(dtype)
    state = ops.from_host(np.array([16, 0, 1, 0], np.int32))
    got = call(ops, "sgd_step", w, np.full_like(w, np.inf), v, writes=(0, 2), lr=0.1, momentum=0.9, decay=0.1,
               loss_scale=state)
    np.testing.assert_array_equal(got, [w, v])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (33, 10), (70, 1000)], ids=str)
def test_counts_are_those_of_the_host(ops, dtype, rng, shape):
    x = rng.integers(-9, 10, shape).astype(dtype)                              # many scores are equal
    labels = rng.integers(0, shape[1], shape[0]).astype(np.int32)
    start = np.array([2, 0.5, 1, 1.0])
    got = compare(ops, "count_correct", x, labels, start, writes=(2,), kind="exact")
    assert got.tolist() == [2 + shape[0], 0.5, 1 + top_k_correct(x, labels, 1), 1 + top_k_correct(x, labels, 5)]
    losses = rng.random(shape[0]).astype(dtype)
    got = compare(ops, "count_losses", losses, start, writes=(1,), kind="elementwise", weight=0.3)
    assert got[0] == 2 and abs(got[1] - 0.5 - 0.3 * losses.sum(dtype=np.float64)) < 1e-9 * shape[0]
