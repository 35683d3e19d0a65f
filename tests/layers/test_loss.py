"""Softmax cross-entropy: gradients, known values, logits that overflow, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_layer
from minicnn.init import He
from minicnn.layers.base import Context
from minicnn.layers.loss import SoftmaxCrossEntropy
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass
from tests.tolerances import assert_close


@settings(max_examples=15)
@given(batch=st.integers(1, 6), classes=st.integers(2, 9), weight=st.sampled_from([1.0, 0.3]),
       smoothing=st.sampled_from([0.0, 0.1]))
def test_gradients(ops, batch, classes, weight, smoothing):
    must_pass(check_layer(SoftmaxCrossEntropy(weight, label_smoothing=smoothing), [(batch, classes)], ops=ops))


def test_uniform_prediction(ops, dtype):
    """Equal logits: the loss of every image is log K, for any value of the logits."""
    losses = applied(ops, SoftmaxCrossEntropy(), np.full((3, 10), 7, dtype), np.array([0, 5, 9], np.int32))
    assert_close(losses, np.full(3, np.log(10)), "elementwise")


def test_large_logits(ops):
    """No overflow, and no logarithm of a probability that was rounded to zero."""
    losses = applied(ops, SoftmaxCrossEntropy(), np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 1], np.int32))
    np.testing.assert_array_equal(losses, [1e4, 0])


def test_gradients_of_an_image_sum_to_zero(ops, rng):
    layer, x, labels = SoftmaxCrossEntropy(0.5), rng.standard_normal((4, 6)), np.array([0, 5, 2, 2], np.int32)
    plan, given = layer.plan([x.shape, labels.shape], "float64", ops), [ops.from_host(x), ops.from_host(labels)]
    losses, dx = ops.empty((4,), "float64"), ops.empty(x.shape, "float64")
    saved = layer.saved_for(plan, ops, given, losses)
    layer.forward(Context(ops), given, losses, saved)
    layer.backward(Context(ops), None, saved, [dx, None])
    dx = ops.to_host(dx)
    assert_close(dx.sum(axis=1), np.zeros(4), "elementwise", 6)
    assert (dx[np.arange(4), labels] < 0).all() and np.abs(dx).max() < 0.5 / 4


def test_errors_say_what_was_expected(ops):
    with pytest.raises(ShapeError, match=r"SoftmaxCrossEntropy expects logits \(N, classes\) and labels \(N,\), got "
                                         r"\(3, 4\) and \(2,\)"):
        SoftmaxCrossEntropy()(np.zeros((3, 4), "float32"), np.zeros(2, np.int32), ops=ops)
    with pytest.raises(ShapeError, match=r"got \(2, 3, 3, 4\) and \(2,\); flatten the maps, or average them"):
        SoftmaxCrossEntropy()(np.zeros((2, 3, 3, 4), "float32"), np.zeros(2, np.int32), ops=ops)


@pytest.mark.parametrize(("smoothing", "message"), [
    (-0.1, "label_smoothing = -0.1 must be at least 0 and less than 1"), (1.0, "label_smoothing = 1.0 must be"),
    (float("nan"), "label_smoothing must be a finite number, got nan"), ("a", "must be a finite number, got 'a'")])
def test_label_smoothing_is_at_least_0_and_less_than_1(smoothing, message):
    with pytest.raises(ConfigError, match=message):
        SoftmaxCrossEntropy(label_smoothing=smoothing)


def smoothed_net(smoothing):
    b = Builder((2, 2, 3))
    b.flatten()
    b.linear("fc", 5, init=He())
    b.loss(label_smoothing=smoothing)
    return b.net(device="cpu", dtype="float64")


def test_label_smoothing_is_pytorchs(torch):
    net, labels = smoothed_net(0.2), np.array([0, 4, 2])
    x = np.random.default_rng(0).standard_normal((3, 2, 2, 3))
    logits = torch.from_numpy(np.array(net(x))).requires_grad_()
    wanted = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(logits, torch.from_numpy(labels))
    assert net.loss(x, labels) == pytest.approx(wanted.item(), rel=1e-12)
    wanted.backward()
    net.backward()
    assert_close(net.params["fc.b"].grad, logits.grad.numpy().sum(axis=0), "sum")


def test_label_smoothing_is_for_training_only():
    """Losses of images that are not trained on are those of a net without it, and so are their gradients."""
    plain, smoothed = smoothed_net(0.0), smoothed_net(0.2)
    x, labels = np.random.default_rng(0).standard_normal((3, 2, 2, 3)), np.array([0, 4, 2])
    for net in (plain, smoothed):
        net.value = net.loss(x, labels, train=False, grad=True)
        net.backward()
    assert plain.value == smoothed.value < smoothed.loss(x, labels)
    np.testing.assert_array_equal(plain.params["fc.w"].grad, smoothed.params["fc.w"].grad)
