"""The network: forward and backward through a graph, equivalent ways to run it, kept activations, losses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_net
from minicnn.gradcheck.cases import NETS
from tests.helpers.graphs import gradients, images, random_net, recipes, same, scale_weights, small
from tests.tolerances import assert_close

DEVICES = ["reference", "cpu"]


# ---- gradients of whole networks

@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_a_fork(device):
    NETS["fork"].run(device).raise_if_failed()


@settings(max_examples=10)
@given(recipe=recipes())
def test_gradients_of_random_graphs(recipe):
    net = random_net(recipe, device="reference", dtype="float64")
    rng = np.random.default_rng(1)
    for name, param in net.params.items():
        if name.endswith(".b"):                             # biases of 0 put ReLUs behind a dead layer on their kinks
            param.data[...] = 0.1 * rng.standard_normal(param.data.shape)
    x, labels = images(net, 2)
    report = check_net(net, x, labels, elementwise=10, coordinates=10)
    dead = [row for row in report.rows if row.is_vacuous]              # before a ReLU that is zero everywhere
    assert all(row.ok or row in dead for row in report.rows) and not report.faults, str(report)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_the_reduced_alexnet(device):
    """67 x 67 input, every layer of the paper's net, groups, LRN, dropout; `minicnn gradcheck alexnet` samples more."""
    case = NETS["alexnet"]
    small_sample = type(case)(case.make, case.input_std, batch=2, coordinates=3, elementwise=5)
    small_sample.run(device).raise_if_failed()


@pytest.mark.parametrize("output", ["conv", "relu", "flat", "drop"])
def test_upstream_gradient_at_any_output(output):
    """backward(dy) starts at the last layer, whether fused, a view, or in place."""
    b = Builder((4, 4, 2))
    b.conv("conv", 3, 3)
    if output != "conv":
        b.relu("relu")
    if output in ("flat", "drop"):
        b.flatten("flat")
    if output == "drop":
        b.dropout("drop")
    net = scale_weights(b.net(dtype="float64", device="reference"))
    check_net(net, np.random.default_rng(0).standard_normal((3, 4, 4, 2))).raise_if_failed()


def test_input_that_is_flattened_first():
    b = Builder((3, 2, 2))
    b.flatten("flat")
    b.linear("fc", 4)
    b.loss()
    net = scale_weights(b.net(dtype="float64", device="reference"))
    check_net(net, *images(net)).raise_if_failed()


def test_input_that_is_read_three_times():
    b = Builder((3, 2, 2))
    b.add("thrice", ["image", "image", "image"])
    b.relu("relu", input="image")
    b.add("sum", ["thrice", "relu"])
    net = b.net(dtype="float64", device="reference")
    check_net(net, np.random.default_rng(0).standard_normal((2, 3, 2, 2))).raise_if_failed()


def test_several_inputs():
    b = Builder((4, 4, 2), input_name="photo")
    b.input("hint", (4, 4, 1))
    b.concat("joined", ["photo", "hint"])
    b.conv("conv", 3, 3)
    b.flatten()
    b.linear("fc", 3)
    b.loss()
    net = scale_weights(b.net(dtype="float64", device="reference"))
    rng = np.random.default_rng(0)
    x = {"photo": rng.standard_normal((2, 4, 4, 2)), "hint": rng.standard_normal((2, 4, 4, 1))}
    report = check_net(net, x, [0, 2]).raise_if_failed()
    assert {"photo", "hint"} < {row.name for row in report.rows}
    with pytest.raises(ShapeError, match="inputs .*'hint', 'photo'.* got .*'photo'"):
        net.forward(x["photo"])


# ---- equivalent ways to run a network

@pytest.mark.parametrize("device", DEVICES)
def test_fused_equals_unfused(device):
    """Bit-identical, forward and backward."""
    results = []
    for fuse in (True, False):
        net = small(device, "float32", fuse)
        loss = net.loss(*images(net))
        results.append({"loss": np.float64(loss), "logits": net.logits, "dx": net.backward(input_grad=True)}
                       | gradients(net))
    same(*results)
    assert "fused" in small(device).summary() and "fused" not in small(device, fuse=False).summary()


