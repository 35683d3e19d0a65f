"""Softmax cross-entropy: gradients, known values, logits that overflow, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.base import Context
from minicnn.layers.loss import SoftmaxCrossEntropy
from tests.helpers.strategies import must_pass
from tests.tolerances import assert_close


@settings(max_examples=15)
@given(batch=st.integers(1, 6), classes=st.integers(2, 9), weight=st.sampled_from([1.0, 0.3]))
def test_gradients(ops, batch, classes, weight):
    must_pass(check_layer(SoftmaxCrossEntropy(weight), [(batch, classes)], ops=ops))


def test_uniform_prediction(ops, dtype):
    """Equal logits: the loss of every image is log K, for any value of the logits."""
    losses = SoftmaxCrossEntropy()(np.full((3, 10), 7, dtype), np.array([0, 5, 9], np.int32), ops=ops)
    assert_close(losses, np.full(3, np.log(10)), "elementwise")


def test_large_logits(ops):
    """No overflow, and no logarithm of a probability that was rounded to zero."""
    losses = SoftmaxCrossEntropy()(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 1], np.int32), ops=ops)
    np.testing.assert_array_equal(losses, [1e4, 0])


def test_gradients_of_an_image_sum_to_zero(ops, rng):
    layer, x, labels = SoftmaxCrossEntropy(0.5), rng.standard_normal((4, 6)), np.array([0, 5, 2, 2], np.int32)
    plan = layer.plan([x.shape, labels.shape], "float64", ops)
    losses, dx = np.empty(4), np.empty_like(x)
    saved = layer.saved_for(plan, ops, [x, labels], losses)
    layer.forward(Context(ops), [x, labels], losses, saved)
    layer.backward(Context(ops), None, saved, [dx, None])
    assert_close(dx.sum(axis=1), np.zeros(4), "elementwise", 6)
    assert (dx[np.arange(4), labels] < 0).all() and np.abs(dx).max() < 0.5 / 4


def test_errors_say_what_was_expected(ops):
    with pytest.raises(ShapeError, match=r"SoftmaxCrossEntropy expects logits \(N, classes\) and labels \(N,\), got "
                                         r"\(3, 4\) and \(2,\)"):
        SoftmaxCrossEntropy()(np.zeros((3, 4), "float32"), np.zeros(2, np.int32), ops=ops)
