"""Softmax and cross-entropy, with logits far apart too."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close


def forward(ops, x, labels, **options):
    """probs, losses."""
    return call(ops, "softmax_cross_entropy_forward", x, labels, garbage(x.shape, x.dtype), garbage(len(x), x.dtype),
                writes=(2, 3), **options)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_equals_loops_and_differences(reference, rng, smoothing):
    x, labels, scale = 3 * rng.standard_normal((5, 7)), rng.integers(0, 7, 5).astype(np.int32), 0.37
    probs, losses = forward(reference, x, labels, label_smoothing=smoothing)
    wanted_probs, wanted_losses = naive.cross_entropy(x, labels, smoothing)
    assert_close(probs, wanted_probs, "elementwise")
    assert_close(losses, wanted_losses, "elementwise")
    dx = call(reference, "softmax_cross_entropy_backward", probs, labels, garbage(x.shape, "float64"), writes=(2,),
              scale=scale, label_smoothing=smoothing)
    weights = np.full(5, scale)
    assert_close(dx, numeric_gradient(lambda: forward(reference, x, labels, label_smoothing=smoothing)[1], x, weights),
                 "numeric")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 10), (33, 1000)], ids=str)
def test_equals_reference(ops, dtype, rng, shape, smoothing):
    x, labels = (4 * rng.standard_normal(shape)).astype(dtype), rng.integers(0, shape[1], shape[0]).astype(np.int32)
    probs, _ = compare(ops, "softmax_cross_entropy_forward", x, labels, garbage(shape, dtype), garbage(shape[0], dtype),
                       writes=(2, 3), kind="elementwise", label_smoothing=smoothing)
    compare(ops, "softmax_cross_entropy_backward", probs, labels, garbage(shape, dtype), writes=(2,),
            kind="elementwise", scale=1 / shape[0], label_smoothing=smoothing)
    y = compare(ops, "softmax_forward", x, garbage(shape, dtype), writes=(1,), kind="elementwise")
    compare(ops, "softmax_forward", x, x, writes=(1,), kind="elementwise")                     # in place
    assert_close(y.sum(axis=1), np.ones(shape[0]), "elementwise")


def test_logits_far_apart(ops, dtype):
    x, labels = np.array([[2000, 0, -2000]] * 3, dtype), np.array([0, 1, 2], np.int32)
    probs, losses = forward(ops, x, labels)
    np.testing.assert_array_equal(probs, [[1, 0, 0]] * 3)
    np.testing.assert_array_equal(losses, [0, 2000, 4000])
    _, losses = forward(ops, x, labels, label_smoothing=0.5)               # half of it: the mean distance from 2000
    np.testing.assert_array_equal(losses, [1000, 2000, 3000])


def test_losses_do_not_depend_on_where_the_arrays_lie(ops):
    """Small arrays a few bytes apart: a sum that is vectorised or not, by their distance, would differ in a bit."""
    memory, losses = ops.empty((256,), "float32"), ops.empty((1,), "float32")
    labels = ops.from_host(np.zeros(1, np.int32))
    rng = np.random.default_rng(7)
    for _ in range(200):
        logits, found = rng.standard_normal((1, 5), np.float32), set()
        for distance in (6, 20, 31, 64):
            x, probs = memory[:5].reshape(1, 5), memory[distance:distance + 5].reshape(1, 5)
            x[...] = ops.from_host(logits)
            ops.softmax_cross_entropy_forward(x, labels, probs, losses)
            found.add(ops.to_host(losses).tobytes())
        assert len(found) == 1