@pytest.mark.parametrize("device", DEVICES)
def test_smaller_batches_run_in_the_same_arrays(device):
    """After a batch of 6, batches of 2, 5 and 6 give the same results as a new network."""
    used, fresh = small(device), small(device)
    x, labels = images(used, 6)
    used.loss(x, labels)
    used.backward()
    for count in (2, 5, 6):
        options = {"sample_ids": np.arange(count), "epoch": 7}
        assert used.loss(x[:count], labels[:count], **options) == fresh.loss(x[:count], labels[:count], **options)
        used.backward()
        fresh.backward()
        for name, gradient in gradients(fresh).items():
            assert_close(gradients(used)[name], gradient, "sum", 50)
        np.testing.assert_array_equal(used.forward(x[:count]), fresh.forward(x[:count]))


def test_evaluation_between_steps_changes_nothing():
    plain, evaluated = small(), small()
    x, labels = images(plain, 4)
    for epoch in range(3):
        for net in (plain, evaluated):
            net.loss(x, labels, epoch=epoch)
            net.backward()
            for param in net.params.values():
                param.data[...] -= 0.1 * param.grad
        evaluated.forward(x[:3])
        evaluated.loss(x, labels, train=False)
        evaluated.forward(x, keep=("conv1",))
    same({name: param.data for name, param in plain.params.items()},
         {name: param.data for name, param in evaluated.params.items()})


def test_an_image_does_not_depend_on_its_batch():
    """Training logits of an image, including dropout, depend on its sample id and not on the rest of the batch."""
    net = small()
    x, _ = images(net, 4)
    together = net.forward(x, train=True, sample_ids=[10, 11, 12, 13], epoch=4)
    apart = net.forward(x[[2, 0]], train=True, sample_ids=[12, 10], epoch=4)
    assert_close(apart, together[[2, 0]], "sum", 50)
    assert (net.forward(x[[2, 0]], train=True, sample_ids=[12, 10], epoch=5) != apart).any()


def test_masks_change_from_call_to_call():
    """Without an epoch, training calls are counted; inference is deterministic."""
    net = small()
    x, labels = images(net)
    losses = [net.loss(x, labels) for _ in range(2)]
    assert losses == [small().loss(x, labels, epoch=epoch) for epoch in range(2)] and losses[0] != losses[1]
    np.testing.assert_array_equal(net.forward(x), net.forward(x))


@pytest.mark.parametrize("device", DEVICES)
def test_float32_follows_float64(device):
    exact, net = small("reference"), small(device, "float32")
    x, labels = images(exact)
    for name, param in exact.params.items():
        param.data[...] = net.params[name].data
    assert net.loss(x.astype("float32"), labels) == pytest.approx(exact.loss(x, labels), rel=1e-5)
    net.backward()
    exact.backward()
    for name, gradient in gradients(exact).items():
        assert np.linalg.norm(gradients(net)[name] - gradient) <= 1e-5 * np.linalg.norm(gradient)


# ---- kept activations

def test_kept_activations():
    """Kept activations equal those of the layers called one by one; keeping them does not change the output."""
    net = small("reference")
    x, _ = images(net)
    names = tuple(node.name for node in net.nodes if not node.layer.is_loss)
    plain = net.forward(x)
    np.testing.assert_array_equal(net.forward(x, keep=names), plain)
    value = x
    for node in net.nodes[:-1]:
        value = node.layer(value, ops=net.ops)
        assert_close(net.activation(node.name), value, "elementwise")
    np.testing.assert_array_equal(net.activation("fc4"), plain)
    net.forward(x, keep=("pool1",))
    with pytest.raises(ConfigError, match="activation of 'conv1' was not kept; pass keep="):
        net.activation("conv1")
    with pytest.raises(ConfigError, match="no layer is called 'convolution'; expected one of conv1"):
        net.forward(x, keep=("convolution",))


def test_logits_are_a_copy():
    net = small("reference")
    x, labels = images(net)
    logits = net.forward(x)
    before = logits.copy()
    net.forward(2 * x)
    np.testing.assert_array_equal(logits, before)
    net.loss(x, labels, train=False)
    np.testing.assert_array_equal(net.logits, before)


# ---- backward

def test_gradients_are_zeroed_or_accumulated():
    net = small("reference")
    x, labels = images(net)

    def step(**options):
        net.loss(x, labels, epoch=1)
        net.backward(**options)
        return gradients(net)
    once = step()
    same(step(), once)
    for name, twice in step(accumulate=True).items():
        assert_close(twice, 2 * once[name], "elementwise")


