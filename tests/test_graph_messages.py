"""The summary of a network, its memory estimate, and the messages about wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.models.alexnet import reduced_alexnet
from tests.helpers.graphs import images, small


def test_summary():
    text = reduced_alexnet(device="reference").summary(batch=4)
    for word in ("conv1", "15 x 15 x 96", "34,944", "96 @ 11x11x3", "fused into conv1", "a view", "batch 4",
                 "2 groups", "im2col", "parameters", "MiB"):
        assert word in text, word
    net = small("reference")
    assert f"{net.num_params:,} parameters" in net.summary()
    assert net.num_params == sum(param.data.size for param in net.params.values())
    assert net.input_shape == (9, 9, 3) and net.num_classes == 5


def test_memory_is_estimated_before_it_is_allocated():
    net = reduced_alexnet(device="reference")
    weights = 4 * net.num_params
    assert net.memory(8, train=False) > weights and net.memory(8) > 3 * weights
    assert net.memory(16) - net.memory(8) == pytest.approx(net.memory(8) - 3 * weights, rel=0.2)


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((2, 9, 9, 4)), r"'image' of network 'small' must be \(N, 9, 9, 3\) with N >= 1, got \(2, 9, 9, 4\)"),
    (np.zeros((9, 9, 3)), r"must be \(N, 9, 9, 3\) with N >= 1, got \(9, 9, 3\)"),
    (np.zeros((0, 9, 9, 3)), r"with N >= 1, got \(0, 9, 9, 3\)"),
    (np.zeros((2, 9, 9, 3), "float32"), r"must be float64, got float32; convert it with x.astype\('float64'\)"),
    (np.zeros((2, 9, 9, 3), "uint8"), "must be float64, got uint8"),
    ([[1, 2]], r"must be \(N, 9, 9, 3\)"),
])
def test_wrong_images(x, message):
    with pytest.raises(ShapeError, match=message):
        small("reference").forward(x)


@pytest.mark.parametrize(("labels", "message"), [
    ([0, 1], r"labels must be 3 integers, one per image, got int64 \(2,\)"),
    ([0.0, 1.0, 2.0], r"labels must be 3 integers, one per image, got float64"),
    ([0, 1, 5], r"labels must lie in 0..4, got 0..5"),
    ([0, -1, 2], r"labels must lie in 0..4, got -1..2"),
])
def test_wrong_labels(labels, message):
    net = small("reference")
    with pytest.raises(ShapeError, match=message):
        net.loss(images(net)[0], labels)


def test_wrong_graphs():
    b = Builder((8, 8, 3), name="wrong")
    b.conv("conv1", 4, 3)
    with pytest.raises(ConfigError, match="layer 'conv1': the name is already used; layer names must be unique"):
        b.conv("conv1", 4, 3)
    with pytest.raises(ShapeError, match="layer 'pool': .*window of 9 does not fit into 6"):
        b.maxpool("pool", 9)
    with pytest.raises(ConfigError, match="no layer is called 'stem'; defined so far: .*conv1"):
        b.relu("relu", input="stem")
    with pytest.raises(ConfigError, match="Conv2d: groups = 3 must divide"):
        b.conv("conv", 4, 3, groups=3)
    with pytest.raises(ShapeError, match=r"layer 'sum': Add expects inputs of one shape"):
        b.add("sum", ["image", "conv1"])
    with pytest.raises(ConfigError, match="dtype must be float32 or float64, got 'float16'"):
        b.net(dtype="float16")
    with pytest.raises(ConfigError, match="network 'wrong' has no loss"):
        net = b.net(device="reference")
        net.loss(np.zeros((1, 8, 8, 3), "float32"), [0])


def test_sample_ids_fit_the_batch():
    net = small("reference")
    x, labels = images(net)
    with pytest.raises(ShapeError, match="sample_ids must have one entry per image, 3, got 2"):
        net.loss(x, labels, sample_ids=[1, 2])
