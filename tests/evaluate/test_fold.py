"""Normalisations folded into the layers before them: the same logits, fewer layers, the original untouched."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.evaluate.fold import folded
from minicnn.init import Normal
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.conv import Conv2d


def trained(build) -> tuple:
    """A network whose statistics, scales and shifts are not their initial values, and images."""
    b = Builder((6, 5, 3), name="to fold")
    build(b)
    net = b.net(device="reference", dtype="float64")
    generator = np.random.default_rng(0)
    for name, param in net.params.items():
        if not name.endswith("w") or param.data.ndim == 1:
            param.data[...] = generator.standard_normal(param.data.shape)
    x = generator.standard_normal((4, 6, 5, 3)) + 1
    for _ in range(3):
        net.forward(x, train=True)
    return net, x


def kinds(net) -> list[str]:
    return [type(node.layer).__name__ for node in net.nodes]


def assert_folded(build, left: list[str]) -> None:
    net, x = trained(build)
    before = {name: array.copy() for name, array in net.arrays().items()}
    small = folded(net)
    assert kinds(small) == left
    np.testing.assert_allclose(small.forward(x), net.forward(x), rtol=1e-11, atol=1e-12)
    for name, array in net.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def residual(b) -> None:
    b.conv("conv1", 4, 3, padding=1, bias=False, groups=1, init=Normal(0.3))
    b.layer("bn1", BatchNorm2d(4))
    start = b.relu("relu1")
    b.conv("conv2", 4, 3, padding=1, groups=2, init=Normal(0.3))
    b.layer("bn2", BatchNorm2d(4))
    b.add("sum", [start, "bn2"])
    b.relu("relu2")
    b.flatten("flat")
    b.linear("fc1", 6, init=Normal(0.1))
    b.layer("bn3", BatchNorm2d(6, eps=0.1))
    b.linear("fc2", 3, init=Normal(0.5))


def test_after_convolutions_and_fully_connected_layers():
    """With and without a bias, with groups, and before the Add of a residual connection."""
    assert_folded(residual, ["Conv2d", "ReLU", "Conv2d", "Add", "ReLU", "Flatten", "Linear", "Linear"])


def test_one_after_the_other_and_at_the_end():
    """As Caffe has it: a normalisation, then a scale and shift; here the output."""
    def build(b):
        b.conv("conv", 4, 3, init=Normal(0.3))
        b.layer("bn", BatchNorm2d(4))
        b.layer("scale", Affine(4))
        b.layer("only_scale", Affine(4, bias=False))

    assert_folded(build, ["Conv2d"])
    net, _ = trained(build)
    assert folded(net).output == "conv"


@pytest.mark.parametrize("case", ["read by another", "behind a relu", "of the image", "tied", "the output in between"])
def test_what_cannot_be_folded_is_left(case):
    def build(b):
        if case == "of the image":
            b.layer("bn", BatchNorm2d(3))
            return
        conv = Conv2d(3, 3, 3, padding=1, init=Normal(0.3))
        b.layer("conv", conv)
        if case == "behind a relu":
            b.relu("relu")
        b.layer("bn", BatchNorm2d(3))
        if case == "read by another":
            b.add("sum", ["conv", "bn"])
        if case == "tied":
            b.layer("again", conv)

    if case == "the output in between":
        b = Builder((6, 5, 3))
        b.conv("conv", 3, 3)
        b.layer("bn", BatchNorm2d(3))
        net = b.net(device="reference", output="conv")
        assert "BatchNorm2d" in kinds(folded(net))
        return
    net, x = trained(build)
    assert kinds(folded(net)) == kinds(net)
    np.testing.assert_allclose(folded(net).forward(x), net.forward(x), rtol=1e-12)


def test_a_network_without_normalisations_is_returned_as_it_is():
    b = Builder((6, 5, 3))
    b.conv("conv", 3, 3)
    net = b.net(device="reference")
    assert folded(net) is net
