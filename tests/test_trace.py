"""Inspecting a network: outputs, saved arrays, gradients from any layer, backward rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck.cases import fork
from minicnn.layers import Conv2d, MaxPool2d, ReLU
from minicnn.models.alexnet import reduced_alexnet
from minicnn.rng import purpose_id
from tests.helpers.graphs import gradients, images, random_net, recipes, scale_weights, small


def test_everything_by_default():
    net = small("reference")
    x, labels = images(net)
    seen = net.trace(x)
    assert list(seen) == [node.name for node in net.nodes if node.name != "loss"]
    np.testing.assert_array_equal(seen["fc4"], net(x))
    assert net.trace(x, labels=labels)["loss"].mean() == pytest.approx(net.loss(x, labels, train=False))


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_unfused_run_equals_the_fused_one(device, dtype):
    """Bit-identical: outputs of every layer, and all gradients."""
    fused, unfused = small(device, dtype), small(device, dtype, fuse=False)
    x, labels = images(fused)
    for name, array in fused.trace(x, labels=labels, train=True, epoch=3).items():
        np.testing.assert_array_equal(array, unfused.trace(x, name, labels=labels, train=True, epoch=3)[name], name)
    for net in (fused, unfused):
        net.loss(x, labels, epoch=1)
        net.backward()
    for name, gradient in gradients(fused).items():
        np.testing.assert_array_equal(gradient, unfused.params[name].grad, name)


def test_switches_are_the_positions_of_the_maxima(ops):
    """For overlapping windows that extend past the edge, on every backend."""
    net = reduced_alexnet(device="reference", dtype="float32")
    net.ops = ops
    for param in net.params.values():
        param.data = ops.from_host(param.data)
    x, _ = images(net, 2)
    seen = net.trace(x, keep=["norm1", "pool1"], saved=["pool1"])
    before, pooled, switches = (ops.to_host(seen[name]) for name in ("norm1", "pool1", "pool1.argmax"))
    _, P, Q, _ = pooled.shape
    for p in range(P):
        for q in range(Q):
            window = before[:, 2 * p:2 * p + 3, 2 * q:2 * q + 3]             # (N, R, S, C)
            full = np.full((len(x), 3, 3, before.shape[-1]), -np.inf, np.float32)
            full[:, :window.shape[1], :window.shape[2]] = window
            np.testing.assert_array_equal(full.reshape(len(x), 9, -1).argmax(axis=1), switches[:, p, q])
            np.testing.assert_array_equal(full.reshape(len(x), 9, -1).max(axis=1), pooled[:, p, q])


def test_arrays_belong_to_the_caller():
    """Neither later forward nor backward passes change them."""
    net = small("reference")
    x, labels = images(net)
    seen = net.trace(x, saved="pool1")
    before = {name: array.copy() for name, array in seen.items()}
    net.backward(np.ones((3, 5)), input_grad=True)
    net.loss(2 * x, labels)
    net.backward()
    net.trace(-x)
    for name in seen:
        np.testing.assert_array_equal(seen[name], before[name], name)


def test_requests_of_a_trace():
    net = small("reference")
    x, _ = images(net)
    assert list(net.trace(x, "conv1")) == ["conv1"] and list(net.trace(x, (), "pool1.argmax")) == ["pool1.argmax"]
    with pytest.raises(ConfigError, match="no layer is called 'pool'; did you mean 'pool1'"):
        net.trace(x, "pool")
    with pytest.raises(ConfigError, match="layer 'pool1' saves no 'pool1.winner' for backward; it saves pool1.argmax"):
        net.trace(x, saved="pool1.winner")
    with pytest.raises(ConfigError, match="layer 'conv1' saves no 'conv1.argmax' for backward; it saves nothing"):
        net.trace(x, saved="conv1.argmax")
    with pytest.raises(ShapeError, match=r"\(3, 3, 9, 9\); images are channels-last here: pass x.transpose"):
        net.trace(x.transpose(0, 3, 1, 2))


# ---- backward from any layer
def numeric_gradient(net, x, start: str, dy, h: float = 1e-6):
    """d sum(dy * output of start) / dx by central differences, x of one image."""
    moves = h * np.eye(x.size).reshape(x.size, *x.shape[1:])               # one element each, as a batch
    above, below = ((dy * net.trace(x + sign * moves, start)[start]).reshape(x.size, -1).sum(axis=1)
                    for sign in (1, -1))
    return ((above - below) / (2 * h)).reshape(x.shape)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("how", ["forward", "loss", "trace"])
@pytest.mark.parametrize("make", [small, lambda fuse: scale_weights(fork("reference"))], ids=["small", "fork"])
def test_from_any_layer(make, how, fuse):
    """The gradients of image and parameters equal finite differences to 1e-6, whichever layer the pass starts from."""
    net = make(fuse=fuse)
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((1, *net.input_shape)), np.array([1])
    run = {"forward": lambda: net.forward(x, grad=True), "loss": lambda: net.loss(x, labels, train=False, grad=True),
           "trace": lambda: net.trace(x)}[how]
    outside = () if how == "trace" else ("side", "side_flat")               # computed only for the training loss
    for name in [node.name for node in net.nodes if not node.layer.is_loss and node.name not in outside]:
        dy = rng.standard_normal(net.trace(x, name)[name].shape)
        run()
        dx = net.backward(dy, start=name, input_grad=True)
        expected = numeric_gradient(net, x, name, dy)
        np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-6 * max(abs(expected).max(), 1e-3), err_msg=name)
        assert next(iter(net.params.values())).grad.any()                   # every start comes after the first layer


@pytest.mark.parametrize("fuse", [True, False])
def test_from_before_an_addition_whose_other_value_is_read_before(fuse):
    """The pass does not reach the other value by the addition, but by the layer that it starts from."""
    b = Builder((4, 4, 2))
    b.conv("conv", 4, 3, padding=1)
    b.batchnorm("bn")
    b.add("add", ["bn", "conv"])
    b.relu("relu")
    b.flatten("flat")
    b.linear("fc", 3)
    b.loss("loss")
    net = b.net(device="reference", dtype="float64", fuse=fuse, seed=1)
    x, _ = images(net)
    dy = np.random.default_rng(1).standard_normal((3, 4, 4, 4))
    net.forward(x, train=False, grad=True)
    net.backward(dy, start="bn")
    scale = net.params["bn.w"].data / np.sqrt(net.state["bn.var"] + 1e-5)
    np.testing.assert_allclose(net.params["conv.b"].grad, (dy * scale).sum((0, 1, 2)), rtol=1e-12)


@given(recipes(), st.booleans(), st.integers(0, 99))
def test_from_any_layer_of_any_graph(recipe, fuse, number):
    """Values with many readers, some of them after the start: equal to a network that ends at the start."""
    net = random_net(recipe, device="reference", dtype="float64", fuse=fuse)
    x, labels = images(net, 2)
    names = [node.name for node in net.nodes if not node.layer.is_loss]
    start = names[number % len(names)]
    net.loss(x, labels, train=True, epoch=1)
    value = net.trace(x, start, train=True, epoch=1)[start]
    dy = np.random.default_rng(number).standard_normal(value.shape)
    net.loss(x, labels, train=True, epoch=1)
    dx = net.backward(dy, start=start, input_grad=True)
    found = gradients(net)
    short = type(net)(net.nodes, net.inputs, output=start, device="reference", dtype="float64", fuse=False,
                      values=net.arrays())
    short.forward(x, train=True, epoch=1)
    expected = short.backward(dy, input_grad=True)
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)
    for name, gradient in gradients(short).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-12, atol=1e-12, err_msg=name)


def test_gradients_of_layers():
    """wrt: the gradients of layers' outputs, before and after a fused ReLU, and of the image."""
    net = small("reference")
    x, labels = images(net)
    net.loss(x, labels, epoch=1)
    found = net.backward(wrt=["conv2", "relu2", "pool1", "flatten", "fc4"], input_grad=True)
    seen = net.trace(x, ["conv2", "relu2", "pool1"], labels=labels, train=True, epoch=1)
    np.testing.assert_array_equal(found["conv2"], found["relu2"] * (seen["relu2"] > 0))
    assert (found["conv2"] != found["relu2"]).any()
    np.testing.assert_array_equal(found["flatten"].reshape(seen["relu2"].shape), found["relu2"])
    net.trace(x, labels=labels, train=True, epoch=1)
    net.backward(found["pool1"], start="pool1")
    by_parts = gradients(net)
    net.loss(x, labels, epoch=1)
    dx = net.backward(input_grad=True)
    np.testing.assert_array_equal(found["image"], dx)
    for name in ("conv1.w", "conv1.b"):
        np.testing.assert_allclose(by_parts[name], net.params[name].grad, rtol=1e-12)
    net.forward(x, grad=True)
    with pytest.raises(ConfigError, match="wrt names 'fc4', which the gradient does not reach"):
        net.backward(np.ones_like(seen["pool1"]), start="pool1", wrt="fc4")


