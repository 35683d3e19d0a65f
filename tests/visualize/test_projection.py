"""Projections to the pixels: identities that hold for any graph, and wrong rules, which they must notice."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.evaluate.fold import folded
from minicnn.graph import Net
from minicnn.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, MaxPool2d, ReLU
from minicnn.layers.activation import ClippedReLU
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.plan import Node
from minicnn.visualize import rules
from minicnn.visualize.projection import project
from minicnn.visualize.units import receptive_field
from tests.helpers.graphs import small
from tests.models import families
from tests.models.families import CASES
from tests.test_trace import numeric_gradient

DEVICES = ("reference", "cpu")
LAYERS = {"zfnet": "relu5", "vgg-a-lrn": "pool3", "googlenet": "inception_3b", "resnet18-a": "conv3_2_relu",
          "mobilenet": "fc"}                                            # of each family, where projections begin
ON_BOTH = [(family, device) for family in LAYERS for device in DEVICES if family != "mobilenet" or device != "cpu"]


def filled(net, seed: int = 0):
    """The net with random weights and statistics."""
    rng = np.random.default_rng(seed)
    for name, array in net.arrays().items():
        array[...] = rng.uniform(0.5, 2, array.shape) if name.endswith("var") else rng.standard_normal(array.shape)
    return net


def linear_net(device: str):
    """All kinds of layers that are linear: branches, a residual, shortcut A, pools with ceil, batch norm, groups."""
    b = Builder((7, 6, 2))
    stem = b.batchnorm("bn", input=b.conv("conv1", 4, 3, stride=2, padding=1, ceil=True))
    left = b.conv("left", 2, 1, input=stem)
    right = b.conv("right", 4, 3, padding=1, groups=2, input=stem)
    joined = b.concat("join", [left, right])
    short = b.subsample("short", 6, 1, input=stem, before=1)
    b.avgpool("pool", 2, stride=2, ceil=True, count_pad=False, input=b.add("sum", [joined, short]))
    b.dropout("drop", 0.4)
    b.globalavgpool("mean")
    b.linear("fc", 3)
    return filled(b.net(device=device, dtype="float64"))


def check_transpose(device: str) -> None:
    """Without a ReLU every rule gives a times the transposed matrix of the layers below, biases left out."""
    net, x = linear_net(device), np.random.default_rng(1).standard_normal((1, 7, 6, 2))
    units = np.concatenate([np.zeros((1, x.size)), np.eye(x.size)]).reshape(-1, 7, 6, 2)
    seen = net.trace(units)
    for layer in ("bn", "join", "sum", "pool", "mean", "fc"):
        dense = (seen[layer][1:] - seen[layer][:1]).reshape(x.size, -1)             # (pixels, outputs)
        for rule in rules.RULES:
            got = project(net, x, layer, 1, rule=rule)
            at = np.ravel_multi_index((*got.positions[0], 1), seen[layer].shape[1:]) if seen[layer].ndim == 4 else 1
            np.testing.assert_allclose(got.pixels.ravel(), got.values[0] * dense[:, at], rtol=1e-9, atol=1e-12)


def two_layers(device: str, activation=None, lrn: str = ""):
    """lrn: "before" or "after" each activation."""
    b = Builder((5, 5, 2))
    for name in ("1", "2"):
        b.conv(f"conv{name}", 3, 2)
        if lrn == "before":
            b.lrn(f"norm{name}", alpha=0.5)
        b.layer(f"relu{name}", activation or ReLU())
        if lrn == "after":
            b.lrn(f"norm{name}", alpha=0.5)
    b.conv("conv3", 4, 2)
    return filled(b.net(device=device, dtype="float64"), seed=3)


def matrix(layer, shape) -> np.ndarray:
    """A convolution without its bias as a dense matrix (inputs, outputs)."""
    size = int(np.prod(shape))
    probes = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *shape)
    out = layer(probes)
    return (out[1:] - out[0]).reshape(size, -1)


def check_against_matrices(device: str) -> None:
    """conv, activation, [LRN], conv, activation, [LRN], conv by dense matrices and the rules as in the papers."""
    for activation, lrn in ((ReLU(), "after"), (ClippedReLU(1.5), ""), (Derived(), "before")):
        net, ceiling = two_layers(device, activation, lrn), getattr(activation, "ceiling", np.inf)
        x = np.random.default_rng(5).standard_normal((1, 5, 5, 2))
        seen = net.trace(x)
        dense = [matrix(Copied(net[name], device), shape) for name, shape in
                 (("conv1", (5, 5, 2)), ("conv2", (4, 4, 3)), ("conv3", (3, 3, 3)))]
        for rule in ("deconvnet", "guided"):
            got = project(net, x, "conv3", 1, rule=rule, lrn="identity")
            signal = np.zeros(seen["conv3"].shape)
            signal[(0, *got.positions[0], 1)] = got.values[0]
            signal = dense[2] @ signal.ravel()
            for name, below in (("conv2", dense[1]), ("conv1", dense[0])):
                before = seen[name].ravel()
                active = (before > 0) & (before < ceiling)
                signal = below @ (np.maximum(signal, 0) * (active if rule == "guided" else 1))
            np.testing.assert_allclose(got.pixels.ravel(), signal, rtol=1e-9, atol=1e-12)


class Derived(ReLU):
    """A ReLU of somebody's own: rules must not pass it over."""


