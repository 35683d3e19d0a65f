"""AlexNet and its variants: sizes, parameters, multiply-adds, initialisation, errors, a training step of each."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest

from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_net
from minicnn.models import alexnet, reduced_alexnet
from minicnn.models.alexnet_variants import VARIANTS, differences, knobs_of
from minicnn.train.sgd import SGD

PARAMETERS = {"paper": 60_965_224, "ungrouped": 62_378_344, "torchvision": 61_100_840}
MACS = {"conv1": 105.4, "conv2": 223.9, "conv3": 149.5, "conv4": 112.1, "conv5": 74.8, "fc6": 37.7, "fc7": 16.8,
        "fc8": 4.1}     # millions per image


def slim(variant: str = "paper", **changes):
    """Convolutions of full size with tiny fully connected layers: fast to build."""
    return alexnet(variant, num_classes=10, device="reference", **{"fc": 8, **changes})


def table(net) -> dict[str, list[str]]:
    """Layer name -> the other columns of its line in the summary."""
    return {words[0]: words[1:] for words in map(str.split, net.summary().splitlines()) if words}


def images(net, count: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Noise with about the standard deviation of photographs minus their mean, and labels."""
    rng = np.random.default_rng(5)
    return rng.normal(0, 60, (count, *net.input_shape)).astype(dtype), np.arange(count) % net.num_classes


@pytest.fixture(scope="module")
def full():
    """The network of the paper itself: 61 million parameters."""
    net = alexnet()
    yield net
    del net
    gc.collect()


def test_parameters_of_the_paper(full):
    assert full.num_params == PARAMETERS["paper"]


@pytest.mark.parametrize("variant", ["ungrouped", "torchvision"])
def test_parameters_of_variants(variant):
    assert alexnet(variant).num_params == PARAMETERS[variant]
    gc.collect()