# ---- backward rules
def test_rules_equivalent_to_the_layers_change_nothing():
    """For several kinds of layers at once, fused and not."""
    for fuse in (True, False):
        net = small("reference", fuse=fuse)
        x, labels = images(net)
        net.loss(x, labels, epoch=1)
        expected = net.backward(input_grad=True)
        rules = {ReLU: lambda layer, dy, saved: dy * (saved["y"] > 0), "MaxPool2d": unpool, Conv2d: transposed}
        net.loss(x, labels, epoch=1)
        np.testing.assert_allclose(net.backward(rules=rules, input_grad=True), expected, rtol=1e-12)


def unpool(layer, dy, saved):
    dx = np.zeros(saved["in_shapes"][0])
    (_, S), (u, v) = layer.kernel, layer.stride
    for n, p, q, c in np.ndindex(*dy.shape):
        r, s = divmod(int(saved["argmax"][n, p, q, c]), S)
        dx[n, p * u + r, q * v + s, c] += dy[n, p, q, c]
    return dx


def transposed(layer, dy, saved):
    """A convolution's dx as the sum over taps, group by group."""
    w, (shape,) = layer.params["w"].data, saved["in_shapes"]
    (P, Q), window = layer.geometry(shape)
    top, left, bottom, right = window["pads"]
    dx = np.zeros((shape[0], shape[1] + top + bottom + 9, shape[2] + left + right + 9, shape[3]))
    for g in range(layer.groups):
        c, k = shape[3] // layer.groups, w.shape[3] // layer.groups
        for r, s in np.ndindex(*layer.kernel):
            rows, columns = slice(r, r + P * layer.stride[0], layer.stride[0]), slice(s, s + Q * layer.stride[1],
                                                                                      layer.stride[1])
            dx[:, rows, columns, g * c:(g + 1) * c] += dy[..., g * k:(g + 1) * k] @ w[r, s, :, g * k:(g + 1) * k].T
    return dx[:, top:top + shape[1], left:left + shape[2]]


