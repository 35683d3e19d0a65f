"""The cases of `minicnn gradcheck`: every kind of layer on difficult shapes, and complete networks.

Shapes are small enough to check every element, and deliberately irregular: odd sizes, height different from width,
overlapping windows or windows that extend past the edge, padding on one side only. LRN is also checked with alpha = 1:
at the paper's 1e-4 the cross-channel term is so small that a coarse check would not notice if it were missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from math import prod

import numpy as np

from minicnn.backend.ops import Ops
from minicnn.builder import Builder
from minicnn.errors import ConfigError, expected_one_of
from minicnn.gradcheck.check import Report, TensorCheck, check_layer, check_net
from minicnn.graph import Net
from minicnn.layers.activation import Multiply, ReLU, Tanh
from minicnn.layers.base import Layer
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.combine import Add, Concat, Flatten, Subsample
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.local import Local2d
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minicnn.models.alexnet import reduced_alexnet
from minicnn.models.alexnet_variants import VARIANTS
from minicnn.models.cifar import cifar_18pct, cifar_paper
from minicnn.models.registry import build, find, full_name, named


@dataclass
class LayerCase:
    """A layer, the shapes of its inputs, and further arguments of check_layer."""

    make: Callable[[], Layer]
    in_shapes: list[tuple[int, ...]]
    options: dict = field(default_factory=dict)

    def run(self, ops: Ops, **extent) -> Report:
        """extent: `elementwise` and `coordinates` of check_layer."""
        return check_layer(self.make(), self.in_shapes, ops=ops, **self.options, **extent)


@dataclass
class NetCase:
    """A float64 network for a device name, the standard deviation of its input, and the extent of the check.

    constant: a regular expression of the parameters on which the loss does not depend: shifts of channels that a batch
    normalisation subtracts again. Their gradient is 0, so that nothing can be checked.   seed: of images and weights,
    such that no branch is dead.
    """

    make: Callable[[str], Net]
    input_std: float = 1.0
    batch: int = 2
    coordinates: int = 15
    elementwise: int = 40
    constant: str = "$^"
    seed: int = 0

    def run(self, device: str, on_row: Callable[[TensorCheck], None] | None = None) -> Report:
        net = self.make(device)
        generator = np.random.default_rng(self.seed)
        x = self.input_std * generator.standard_normal((self.batch, *net.input_shape))
        scale_weights(net, x, generator)
        labels = generator.integers(0, net.num_classes, self.batch)
        only = ["x", *(name for name in net.params if not re.fullmatch(self.constant, name))]
        return check_net(net, x, labels, elementwise=self.elementwise, coordinates=self.coordinates, only=only,
                         on_row=on_row)


def scale_weights(net: Net, x: np.ndarray, generator: np.random.Generator) -> None:
    """Draw all weights anew so that activations keep their variance and the logits have standard deviation 1.

    With N(0, 0.01) activations shrink from layer to layer, and rounding errors of f hide the smallest gradients.
    """
    for name, param in net.params.items():
        shape = param.data.shape
        std = 0.5 if len(shape) == 1 else np.sqrt(2 / prod(shape[:-1]))
        scale = 1.0 if len(shape) == 1 and name.endswith(".w") else 0.0           # of a normalisation
        param.data[...] = net.ops.from_host(scale + std * generator.standard_normal(shape))
    last = next(name for name in net.output_params if name.endswith(".w"))
    net.params[last].data[...] /= net.ops.to_host(net.forward(x)).std()


def fork(device: str) -> Net:
    """A small graph with branches, a sum, a concatenation, and an auxiliary, weighted loss."""
    b = Builder((7, 6, 3), name="fork")
    stem = b.conv("stem", 4, 3, padding=1)
    left = b.relu("left", input=stem)
    right = b.tanh("right", input=b.conv("conv", 4, 1, input=stem))
    joined = b.concat("joined", [left, right, b.add("sum", [left, right, stem])])
    b.maxpool("pool", 3, stride=2, ceil=True, input=joined)
    b.lrn("norm", alpha=1.0)
    b.flatten("flat")
    b.linear("fc", 5)
    b.relu("fc_relu")
    b.dropout("drop", 0.3)
    main = b.linear("out", 4)
    b.flatten("side_flat", input=right)
    b.linear("side", 4)
    b.loss("side_loss", weight=0.3, train_only=True)
    b.loss("loss", input=main)
    return b.net(device=device, dtype="float64", output=main)


LAYERS: dict[str, list[LayerCase]] = {
    "conv": [
        LayerCase(lambda: Conv2d(3, 4, 3), [(2, 5, 6, 3)]),
        LayerCase(lambda: Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0, 2, 1), groups=2), [(2, 6, 5, 4)]),
        LayerCase(lambda: Conv2d(2, 3, 5, stride=4, ceil=True), [(2, 10, 12, 2)]),      # past the edge, as in AlexNet
        LayerCase(lambda: Conv2d(3, 4, 2, stride=3, bias=False), [(2, 7, 7, 3)]),        # gaps between the windows
        LayerCase(lambda: Conv2d(4, 4, 3, padding=1, groups=4), [(1, 4, 5, 4)], {"relu": True}),           # depthwise
        LayerCase(lambda: Conv2d(5, 5, (3, 2), stride=2, padding=(1, 0, 0, 1), groups=5), [(2, 5, 4, 5)]),
        LayerCase(lambda: Conv2d(3, 6, 3, stride=2, padding=1, groups=3), [(2, 5, 4, 3)]),      # two kernels a channel
    ],
    "linear": [
        LayerCase(lambda: Linear(7, 5), [(3, 7)]),
        LayerCase(lambda: Linear(6, 6, bias=False), [(1, 6)]),
        LayerCase(lambda: Linear(9, 8), [(4, 9)], {"relu": True}),
        LayerCase(lambda: Linear(3, 4), [(2, 3, 5, 3)], {"relu": True}),                 # a 1 x 1 convolution
        LayerCase(lambda: Linear(4, 3), [(2, 5, 4)]),
    ],
    "maxpool": [
        LayerCase(lambda: MaxPool2d(3, stride=2), [(2, 7, 9, 3)]),                       # overlapping, as in AlexNet
        LayerCase(lambda: MaxPool2d(2), [(2, 5, 4, 3)]),
        LayerCase(lambda: MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0, 1, 1)), [(2, 5, 5, 2)]),
        LayerCase(lambda: MaxPool2d(3, stride=2, ceil=True), [(2, 6, 8, 2)]),
    ],
    "avgpool": [
        LayerCase(lambda: AvgPool2d(3, stride=2), [(2, 7, 6, 3)]),
        LayerCase(lambda: AvgPool2d(3, stride=2, padding=1, ceil=True), [(2, 6, 7, 2)]),
        LayerCase(lambda: AvgPool2d(3, stride=2, padding=1, ceil=True, count_pad=False), [(2, 6, 7, 2)]),
        LayerCase(lambda: AvgPool2d(3, stride=2, padding=1, ceil=True, count_pad="padding"), [(2, 6, 7, 2)]),
    ],
    "global_avgpool": [LayerCase(GlobalAvgPool2d, [(2, 3, 5, 7)]), LayerCase(GlobalAvgPool2d, [(3, 1, 1, 4)])],
    "adaptive_avgpool": [
        LayerCase(lambda: AdaptiveAvgPool2d((3, 4)), [(2, 7, 6, 3)]),
        LayerCase(lambda: AdaptiveAvgPool2d(2), [(2, 1, 4, 2)]),                        # one row, in both windows
    ],
    "lrn": [
        LayerCase(lambda: LRN(5, alpha=1.0), [(2, 3, 2, 11)]),
        LayerCase(lambda: LRN(3, k=1.0, alpha=1.0, beta=0.5, groups=2), [(2, 3, 2, 10)]),
        LayerCase(lambda: LRN(5, alpha=1.0, divide_alpha=True), [(2, 3, 3, 3)]),     # fewer channels than the window
        LayerCase(lambda: LRN(), [(2, 3, 2, 11)]),                                   # the paper's constants
    ],
    "lrn_within": [
        LayerCase(lambda: LRNWithin(3, alpha=1.0), [(2, 5, 4, 3)]),
        LayerCase(lambda: LRNWithin(5, k=1.0, alpha=1.0, divide_alpha=True), [(2, 4, 3, 2)]),
        LayerCase(lambda: LRNWithin(), [(1, 5, 6, 2)]),
    ],
    "batchnorm": [
        LayerCase(lambda: BatchNorm2d(3), [(2, 3, 4, 3)]),
        LayerCase(lambda: BatchNorm2d(19, eps=0.3), [(5, 19)]),                          # eps is no small number
        LayerCase(lambda: BatchNorm2d(2), [(3, 4, 3, 2)], {"relu": True}),
        LayerCase(lambda: BatchNorm2d(3), [(2, 3, 4, 3)] * 2, {"relu": True}),           # with a residual
        LayerCase(lambda: BatchNorm2d(17), [(2, 1, 3, 17)] * 2),
        LayerCase(lambda: BatchNorm2d(3, eps=0.3), [(2, 2, 2, 3)] * 2, {"train": False, "relu": True}),
        LayerCase(lambda: BatchNorm2d(5), [(1, 5)], {"train": False}),
        LayerCase(lambda: BatchNorm2d(3, scale=False), [(2, 3, 4, 3)]),
        LayerCase(lambda: BatchNorm2d(3, scale=False, eps=0.3), [(2, 2, 2, 3)] * 2, {"train": False, "relu": True}),
        LayerCase(lambda: BatchNorm2d(4), [(2, 1, 1, 4)], {"train": False, "relu": True}),
    ],
    "affine": [
        LayerCase(lambda: Affine(3), [(2, 3, 4, 3)]),
        LayerCase(lambda: Affine(17, bias=False), [(4, 17)], {"relu": True}),
        LayerCase(lambda: Affine(5), [(2, 1, 2, 5)], {"relu": True}),
    ],
    "relu": [LayerCase(ReLU, [(3, 4, 5, 2)])],
    "tanh": [LayerCase(Tanh, [(3, 4, 5, 2)])],
    "multiply": [LayerCase(lambda: Multiply(-0.3), [(3, 4, 5, 2)])],
    "dropout": [
        LayerCase(lambda: Dropout(0.5), [(4, 3, 3, 3)]),
        LayerCase(lambda: Dropout(0.5), [(4, 9)], {"train": False}),
        LayerCase(lambda: Dropout(0.3, inverted=True), [(4, 11)]),
    ],
    "concat": [LayerCase(Concat, [(2, 3, 4, 2), (2, 3, 4, 3), (2, 3, 4, 1)])],
    "add": [LayerCase(Add, [(2, 3, 4, 2)] * 3)],
    "subsample": [
        LayerCase(lambda: Subsample(5), [(2, 5, 4, 3)]),
        LayerCase(lambda: Subsample(6, (1, 3), before=2), [(2, 3, 7, 4)]),
    ],
    "flatten": [LayerCase(Flatten, [(2, 3, 4, 2)])],
    "local": [LayerCase(lambda: Local2d((3, 4), 2, 3, 3, padding=1), [(2, 3, 4, 2)])],
    "loss": [
        LayerCase(SoftmaxCrossEntropy, [(4, 5)]),
        LayerCase(lambda: SoftmaxCrossEntropy(0.3), [(1, 7)]),
        LayerCase(lambda: SoftmaxCrossEntropy(label_smoothing=0.2), [(4, 5)]),
    ],
}



def _default_cases() -> dict[str, list[LayerCase]]:
    """A case for every public layer of minicnn without required arguments that is not listed above."""
    covered = {type(case.make()) for cases in LAYERS.values() for case in cases}
    kinds = [cls for cls in Layer.KINDS.values() if cls.__module__.startswith("minicnn.layers.")
             and cls is not Layer and cls.__name__[0] != "_" and cls not in covered]
    return {cls.__name__.lower(): [LayerCase(cls, [(3, 4, 5, 2)])] for cls in kinds
            if all(p.default is not p.empty for p in list(signature(cls.__init__).parameters.values())[1:])}


LAYERS |= _default_cases()

# AlexNet's input is 0..255 minus the mean; its LRN has almost no effect on values near 1.
NETS: dict[str, NetCase] = {"fork": NetCase(fork, batch=3, elementwise=500)}
NETS |= {("alexnet" if variant == "paper" else f"alexnet-{variant}"):
         NetCase(lambda device, variant=variant: reduced_alexnet(variant, device=device, dtype="float64"), 50.0)
         for variant in VARIANTS}
NETS |= {
    "cifar-paper": NetCase(lambda device: cifar_paper(input_size=12, device=device, dtype="float64")),
    "cifar-18pct": NetCase(lambda device: cifar_18pct(input_size=12, device=device, dtype="float64")),
}

# Reduced nets of the other families: every kind of block once, few kernels, odd sizes.
FEW = {"blocks": (1, 2, 1, 1), "widths": (3, 4, 3, 5)}
REDUCED: dict[str, tuple[str, dict]] = {
    "zfnet": ("zfnet", {"input_size": 93, "kernels": (4, 6, 5, 7, 4), "fc": (9, 8)}),
    "zfnet-spp": ("zfnet:spp", {"input_size": 127, "kernels": (6, 8, 7, 9, 6), "fc": (20, 16)}),
    "vgg": ("vgg:a-lrn", {"input_size": 33, "blocks": ("3-4", "3-5 1-4", "3-6", "3-5", "3-6"), "fc": 9}),
    "vgg-bn": ("vgg:a-bn", {"input_size": 33, "blocks": ("3-4", "3-5 1-4", "3-6", "3-5", "3-6"), "fc": 9}),
    "googlenet": ("googlenet", {"input_size": 75, "width": 0.07, "aux_fc": 16}),
    "googlenet-torchvision": ("googlenet:torchvision", {"input_size": 75, "width": 0.07, "aux_fc": 16}),
    "resnet": ("resnet18", {"input_size": 45, **FEW}),
    "resnet-a": ("resnet18:a", {"input_size": 43, **FEW, "widths": (3, 4, 5, 6)}),
    "resnet-bottleneck": ("resnet50", {"input_size": 41, **FEW}),
    "resnet-cifar": ("resnet20", {"input_size": 11, "widths": (3, 4, 5)}),
    "plain-cifar": ("plain20", {"input_size": 11, "widths": (3, 4, 5)}),
    "squeezenet": ("squeezenet1_1", {"input_size": 69, "width": 0.1}),
    "mobilenet": ("mobilenet_v2", {"input_size": 41, "width": 0.25}),
    "airbench": ("airbench93", {"input_size": 26, "widths": (3, 4, 5)}),
}
# Full name of a model -> the reduced net that has its kinds of blocks; the first pattern that matches
STANDS_FOR = {
    r"alexnet:paper": "alexnet", r"alexnet:(.+)": r"alexnet-\1", r"cifar_(.+)": r"cifar-\1",
    r"zfnet:spp": "zfnet-spp", r"zfnet:.+": "zfnet", r"vgg:.+-bn": "vgg-bn", r"vgg:.+": "vgg",
    r"googlenet:torchvision": "googlenet-torchvision", r"googlenet:.+": "googlenet",
    r"resnet(18|34):a": "resnet-a", r"resnet(18|34):.+": "resnet", r"resnet(50|101|152):.+": "resnet-bottleneck",
    r"resnet\d+": "resnet-cifar", r"plain\d+": "plain-cifar", r"squeezenet.+": "squeezenet",
    r"mobilenet.+": "mobilenet", r"airbench\d+": "airbench",
}
CONSTANT = {"vgg-bn": r"conv\d_\d\.b", "mobilenet": r"conv\d_\d_project_bn\.b"}
SEEDS = {"googlenet-torchvision": 1, "mobilenet": 2}


def _reduced(name: str, device: str) -> Net:
    model, knobs = REDUCED[name]
    return build(model, num_classes=3, device=device, dtype="float64", **knobs)


NETS |= {name: NetCase(partial(_reduced, name), coordinates=2, elementwise=2, constant=CONSTANT.get(name, "$^"),
                         seed=SEEDS.get(name, 0)) for name in REDUCED}

GROUPS = {"layers": list(LAYERS), "models": list(NETS), "all": [*LAYERS, *NETS]}


def names(what: str) -> list[str]:
    """The cases selected by an argument of the command line. Raises ConfigError for an unknown one."""
    if what in GROUPS:
        return GROUPS[what]
    if what in LAYERS or what in NETS:
        return [what]
    if not named(what.partition(":")[0]):
        known = [*GROUPS, *LAYERS, *NETS]
        raise ConfigError(f"nothing to check is called {what!r}: {expected_one_of(what, known)}")
    return [reduced(full_name(*find(what)))]


def reduced(model: str) -> str:
    """The reduced net that is checked for a model of this full name. ConfigError for one that has none."""
    for pattern, case in STANDS_FOR.items():
        if found := re.fullmatch(pattern, model):
            return found.expand(case)
    raise ConfigError(f"{model} has no reduced net whose gradients are checked; expected one in "
                      "minicnn/gradcheck/cases.py, STANDS_FOR")