def test_gradient_of_the_loss_equals_that_of_its_upstream_gradient():
    """backward() after loss equals backward((softmax - onehot) / N) after forward."""
    net = small("reference")
    x, labels = images(net)
    net.loss(x, labels, epoch=1)
    by_loss = {"dx": net.backward(input_grad=True)} | gradients(net)
    logits = net.forward(x, train=True, epoch=1)
    dy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    dy[np.arange(len(x)), labels] -= 1
    by_hand = {"dx": net.backward(dy / len(x), input_grad=True)} | gradients(net)
    for name in by_loss:
        np.testing.assert_allclose(by_hand[name], by_loss[name], rtol=1e-9, atol=1e-14)


def test_training_computes_no_unneeded_gradient():
    """There is nothing to train before the first layer with parameters, so no gradient is computed there."""
    b = Builder((5, 5, 2))
    b.maxpool("pool", 2, stride=1)
    b.lrn("norm")
    b.flatten("flat")
    b.linear("fc1", 4)
    b.linear("fc2", 3)
    b.loss()
    net = scale_weights(b.net(dtype="float64", device="reference"))
    net.ops = copy.copy(net.ops)
    calls = []
    for name in ("linear_backward_data", "lrn_backward", "maxpool_backward"):
        right = getattr(net.ops, name)
        setattr(net.ops, name, lambda *args, name=name, right=right, **options: (calls.append(name),
                                                                                  right(*args, **options)))
    x, labels = images(net)
    net.loss(x, labels)
    net.backward()
    assert calls == ["linear_backward_data"]                                # of fc2 only
    gradient = gradients(net)
    net.loss(x, labels)
    assert net.backward(input_grad=True).any()
    assert calls[1:] == ["linear_backward_data", "linear_backward_data", "lrn_backward", "maxpool_backward"]
    same(gradients(net), gradient)


def test_backward_needs_a_forward_pass():
    net = small("reference")
    x, labels = images(net)
    with pytest.raises(ConfigError, match="backward needs a preceding forward pass"):
        net.backward()
    net.loss(x, labels)
    net.backward()
    with pytest.raises(ConfigError, match="backward needs a preceding forward pass"):       # it can be used once
        net.backward()
    net.loss(x, labels)
    net.forward(x)                                                                           # inference in between
    with pytest.raises(ConfigError, match="backward needs a preceding forward pass"):
        net.backward()
    net.forward(x, train=True)
    with pytest.raises(ConfigError, match="needs dy"):
        net.backward()
    net.loss(x, labels)
    with pytest.raises(ConfigError, match="no dy after loss"):
        net.backward(np.zeros((3, 5)))
    net.forward(x, train=True)
    with pytest.raises(ShapeError, match=r"dy must have the shape of the output of 'fc4', \(3, 5\), got \(2, 5\)"):
        net.backward(np.zeros((2, 5)))


# ---- losses

def two_heads(**options):
    """A main loss, and an auxiliary loss for training only."""
    b = Builder((4, 4, 2), name="two heads")
    b.conv("stem", 3, 3)
    stem = b.relu()
    b.flatten("side_flat")
    b.linear("side", 3)
    b.loss("side_loss", **options)
    b.flatten("flat", input=stem)
    main = b.linear("main", 3)
    b.loss("loss")
    return scale_weights(b.net(device="reference", dtype="float64", output=main))


def test_losses_are_weighted():
    net = two_heads(weight=0.3)
    x, labels = images(net)
    total = net.loss(x, labels, keep=("side",))
    side = net.activation("side")

    def mean_loss(logits):
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), labels])
    assert total == pytest.approx(mean_loss(net.logits) + 0.3 * mean_loss(side), rel=1e-12)
    check_net(net, x, labels).raise_if_failed()


def test_auxiliary_heads_run_in_training_only():
    net = two_heads(weight=0.3, train_only=True)
    x, labels = images(net)
    called = []
    side = next(node.layer for node in net.nodes if node.name == "side")
    forward, side.forward = side.forward, lambda *args: (called.append(1), forward(*args))
    tested = net.loss(x, labels, train=False)
    net.forward(x)
    assert not called
    assert net.loss(x, labels) > tested and called
    net.backward()
    assert net.params["side.w"].grad.any()
    check_net(net, x, labels).raise_if_failed()