def test_guided_backprop_and_deconvnet():
    """Springenberg's and Zeiler's rules for ReLU, against an explicit computation for conv - ReLU - conv - ReLU."""
    from minicnn.builder import Builder
    b = Builder((6, 6, 2))
    b.conv("conv1", 3, 3)
    b.relu("relu1")
    b.conv("conv2", 2, 3)
    b.relu("relu2")
    net = scale_weights(b.net(device="reference", dtype="float64"))
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 2))
    seen = net.trace(x)
    dy = np.random.default_rng(1).standard_normal(seen["relu2"].shape)
    rules = {"guided": lambda layer, dy, saved: np.maximum(dy, 0) * (saved["y"] > 0),
            "deconvnet": lambda layer, dy, saved: np.maximum(dy, 0)}
    for name, rule in rules.items():
        expected = dy
        for conv, relu, shape in (("conv2", "relu2", (2, 4, 4, 3)), ("conv1", "relu1", x.shape)):
            expected = np.maximum(expected, 0) * ((seen[relu] > 0) if name == "guided" else 1)
            expected = transposed(net[conv], expected, {"in_shapes": [shape]})
        net.forward(x, grad=True)                                           # fused
        np.testing.assert_allclose(net.backward(dy, rules={"ReLU": rule}, input_grad=True), expected, rtol=1e-12)
        net.trace(x)                                                        # unfused
        np.testing.assert_allclose(net.backward(dy, start="relu2", rules={ReLU: rule}, input_grad=True), expected,
                                   rtol=1e-12)