class Copied:
    """A convolution on the reference backend, with the weights of another backend's."""

    def __init__(self, layer, device):
        self.layer = Conv2d(**layer.options())
        self.layer.init_params("copied", dtype="float64", values={
            f"copied.{name}": np.asarray(param.data) for name, param in layer.params.items()})

    def __call__(self, x):
        return self.layer(x)


def all_positive(net):
    """Weights so small beside biases of 1 that the input of every ReLU is positive."""
    rng = np.random.default_rng(2)
    for name, array in net.arrays().items():
        fan = max(1, array.size // array.shape[-1])
        kind = name.rpartition(".")[2]
        array[...] = (0.0 if kind == "mean" else 1.0 if kind in ("var", "b") else
                      0.02 * rng.uniform(-1, 1, array.shape) / fan if array.ndim > 1 else 0.1)
    for param in net.params.values():                                   # convolutions without a bias
        if param.name.endswith("conv1.w"):
            param.data[...] *= 0.1
    return net


def check_guided_is_deconvnet_where_all_is_active(device: str, family: str) -> None:
    """With every x > 0, guided backpropagation only has the rule R > 0 left."""
    net = all_positive(CASES[family].net(device=device, dtype="float64"))
    x = np.random.default_rng(0).uniform(-1, 1, (1, *net.input_shape))
    seen = net.trace(x)
    assert min(seen[node.name].min() for node in net.nodes if node.name in seen and
               isinstance(node.layer, (ReLU, ClippedReLU))) > 0
    layer = LAYERS[family]
    one, other = (project(net, x, layer, 1, rule=rule, lrn="identity").pixels for rule in ("guided", "deconvnet"))
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14 * np.abs(one).max())


@pytest.mark.parametrize("device", DEVICES)
def test_a_net_without_relu_gives_the_transposed_matrix(device):
    check_transpose(device)


@pytest.mark.parametrize("device", DEVICES)
def test_the_rules_against_dense_matrices(device):
    check_against_matrices(device)


@pytest.mark.parametrize(("family", "device"), ON_BOTH)
def test_guided_is_deconvnet_where_everything_is_active(family, device):
    check_guided_is_deconvnet_where_all_is_active(device, family)


def linear_twin(family: str, device: str):
    """The family's net without activations and normalisations by values, and with averages in place of maxima."""
    net, nodes, source = CASES[family].net(device=device, dtype="float64"), [], {}
    for node in net.nodes:
        inputs = tuple(source.get(name, name) for name in node.inputs)
        if isinstance(node.layer, (ReLU, ClippedReLU, LRN, LRNWithin)):
            source[node.name] = inputs[0]
        elif isinstance(node.layer, MaxPool2d):
            nodes.append(Node(node.name, AvgPool2d(**node.layer.options()), inputs))
        else:
            nodes.append(Node(node.name, node.layer, inputs))
    output = source.get(net.output, net.output)
    return families.load(Net(nodes, net.inputs, output=output, device=device, dtype="float64")), source


