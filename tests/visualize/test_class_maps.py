"""Saliency, integrated gradients and Grad-CAM against finite differences and networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.models.airbench import airbench93
from minicnn.visualize.gradients import grad_cam, integrated_gradients, last_map, saliency
from tests.helpers.graphs import small
from tests.test_trace import numeric_gradient


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_saliency_is_the_largest_absolute_gradient_of_the_logit(device):
    net = small(device)
    x = np.random.default_rng(4).standard_normal((2, *net.input_shape))
    found = saliency(net, x, [1, 3])
    for n, label in enumerate((1, 3)):
        expected = numeric_gradient(net, x[n:n + 1], "fc4", np.eye(5)[[label]])
        expected = np.abs(expected[0]).max(axis=-1)
        np.testing.assert_allclose(found.maps[n], expected, atol=1e-6 * expected.max())
    np.testing.assert_allclose(found.scores, net(x)[[0, 1], [1, 3]])
    assert (saliency(net, x).labels == net(x).argmax(axis=1)).all()


def test_integrated_gradients_add_up_to_the_difference_of_the_scores():
    """The more exactly the more steps; and for a linear network with one step, pixel by pixel."""
    net, rng = small("reference"), np.random.default_rng(4)
    x, base = rng.standard_normal((1, 9, 9, 3)), 0.1 * rng.standard_normal((9, 9, 3))
    wanted = net(x)[0, 2] - net(base[None])[0, 2]
    few, many = (integrated_gradients(net, x, 2, baseline=base, steps=steps) for steps in (2, 200))
    assert many.maps.sum() == pytest.approx(wanted, rel=5e-3) and abs(few.maps.sum() - wanted) > 5e-3 * abs(wanted)
    assert "200 steps from a baseline image" in many.caption

    b = Builder((3, 3, 2))
    b.linear("fc", 2, input=b.flatten())
    net = b.net(device="reference", dtype="float64")
    x = rng.standard_normal((1, 3, 3, 2))
    expected = (net.params["fc.w"].data[:, 1].reshape(3, 3, 2) * (x[0] - 0.5)).sum(axis=-1)
    np.testing.assert_allclose(integrated_gradients(net, x, 1, baseline=0.5, steps=1).maps[0], expected, rtol=1e-12)
    # of a smooth score the middle of each step errs by its square: halving the steps makes it a quarter
    b = Builder((3, 3, 2))
    b.linear("fc", 2, input=b.flatten(input=b.tanh(input=b.conv("conv1", 3, 2))))
    net = b.net(device="reference", dtype="float64")
    for param in net.params.values():
        param.data[...] = rng.standard_normal(param.data.shape)
    wanted = net(x)[0, 1] - net(0 * x)[0, 1]
    maps = [integrated_gradients(net, x, 1, steps=steps) for steps in (20, 40)]
    few, many = (abs(found.maps.sum() - wanted) for found in maps)
    assert many == pytest.approx(few / 4, rel=0.1) and f"differs from S(image) - S(baseline) by at most {few:.2g}" in \
        maps[0].caption
    with pytest.raises(ConfigError, match="at least one step, got 0"):
        integrated_gradients(net, x, 1, steps=0)


def test_grad_cam_of_global_averages_is_cam():
    """With a global average and one fully connected layer, the weights are that layer's, over the pixels."""
    b = Builder((6, 5, 3))
    b.globalavgpool("mean", input=b.relu("relu1", input=b.conv("conv1", 4, 3)))
    b.linear("fc", 3)
    net, rng = b.net(device="reference", dtype="float64"), np.random.default_rng(0)
    for param in net.params.values():
        param.data[...] = rng.standard_normal(param.data.shape)
    x = rng.standard_normal((2, 6, 5, 3))
    maps = net.trace(x, "relu1")["relu1"]
    for label in range(3):
        weighted = maps @ net.params["fc.w"].data[:, label] / 12
        found = grad_cam(net, x, label)
        np.testing.assert_allclose(found.maps, np.maximum(weighted, 0), rtol=1e-12)
    assert last_map(net) == "relu1" and weighted.min() < 0 < weighted.max()
    assert "Grad-CAM of relu1: its 4 maps of 4 x 3" in found.caption


def test_a_map_of_one_pixel_is_not_the_default():
    """airbench93 ends with max-pooling to 1 x 1, which shows nothing; a net of such maps alone has no other."""
    assert last_map(airbench93(device="reference")) == "block3_gelu2"
    b = Builder((1, 1, 3))
    b.conv("conv1", 4, 1)
    b.relu("relu1")
    b.flatten("flat")
    assert last_map(b.net(device="reference")) == "relu1"


def test_grad_cam_weights_maps_by_the_mean_of_their_gradients():
    """Where the gradients differ from pixel to pixel."""
    net = small("reference")
    x = np.random.default_rng(4).standard_normal((2, 9, 9, 3))
    found, maps = grad_cam(net, x, 2, layer="relu1"), net.trace(x, "relu1")["relu1"]
    for n in range(2):
        net.trace(x[n:n + 1])
        (gradient,) = net.backward(np.eye(5)[[2]], start="fc4", wrt="relu1")["relu1"]
        weights = [gradient[..., k].sum() / (gradient.shape[0] * gradient.shape[1]) for k in range(maps.shape[3])]
        expected = np.maximum(sum(weight * maps[n, ..., k] for k, weight in enumerate(weights)), 0)
        assert np.ptp(gradient[..., 0]) > 0 and expected.max() > 0
        np.testing.assert_allclose(found.maps[n], expected, rtol=1e-9, atol=1e-12)


def test_wrong_requests():
    net, x = small("reference"), np.zeros((1, 9, 9, 3))
    for call, message in [(lambda: grad_cam(net, x, layer="fc3"), "rows and columns, and 'fc3' has the shape .8,."),
                          (lambda: grad_cam(net, x, layer="con2"), "did you mean 'conv2'"),
                          (lambda: saliency(net, x, 5), "'fc4' has no unit 5: it has 5")]:
        with pytest.raises(ConfigError, match=message):
            call()