def test_wrong_starts_and_rules():
    net = small("reference")
    x, labels = images(net)

    def after_trace():
        net.trace(x)
        return net

    with pytest.raises(ConfigError, match="backward cannot start at 'conv3'.*expected one of conv1, relu1"):
        after_trace().backward(np.ones(3), start="conv3")
    with pytest.raises(ConfigError, match="backward from 'conv1' needs dy"):
        after_trace().backward(start="conv1")
    with pytest.raises(ShapeError, match=r"shape of the output of 'pool1', \(3, 2, 2, 4\), got \(3, 2\)"):
        after_trace().backward(np.ones((3, 2)), start="pool1")
    with pytest.raises(ConfigError, match="rules name 'Relu', which is not a kind of layer; did you mean 'ReLU'"):
        after_trace().backward(np.ones((3, 5)), rules={"Relu": None})
    with pytest.raises(ShapeError, match="the rule for MaxPool2d must return a gradient of shape"):
        after_trace().backward(np.ones((3, 5)), rules={MaxPool2d: lambda layer, dy, saved: dy}, input_grad=True)


def test_dropout_in_a_trace_equals_that_of_the_training_step():
    net = small("reference")
    x, labels = images(net)
    ids = np.array([5, 9, 2])
    seen = net.trace(x, "drop3", train=True, epoch=2, sample_ids=ids)["drop3"]
    net.loss(x, labels, epoch=2, sample_ids=ids, keep="drop3")
    np.testing.assert_array_equal(seen, net.activation("drop3"))
    assert purpose_id("drop3") and (seen == 0).any()


def test_training_losses_are_part_of_a_trace_in_training_only():
    net = scale_weights(fork("reference"))
    x, labels = images(net, 2)
    assert "side_loss" not in net.trace(x, labels=labels) and "side_loss" in net.trace(x, labels=labels, train=True)
    net.trace(x, labels=labels)
    net.backward()
    assert not net.params["side.w"].grad.any() and net.params["out.w"].grad.any()
    with pytest.raises(ConfigError, match="'loss' is a loss, which needs labels"):
        net.trace(x, "loss")


def test_a_mistake_does_not_use_up_the_forward_pass():
    net = small("reference")
    x, labels = images(net)
    net.loss(x, labels, epoch=1)
    expected = net.backward(input_grad=True)
    net.loss(x, labels, epoch=1)
    for wrong in ({"dy": 1.0, "start": "relu2"}, {"dy": np.ones(3), "start": "conv3"}, {"dy": np.ones((3, 5))},
                  {"wrt": "nothing"}, {"rules": {"Conv": None}}):
        with pytest.raises((ConfigError, ShapeError)):
            net.backward(**wrong)
    np.testing.assert_array_equal(net.backward(input_grad=True), expected)
    net.trace(x)
    with pytest.raises(ShapeError, match="rule for ReLU must return .* got a NoneType, which is no array"):
        net.backward(np.ones((3, 5)), rules={ReLU: lambda layer, dy, saved: None})
