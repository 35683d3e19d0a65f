"""The update: the paper's formula, the same as in the authors' code, and not the one of PyTorch."""

import json

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.layers.conv import Conv2d
from minicnn.param import Param
from minicnn.train.recipe import SGDRecipe, optimiser_from_dict, optimiser_to_dict
from minicnn.train.sgd import SGD
from minicnn.train.step import backward_and_update
from tests.helpers.small_run import small_net

LEARNING_RATES = (0.1, 0.1, 0.01, 0.01, 0.001)           # it changes twice
MOMENTUM, DECAY = 0.9, 0.0005


def follow(ops, gradients, **mults):
    """Weights after each of the steps, from zero velocity and w = 1, 2, 3 ..."""
    param = Param("w", ops.from_host(np.arange(1.0, 1.0 + gradients.shape[1])), **mults)
    sgd, path = SGD({"w": param}, lr=LEARNING_RATES[0], momentum=MOMENTUM, decay=DECAY), []
    for lr, gradient in zip(LEARNING_RATES, gradients, strict=True):
        sgd.lr = lr
        param.grad[...] = ops.from_host(gradient)
        sgd.step(ops)
        path.append(ops.to_host(param.data).copy())
    return np.array(path)


def rule(gradients, update):
    """The same by a rule update(w, v, g, lr) -> w, v."""
    w = np.arange(1.0, 1.0 + gradients.shape[1])
    v, path = np.zeros_like(w), []
    for lr, gradient in zip(LEARNING_RATES, gradients, strict=True):
        w, v = update(w, v, gradient, lr)
        path.append(w)
    return np.array(path)


def paper(w, v, g, lr):
    v = MOMENTUM * v - DECAY * lr * w - lr * g
    return w + v, v


def authors(w, inc, g, lr):
    """The code of 2012: the increment takes the gradient, then the weight decay, and is added."""
    inc = MOMENTUM * inc + lr * -g              # its gradients point downhill
    inc = inc - DECAY * lr * w
    return w + inc, inc


def pytorch(w, v, g, lr):
    v = MOMENTUM * v + (g + DECAY * w)
    return w - lr * v, v


@pytest.fixture
def gradients(rng):
    return rng.normal(size=(len(LEARNING_RATES), 40))


def test_is_the_papers_rule(ops, gradients):
    np.testing.assert_allclose(follow(ops, gradients), rule(gradients, paper), rtol=1e-14)


def test_is_the_rule_of_the_authors_code(ops, gradients):
    np.testing.assert_allclose(follow(ops, gradients), rule(gradients, authors), rtol=1e-13)


def test_is_pytorchs_rule_only_while_the_learning_rate_stays(ops, gradients):
    ours, theirs = follow(ops, gradients), rule(gradients, pytorch)
    np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-13)
    assert np.abs(ours[2:] - theirs[2:]).max() > 0.01


def test_multipliers_act_on_one_parameter(ops, gradients):
    np.testing.assert_allclose(
        follow(ops, gradients, lr_mult=2.0, decay_mult=0.0),
        rule(gradients, lambda w, v, g, lr: (w + 0.9 * v - 2 * lr * g, 0.9 * v - 2 * lr * g)), rtol=1e-13)
    frozen = follow(ops, gradients, lr_mult=0.0)
    assert (frozen == frozen[0]).all() and frozen[0, 0] == 1.0


def test_the_optimiser_of_a_net_knows_its_backend(rng):
    """SGD(net).step() is SGD(net.params).step(net.ops), which goes on working."""
    nets, x = [small_net() for _ in range(3)], rng.normal(size=(4, 24, 24, 3)).astype("f4")
    steps = [SGD(nets[0], lr=0.1).step, lambda: SGD(nets[1].params, lr=0.1).step(nets[1].ops),
             lambda: SGD(nets[2], lr=5.0).step(lr=0.1)]
    for net, step in zip(nets, steps, strict=True):
        net.loss(x, [0, 1, 2, 3])
        net.backward()
        step()
    for name, param in nets[0].params.items():
        assert (param.data != small_net().params[name].data).any()
        for other in nets[1:]:
            np.testing.assert_array_equal(param.data, other.params[name].data)
    with pytest.raises(ConfigError, match=r"does not know their backend; make it with SGD\(net, ...\)"):
        SGD(nets[0].params, lr=0.1).step()


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_zfnets_filters_are_limited_after_each_update(rng, device):
    """After a step no filter of a convolution has an RMS above 0.1; those below, biases and other weights are as
    without the limit. What is frozen stays."""
    nets, x = [small_net(device) for _ in range(3)], rng.normal(size=(4, 24, 24, 3)).astype("f4")
    for net, limit in zip(nets, (None, 0.1, 0.1), strict=True):
        net.params["conv1.w"].data[..., :3] = 5.0
        net.freeze(["conv1"] if net is nets[2] else [])
        net.loss(x, [0, 1, 2, 3])
        net.backward()
        SGD(net, lr=0.01, filter_rms=limit).step()
    free, limited, frozen = ({name: param.data for name, param in net.params.items()} for net in nets)
    rms = np.sqrt((limited["conv1.w"] ** 2).mean(axis=(0, 1, 2)))
    assert (rms[:3] > 0.0999).all() and (rms < 0.1 + 1e-6).all() and (frozen["conv1.w"][..., 0] == 5).all()
    for name in free:
        below = (..., slice(3, None)) if name == "conv1.w" else ...
        np.testing.assert_array_equal(limited[name][below], free[name][below])


