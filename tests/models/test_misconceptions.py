"""Common misconceptions about AlexNet, and the facts from the paper and its code; one claim per test."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.errors import ShapeError
from minicnn.layers import LRN, Dropout, MaxPool2d, ReLU
from minicnn.models import alexnet
from minicnn.models.alexnet_variants import PAPER
from minicnn.shapes import window_output


@pytest.fixture(scope="module")
def paper():
    """The paper's convolutions, with tiny fully connected layers, which are not tested here."""
    return alexnet(fc=8, num_classes=10, device="reference")


@pytest.fixture(scope="module")
def ungrouped():
    return alexnet("ungrouped", fc=8, num_classes=10, device="reference")


def nodes_after(net, layer: int) -> list[str]:
    """Names of the nodes between convolution `layer` and the next."""
    names = [node.name for node in net.nodes]
    begin = names.index(f"conv{layer}") + 1
    return names[begin:next(i for i in range(begin, len(names)) if names[i].startswith(("conv", "flatten")))]


def test_224_is_a_misprint_of_227(paper):
    """No: windows may extend past the edge in the authors' code (ceil in layer.py). Code that rounds down needs 227."""
    assert paper.input_shape == (224, 224, 3)
    assert window_output((224, 224), 11, 4, ceil=True)[0] == (55, 55)
    assert window_output((224, 224), 11, 4)[0] == (54, 54)
    assert window_output((227, 227), 11, 4)[0] == window_output((227, 227), 11, 4, ceil=True)[0] == (55, 55)


def test_pooling_comes_before_normalisation(paper):
    """No: "response-normalization layers follow the first and second convolutional layers", pooling follows these."""
    assert nodes_after(paper, 1) == ["relu1", "norm1", "pool1"]
    assert nodes_after(paper, 2) == ["relu2", "norm2", "pool2"]


def test_every_convolution_is_followed_by_pooling_and_normalisation(paper):
    """No: layers 3, 4 and 5 follow each other directly; only layer 5 is followed by pooling."""
    assert [nodes_after(paper, layer) for layer in (3, 4, 5)] == [["relu3"], ["relu4"], ["relu5", "pool5"]]


def test_conv2_4_5_have_614400_1327104_and_884736_weights(paper, ungrouped):
    """That is without the two GPUs; each kernel of the paper reads one half of the maps, so there are half as many."""
    def weights(net):
        return [net.params[f"conv{layer}.w"].data.size for layer in (2, 4, 5)]
    assert weights(paper) == [307_200, 663_552, 442_368]
    assert weights(ungrouped) == [614_400, 1_327_104, 884_736]


def test_conv3_is_split_over_the_gpus_too(paper):
    """No: it is the only convolution that reads the maps of both."""
    assert [paper.params[f"conv{layer}.w"].data.shape[2] for layer in (2, 3, 4, 5)] == [48, 256, 192, 192]


def test_biases_of_one_are_in_conv1_3_4_and_all_fully_connected_layers(paper):
    """No: in conv 2, 4, 5 and the hidden fully connected layers (section 5)."""
    ones = [name for name, param in paper.params.items() if name.endswith(".b") and (param.data == 1).all()]
    zeros = [name for name, param in paper.params.items() if name.endswith(".b") and not param.data.any()]
    assert ones == ["conv2.b", "conv4.b", "conv5.b", "fc6.b", "fc7.b"]
    assert zeros == ["conv1.b", "conv3.b", "fc8.b"]


