"""The CIFAR-10 nets: sizes, parameters, multipliers on learning rate and weight decay, and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.errors import ConfigError
from minicnn.gradcheck import check_net
from minicnn.layers import AvgPool2d, LRNWithin
from minicnn.models import cifar_18pct, cifar_paper

NETS = {"paper": cifar_paper, "18pct": cifar_18pct}


def images(net, count, dtype):
    rng = np.random.default_rng(3)
    return rng.normal(0, 60, (count, *net.input_shape)).astype(dtype), np.arange(count) % 10


def shapes(net) -> dict[str, tuple[str, ...]]:
    """Layer name -> its output shape, as the summary prints it."""
    lines = [line.split() for line in net.summary().splitlines()]
    return {words[0]: tuple(words[1:6:2]) for words in lines if len(words) > 5 and words[2] == "x"}


def test_the_18_percent_net():
    net = cifar_18pct(device="reference")
    assert net.num_params == (75 * 32 + 32) + (800 * 32 + 32) + (800 * 64 + 64) + (1024 * 10 + 10)
    sizes = shapes(net)
    pools = [sizes[name] for name in ("pool1", "pool2", "pool3")]
    assert pools == [("16", "16", "32"), ("8", "8", "32"), ("4", "4", "64")]
    assert [node.layer.count_pad for node in net.nodes if isinstance(node.layer, AvgPool2d)] == [False, False]
    assert [node.layer.constants["alpha"] for node in net.nodes if isinstance(node.layer, LRNWithin)] == [5e-5 / 9] * 2


def test_the_papers_net():
    """Convolutions, then separate kernels at each of 6 x 6 positions; half as many in local3 without LRN."""
    conv = (75 * 64 + 64) + (1600 * 64 + 64)
    for lrn, maps in (True, 64), (False, 32):
        net = cifar_paper(lrn=lrn, device="reference")
        local = 36 * (576 * maps + maps) + 36 * (9 * maps * 32 + 32)
        assert net.num_params == conv + local + (36 * 32 * 10 + 10)
        assert shapes(net)["pool2"] == ("6", "6", "64")
        assert any(node.name == "norm1" for node in net.nodes) == lrn


def test_multipliers_are_those_of_the_files():
    decays = {name: param.decay_mult for name, param in cifar_18pct(device="reference").params.items()}
    assert decays["conv1.w"] == 1 and decays["fc10.w"] * 0.004 == 1 and decays["fc10.b"] == 0
    for lrn, last in (True, 0.01), (False, 0.004):
        params = cifar_paper(lrn=lrn, device="reference").params
        decays = [params[f"{name}.w"].decay_mult * 0.004 for name in ("conv1", "conv2", "local3", "fc10")]
        assert decays == [0, 0, 0.004, last]
        assert params["conv1.b"].lr_mult == 2 and params["conv1.w"].lr_mult == 1


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("lrn", [True, False])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_training_step(name, activation, lrn, device):
    net = NETS[name](lrn=lrn, activation=activation, device=device)
    x, labels = images(net, 2, "float32")
    assert net.loss(x, labels) == pytest.approx(np.log(10), rel=0.05)
    net.backward()
    for key, param in net.params.items():
        assert np.isfinite(param.grad).all() and param.grad.any(), f"{key} has no gradient"


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients(name, activation):
    """A sample of conv1, whose gradient depends on all later layers."""
    net = NETS[name](activation=activation, input_size=8, device="reference", dtype="float64")
    for key, param in net.params.items():           # conv1 is initialised with N(0, 0.0001): too small to check
        if key.endswith(".w"):
            param.data *= 0.05 / param.data.std()
    x, labels = images(net, 1, "float64")
    check_net(net, x / 60, labels, coordinates=3, only=("conv1.w",)).raise_if_failed()


def test_an_unknown_activation_is_rejected():
    with pytest.raises(ConfigError, match="unknown activation 'elu': expected one of relu, tanh"):
        cifar_paper(activation="elu")