def test_multiply_adds(full):
    text = full.summary()
    for layer, macs in MACS.items():
        assert re.search(rf"^{layer} .* {macs:.1f} M ", text, re.MULTILINE), f"{layer} should have {macs} M MACs"
    assert "724.4 M multiply-adds per image" in text


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps(variant):
    rows = table(slim(variant))
    widths = [int(rows[name][0]) for name in ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")]
    assert widths == [55, 27, 27, 13, 13, 13, 13, 6]


def test_a_training_step_of_the_paper(full):
    x, labels = images(full, 2)
    before = {name: param.data.reshape(-1)[:1000].copy() for name, param in full.params.items()}
    loss = full.loss(x, labels)
    full.backward()
    assert 0.8 * np.log(1000) < loss < 1.5 * np.log(1000)
    SGD(full.params, lr=0.01).step(full.ops)
    for name, param in full.params.items():
        assert np.isfinite(param.data.reshape(-1)[:1000]).all(), name
        assert (param.data.reshape(-1)[:1000] != before[name]).any(), f"{name} did not change"


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_step_of_each_reduced_variant(variant, device):
    net = reduced_alexnet(variant, device=device)
    x, labels = images(net, 2)
    loss = net.loss(x, labels)
    net.backward()
    assert np.isfinite(loss)
    for name, param in net.params.items():
        assert np.isfinite(param.grad).all() and param.grad.any(), f"{name} has no gradient"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_step_of_each_variant_at_full_size(variant):
    net = alexnet(variant)
    x, labels = images(net, 2)
    assert np.isfinite(net.loss(x, labels))
    net.backward()
    assert all(np.isfinite(param.grad).all() for param in net.params.values())
    gc.collect()


@pytest.mark.parametrize("variant", ["authors", "caffe", "torchvision"])
def test_gradients_of_reduced_variants(variant):
    """A sample of conv1, whose gradient depends on all later layers. The paper's net is checked fully elsewhere."""
    net = reduced_alexnet(variant, num_classes=5, device="reference", dtype="float64")
    x, labels = images(net, 1, "float64")
    check_net(net, x, labels, coordinates=3, only=("conv1.w",)).raise_if_failed()


def test_initialisation_of_the_paper():
    net = slim()
    for name, param in net.params.items():
        layer, kind = name.split(".")
        if kind == "b":
            assert (param.data == (1 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0)).all(), name
        elif layer.startswith("conv"):
            assert abs(param.data.mean()) < 2e-4 and abs(param.data.std() / 0.01 - 1) < 0.02, name
        assert (param.lr_mult, param.decay_mult) == (1, 1), name


def test_initialisation_of_variants():
    authors, caffe, torchvision = (slim(name).params for name in ("authors", "caffe", "torchvision"))
    assert abs(authors["conv3.w"].data.std() / 0.03 - 1) < 0.02 and abs(authors["conv2.w"].data.std() / 0.01 - 1) < 0.02
    assert (caffe["conv5.b"].data == np.float32(0.1)).all() and not caffe["conv3.b"].data.any()
    assert abs(caffe["fc6.w"].data.std() / 0.005 - 1) < 0.02
    for params in (authors, caffe):
        assert (params["conv2.b"].lr_mult, params["conv2.b"].decay_mult) == (2, 0)
        assert (params["conv2.w"].lr_mult, params["conv2.w"].decay_mult) == (1, 1)
    bound = 1 / np.sqrt(11 * 11 * 3)
    weights = torchvision["conv1.w"].data
    assert np.abs(weights).max() <= bound and abs(weights.std() / (bound / np.sqrt(3)) - 1) < 0.02
    assert 0 < np.abs(torchvision["conv1.b"].data).max() <= bound


def test_layers_of_the_authors_net():
    """conv -> LRN -> pool -> ReLU; conv -> ReLU -> LRN -> within the map -> pool; ...; conv -> pool -> ReLU."""
    names = [node.name for node in slim("authors").nodes]
    assert names[:9] == ["conv1", "norm1", "pool1", "relu1", "conv2", "relu2", "norm2", "norm2_within", "pool2"]
    assert names[9:16] == ["conv3", "relu3", "conv4", "relu4", "conv5", "pool5", "relu5"]


def test_weights_depend_on_seed_and_name_alone():
    a, b, c = slim(seed=1).params, slim(seed=1, fc=16).params, slim(seed=2).params
    assert (a["conv1.w"].data == b["conv1.w"].data).all() and (a["conv1.w"].data != c["conv1.w"].data).any()


def test_differences_in_words():
    assert differences("paper") == []
    assert "LRN divides alpha by the size of its window: yes (paper: no)" in differences("authors")
    assert "standard deviation of the initial weights, layer 3, 4, 5: 0.03 (paper: 0.01)" in differences("authors")
    assert "after the convolution, layer 5: max-pooling -> ReLU (paper: ReLU -> max-pooling)" in differences("authors")
    assert differences("paper", lrn_groups=1) == ["LRN, groups of maps: 1 (paper: 2)"]
    assert differences("ungrouped") == ["groups: 1 (paper: 2)", "LRN, groups of maps: 1 (paper: 2)"]


def test_unknown_names_are_rejected_with_the_known_ones():
    with pytest.raises(ConfigError, match="unknown AlexNet variant 'vgg': expected one of paper, authors, caffe, "
                                          "ungrouped, torchvision"):
        alexnet("vgg")
    with pytest.raises(ConfigError, match="AlexNet has no knob 'lrn_size': expected one of input_size, "):
        knobs_of("paper", lrn_size=3)
    with pytest.raises(ConfigError, match="after_conv has a step 'norm'"):
        slim(after_conv=("relu norm", "relu", "relu", "relu", "relu"))


def test_an_image_that_is_too_small_is_rejected_with_the_layer():
    with pytest.raises(ShapeError, match="layer 'pool2'"):
        slim(input_size=32, ceil=False)