def test_it_has_62_million_parameters():
    """62,378,344 is without groups; the paper's net has 60,965,224 ("60 million"). torchvision's is a different net."""
    kernels, inputs = (96, 256, 384, 384, 256), (11 * 11 * 3, 5 * 5 * 96, 9 * 256, 9 * 384, 9 * 384)
    dense = 9216 * 4096 + 4096 * 4096 + 4096 * 1000 + 4096 + 4096 + 1000
    def total(groups):
        halves = (1, groups, 1, groups, groups)
        return dense + sum(k * s // g + k for k, s, g in zip(kernels, inputs, halves, strict=True))
    assert (total(2), total(1)) == (60_965_224, 62_378_344)         # for the networks: test_alexnet.py


def test_figure_2_gives_253440_neurons_for_layer_1(paper):
    """So its caption says, but 55 x 55 x 96 is 290,400; its other numbers agree with the network."""
    lines = {words[0]: words[1:6] for words in map(str.split, paper.summary().splitlines()) if words}
    def neurons(layer):
        return int(lines[layer][0]) * int(lines[layer][2]) * int(lines[layer][4])
    assert neurons("conv1") == 290_400 == 253_440 + 55 * 7 * 96
    assert [neurons(f"conv{layer}") for layer in (2, 3, 4, 5)] == [186_624, 64_896, 64_896, 43_264]


def test_pooling_windows_do_not_overlap(paper):
    """They do: 3 x 3 with stride 2 (section 3.4)."""
    pools = [node.layer for node in paper.nodes if isinstance(node.layer, MaxPool2d)]
    assert [(pool.kernel, pool.stride) for pool in pools] == [((3, 3), (2, 2))] * 3


def test_dropout_scales_up_during_training(paper):
    """No: the paper multiplies the outputs by 0.5 at test time, and does not scale in training (section 4.2)."""
    drops = [node.layer for node in paper.nodes if isinstance(node.layer, Dropout)]
    assert len(drops) == 2
    x = np.ones((4, 1000), np.float32)
    trained, tested = drops[0](x, train=True), drops[0](x, train=False)
    assert set(np.unique(trained)) == {0, 1} and (tested == 0.5).all()


def test_alpha_is_divided_by_n_as_in_the_libraries():
    """Not in the paper's formula. For torch's LocalResponseNorm(5, alpha=1e-4), the sum has a fifth of its weight."""
    x = np.full((1, 1, 1, 9), 100, np.float32)
    printed = 100 / (2 + 1e-4 * 5 * 100**2) ** 0.75         # centre channel: five values of 100
    divided = 100 / (2 + 1e-4 / 5 * 5 * 100**2) ** 0.75
    assert LRN(5)(x)[0, 0, 0, 4] == pytest.approx(printed, rel=1e-6)
    assert LRN(5, divide_alpha=True)(x)[0, 0, 0, 4] == pytest.approx(divided, rel=1e-6)
    assert not PAPER.lrn_divide_alpha


def test_the_order_of_relu_pooling_and_normalisation_does_not_matter(rng):
    """With max-pooling it does not (layer 5 of the authors' net); with normalisation it does (their layer 1)."""
    x = rng.normal(0, 100, (2, 7, 7, 8)).astype(np.float32)
    relu, pool, norm = ReLU(), MaxPool2d(3, stride=2), LRN(5)
    assert (pool(relu(x.copy())) == relu(pool(x))).all()
    assert np.abs(norm(relu(x.copy())) - relu(norm(x))).max() > 1       # negative values count in its sum of squares


def test_normalisation_mixes_the_maps_of_both_gpus(paper, rng):
    """Not in the code, and not in Figure 2: map 48 of the second GPU does not depend on map 47 of the first."""
    norm = next(node.layer for node in paper.nodes if node.name == "norm1")
    x = rng.normal(0, 100, (1, 2, 2, 96)).astype(np.float32)
    changed = x.copy()
    changed[..., 47] *= 3
    assert (norm(x)[..., 48:] == norm(changed)[..., 48:]).all()
    assert (norm(x)[..., 45:48] != norm(changed)[..., 45:48]).all()


def test_any_image_size_works(paper):
    """Not with fully connected layers: each unit of fc6 has one weight for each of 6 x 6 x 256 inputs."""
    with pytest.raises(ShapeError, match=r"must be \(N, 224, 224, 3\)"):
        paper.forward(np.zeros((1, 227, 227, 3), np.float32))