def test_biases_may_have_a_learning_rate_of_their_own(rng):
    """64 times that of the weights, and a 64th of the weight decay: a step decays both by as much."""
    nets, x = [small_net() for _ in range(2)], rng.normal(size=(4, 24, 24, 3)).astype("f4")
    for net, recipe in zip(nets, (SGDRecipe(lr=0.01, decay=0.1), SGDRecipe(lr=0.01, decay=0.1, bias_lr=64.0)),
                           strict=True):
        for name in ("fc2.b", "fc3.b"):
            net.params[name].data[...] = 1.0
        optimiser = recipe.make(net)
        net.loss(x, [0, 1, 2, 3])
        net.backward()
        optimiser.step()
    for name, param in nets[1].params.items():
        plain = nets[0].params[name]
        wanted = plain.data - 63 * 0.01 * plain.grad if name.endswith(".b") else plain.data
        np.testing.assert_allclose(param.data, wanted, rtol=1e-5, atol=1e-7)
    with pytest.raises(ConfigError, match="bias_lr, the factor on biases' learning rate, must be positive"):
        SGDRecipe(bias_lr=0.0)


def test_the_limit_is_part_of_the_recipe():
    recipe = SGDRecipe(filter_rms=0.1)
    assert optimiser_from_dict(json.loads(json.dumps(optimiser_to_dict(recipe)))) == recipe
    assert recipe.make(small_net()).filter_rms == 0.1 and SGDRecipe().make(small_net()).filter_rms is None


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}, {"lr": float("inf")},
                                      {"lr": 0.1, "momentum": 1.0}, {"lr": 0.1, "decay": -0.1},
                                      {"lr": 0.1, "filter_rms": 0.0}])
def test_senseless_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        SGD({}, **settings)


def some_convolutions():
    """Of several sizes; conv4 and conv5 have the same weights. Then a fully connected layer."""
    b = Builder((9, 9, 3))
    b.conv("conv1", 8, 3, padding=1, bias=False)
    b.batchnorm("bn1")
    b.relu("relu1")
    b.conv("conv2", 12, 3, padding=1)
    b.conv("conv3", 8, 3, stride=2, groups=2)
    tied = Conv2d(8, 8, 3, padding=1)
    b.layer("conv4", tied)
    b.layer("conv5", tied)
    b.flatten("flat")
    b.linear("fc", 2)
    b.loss("loss")
    return b.net(device="cpu")


@pytest.mark.parametrize(("options", "within"), [({}, True), ({"nesterov": True}, False)], ids=["paper", "nesterov"])
def test_an_update_within_the_backward_pass_on_the_processor(options, within):
    """The same bits as one after the other; no memory for the gradient of the fully connected weights, and for those of
    convolutions that of the largest."""
    nets = [some_convolutions() for _ in range(2)]
    nets[0].freeze("conv3"), nets[1].freeze("conv3")
    optimisers = [SGD(net, lr=0.05, lr_mults={"conv2.w": 0.5}, **options) for net in nets]
    x, labels = np.random.default_rng(0).standard_normal((4, *nets[0].input_shape)).astype("f4"), np.arange(4) % 2
    for _ in range(3):
        for net, optimiser, at_once in zip(nets, optimisers, (True, False), strict=True):
            net.loss(x, labels, sample_ids=np.arange(4))
            if at_once:
                backward_and_update(net, optimiser)
            else:
                net.backward()
                optimiser.step()
    has_gradient = {name for name, param in nets[0].params.items() if param._grad is not None and name.endswith(".w")}
    assert has_gradient == {"bn1.w", "conv4.w"} | ({"fc.w"} if not within else set())
    assert optimisers[0]._shared_gradient.size == nets[0].params["conv2.w"].data.size
    for name in nets[0].params:
        np.testing.assert_array_equal(nets[0].params[name].data, nets[1].params[name].data)
    for name, velocity in optimisers[1].velocities.items():
        np.testing.assert_array_equal(optimisers[0].velocities[name], velocity)


class Decayed(Conv2d):
    """Adds to its gradient."""

    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, dy, saved, dxs)
        self.params["w"].grad += 10 * self.params["w"].data


class Clipping(SGD):
    """Changes the gradients before a step."""

    def step(self, ops=None, loss_scale=None, **options):
        for param in self.params.values():
            param.grad[...] *= 1e-3
        super().step(ops, loss_scale, **options)


@pytest.mark.parametrize(("kind", "optimiser"), [(Decayed, SGD), (Conv2d, Clipping)])
def test_who_changes_gradients_finds_them(kind, optimiser):
    """A layer that derives from Conv2d, or an optimiser from SGD, with a pass or a step of its own."""
    found = []
    for update in (backward_and_update, lambda net, optimiser: (net.backward(), optimiser.step())):
        b = Builder((6, 6, 3))
        b.layer("conv", kind(3, 4, 3))
        b.relu("relu")
        b.flatten("flat")
        b.linear("fc", 3)
        b.loss("loss")
        net = b.net(device="cpu", dtype="float64", seed=1)
        sgd = optimiser(net, lr=0.05)
        for _ in range(2):
            net.loss(np.random.default_rng(0).standard_normal((4, 6, 6, 3)), np.arange(4) % 3)
            update(net, sgd)
        found.append(net.arrays())
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])