@pytest.mark.parametrize(("family", "device"), [pair for pair in ON_BOTH if pair[0] != "mobilenet"])
def test_a_family_without_relu_gives_the_transposed_matrix(family, device):
    """p = a W^T e exactly: along any direction d, p . d = a (f(x + d) - f(x)), whatever the rule."""
    net, source = linear_twin(family, device)
    layer = source.get(LAYERS[family], LAYERS[family])
    x, rng = families.images_and_labels(net)[0][:1], np.random.default_rng(1)
    clean = net.trace(x, layer)[layer]
    for rule in rules.RULES:
        got = project(net, x, layer, 1, rule=rule)
        at = (0, *got.positions[0], 1) if clean.ndim == 4 else (0, 1)
        for _ in range(2):
            direction = rng.standard_normal(x.shape)
            change = net.trace(x + direction, layer)[layer][at] - clean[at]
            assert (got.pixels * direction).sum() == pytest.approx(got.values[0] * change, rel=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_the_backprop_rule_is_activation_times_gradient(device):
    """To 1e-6, against finite differences, through LRN, overlapping pools with ceil, groups and ReLUs."""
    net = small(device)
    x = np.random.default_rng(4).standard_normal((1, *net.input_shape))
    for layer in ("relu2", "fc4"):
        got = project(net, x, layer, rule="backprop")
        one = np.zeros(net.trace(x, layer)[layer].shape)
        one[(0, *got.positions[0], got.units[0]) if layer == "relu2" else (0, got.units[0])] = 1
        expected = got.values[0] * numeric_gradient(net, x, layer, one)
        np.testing.assert_allclose(got.pixels, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("family", LAYERS)
def test_of_each_family(family):
    """reference and cpu agree; the backprop rule is the gradient along a random direction; the receptive field holds
    all pixels reached, by every rule; the projected unit is the strongest of its map."""
    nets = [families.load(CASES[family].net(device=device, dtype="float64")) for device in DEVICES]
    x, layer = families.images_and_labels(nets[0])[0][:1], LAYERS[family]
    for rule in rules.RULES:
        one, other = (project(net, x, layer, rule=rule) for net in nets)
        np.testing.assert_allclose(one.pixels, other.pixels, rtol=1e-7, atol=1e-9 * np.abs(one.pixels).max())
        top, left, bottom, right = one.boxes[0]
        outside = one.pixels.copy()
        outside[:, top:bottom, left:right] = 0
        assert one.pixels.any() and not outside.any()
    output = nets[0].trace(x, layer)[layer]
    assert one.values[0] == output.max()
    direction, step = np.random.default_rng(0).standard_normal(x.shape), 1e-7
    at = np.unravel_index(output.argmax(), output.shape)
    above, below = (nets[0].trace(x + sign * step * direction, layer)[layer][at] for sign in (1, -1))
    gradient = project(nets[0], x, layer, rule="backprop").pixels
    assert (gradient * direction).sum() == pytest.approx(output[at] * (above - below) / (2 * step), rel=1e-5)


def test_batch_norm_is_the_convolution_with_folded_weights():
    """A negative gamma included: it flips the sign."""
    net = families.load(CASES["resnet18-a"].net(device="reference", dtype="float64"))
    net.params["conv2_1_conv1_bn.w"].data[:2] *= -1
    x, other = families.images_and_labels(net)[0][:1], folded(net)
    assert len(other.nodes) < len(net.nodes)
    for rule in rules.RULES:
        one, two = (project(each, x, "conv3_2_relu", 1, rule=rule).pixels for each in (net, other))
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12 * np.abs(one).max())


def test_biases_matter_only_through_the_switches():
    net = two_layers("reference")
    x = np.random.default_rng(5).standard_normal((1, 5, 5, 2))
    before = project(net, x, "conv3", 1, (0, 1))
    for name, param in net.params.items():
        if name.endswith(".b"):
            param.data[...] += 0.7
    after = project(net, x, "conv3", 1, (0, 1))
    assert before.values[0] != after.values[0]
    np.testing.assert_allclose(after.pixels / after.values[0], before.pixels / before.values[0], rtol=1e-9)


def test_the_receptive_field_is_exact():
    """Of averages with positive weights, the pixels that are reached are the receptive field, at edges too."""
    b = Builder((11, 12, 1))
    b.conv("conv1", 1, 3, stride=2, padding=1)
    b.avgpool("pool1", 3, stride=2, ceil=True)
    side = b.conv("side", 1, (1, 3), padding=(0, 1, 0, 1))
    b.add("sum", [b.subsample("short", 1, 1, input="pool1"), side])
    b.layer("adaptive", AdaptiveAvgPool2d(2))
    net = b.net(device="reference", dtype="float64")
    for name, array in net.arrays().items():
        array[...] = 1.0 if name.endswith(".w") else 0.0
    x = np.ones((1, 11, 12, 1))
    for layer in ("conv1", "pool1", "sum", "adaptive"):
        for i, j in np.ndindex(net.trace(x, layer)[layer].shape[1:3]):
            reached = np.argwhere(project(net, x, layer, 0, (i, j), rule="backprop").pixels[0, ..., 0])
            (top, left), (bottom, right) = reached.min(axis=0), reached.max(axis=0) + 1
            assert receptive_field(net, layer, (i, j)) == (top, left, bottom, right), (layer, i, j)


MISTAKES = {
    "deconvnet: the gradient": ("deconvnet", lambda layer, dy, saved: dy * (saved["y"] > 0)),
    "deconvnet: everything passes": ("deconvnet", rules.identity),
    "deconvnet: guided": ("deconvnet", lambda layer, dy, saved: dy * (saved["y"] > 0) * (dy > 0)),
    "deconvnet: the negative part": ("deconvnet", lambda layer, dy, saved: dy * (dy < 0)),
    "deconvnet: absolute value": ("deconvnet", lambda layer, dy, saved: abs(dy)),
    "guided: the gradient": ("guided", lambda layer, dy, saved: dy * (saved["y"] > 0)),
    "guided: deconvnet": ("guided", rules.deconvnet),
    "guided: the ceiling forgotten": ("guided", lambda layer, dy, saved: dy * (saved["y"] > 0) * (dy > 0)),
    "guided: scaled by y": ("guided", lambda layer, dy, saved: dy * saved["y"] * (dy > 0)),
    "LRN: halved": ("identity", lambda layer, dy, saved: dy / 2),
    "LRN: its forward pass": ("identity", lambda layer, dy, saved: dy / (2 + dy**2)),
    "derived classes passed over": ("_kinds", lambda *classes: list(classes)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("device", DEVICES)
def test_wrong_rules_are_noticed(device, mistake, monkeypatch):
    name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(rules, name, wrong)
    with pytest.raises(AssertionError):
        check_against_matrices(device)


def test_wrong_requests():
    net = small("reference")
    x = np.ones((2, 9, 9, 3))
    for arguments, message in [
            (("conv9", 0), "no layer is called 'conv9'; did you mean 'conv2'"),
            (("conv2", 6), "layer 'conv2' has no unit 6: it has 6, counted from 0; the nearest is 5"),
            (("conv2", [0, -1]), "no unit -1.*the nearest is 0"),
            (("conv2", 0, (0, 9)), "outside a map of"),
            (("loss", 0), "'loss' is used in training only")]:
        with pytest.raises(ConfigError, match=message):
            project(net, x, *arguments)
    with pytest.raises(ConfigError, match="no backward rule 'deconv': did you mean 'deconvnet'"):
        project(net, x, "conv2", 0, rule="deconv")
    with pytest.raises(ConfigError, match="lrn cannot be 'skip'"):
        project(net, x, "conv2", 0, lrn="skip")


def test_captions_say_what_was_computed():
    x = np.random.default_rng(0).standard_normal((1, 9, 9, 3))
    (caption,) = project(small("reference"), x, "conv2", 3, (1, 0)).captions
    for words in ("conv2, map 3 of 6 (counted from 0), row 1, column 0 of ", "activation ",
                  "Deconvnet: a ReLU passes R where R > 0; LRN passes R unchanged", "Receptive field: "):
        assert words in caption
    (caption,) = project(small("reference"), x, "fc4", 1, rule="backprop").captions
    assert "fc4, unit 1 of 5" in caption and "Activation times gradient" in caption and "the whole image" in caption
