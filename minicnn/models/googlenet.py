"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", CVPR 2015 (arXiv 1409.4842).

Table 1, for 224 x 224 images: a stem of three convolutions, nine Inception modules, the average over all pixels and
one fully connected layer. A module (Figure 2 b) is four branches side by side, whose channels are concatenated in this
order:

    1 x 1        1 x 1, 3 x 3        1 x 1, 5 x 5        max-pooling of 3 x 3, 1 x 1

The 1 x 1 convolutions before the larger ones, and after the pooling, reduce the number of channels. Figure 2 (a), the
naive module, does without: the channels of the pooling are added to all others, module after module.

For training, two auxiliary classifiers read modules 4a and 4d (section 5); their losses count 0.3 each. In prediction
they do not run. What the paper does not print is from its replica BVLC/caffe: models/bvlc_googlenet: the constants of
the normalisation in the stem, whose places Figure 3 shows, Xavier initialisation, biases of 0.2, their learning rate.
Table 1 prints 2.7K weights for the first convolution, which are those of a separable one; here, as in Caffe, it is
dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.init import Normal, Uniform
from minicnn.models import knobs as variants_of

# Table 1: kernels of 1 x 1, 3 x 3 reduce, 3 x 3, 5 x 5 reduce, 5 x 5, projection after the pooling
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),                             # 28 x 28
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),                            # 14 x 14
    "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),                       # 7 x 7
}
HEADS = {"4a": "aux1", "4d": "aux2"}                        # section 5


@dataclass(frozen=True)
class Knobs:
    """The options of GoogLeNet."""

    input_size: int = 224                                   # section 5
    width: float = 1.0                                      # factor on all numbers of kernels, for small nets
    naive: bool = False                                     # modules of Figure 2 (a)
    lrn: bool = True                                        # places from Figure 3, constants from Caffe
    batchnorm: bool = False                                 # after every convolution, which then has no bias
    sync: bool = False                                      # batch statistics of all ranks
    five: int = 5                                           # side of the kernels of the 5 x 5 branch
    pool4: int = 3                                          # Table 1; window of the pooling after module 4e
    dropout: float = 0.4                                    # Table 1
    aux: bool = True                                        # the auxiliary classifiers
    aux_weight: float = 0.3                                 # section 5
    aux_dropout: float = 0.7                                # section 5
    aux_fc: int = 1024                                      # section 5
    aux_adaptive: bool = False                              # section 5: average of 5 x 5, stride 3; True: 4 x 4 means
                                                            # of windows that cover maps of any size
    init: str = "xavier"                                    # Caffe's, U(-sqrt(3 / fan in), sqrt(3 / fan in)); or
                                                            # "normal", of standard deviation 0.01
    bias: float = 0.2                                       # Caffe: of convolutions and the auxiliary hidden layers
    bias_lr: float = 2.0                                    # Caffe: factor on the learning rate of biases
    bias_decay: float = 0.0                                 # Caffe: factor on their weight decay


PAPER = Knobs()

VARIANTS: dict[str, Knobs] = {
    "paper": PAPER,
    "torchvision": replace(                                 # pytorch/vision: torchvision/models/googlenet.py
        PAPER, lrn=False, batchnorm=True,
        five=3,                                             # pytorch/vision#906: kept for the trained weights
        pool4=2, dropout=0.2, aux_adaptive=True, init="normal", bias=0.0, bias_lr=1.0, bias_decay=1.0),
    "naive": replace(PAPER, naive=True),                    # Figure 2 (a), with the kernels of Table 1
}


def googlenet(variant: str = "paper", num_classes: int = 1000, seed: int = 0, device: str = "auto",
              dtype: str = "float32", *, values: Mapping[str, np.ndarray] | None = None, **changes) -> Net:
    """GoogLeNet for images (N, 224, 224, 3) holding 0..255 minus the mean; logits (N, num_classes).

    variant: "paper", "torchvision" or "naive".   changes: see Knobs. ConfigError for a name that does not exist;
    ShapeError naming the layer for which the image is too small.
    """
    known = variants_of.knobs_of("GoogLeNet", VARIANTS, variant, **changes)
    if known.init not in ("xavier", "normal"):
        raise ConfigError(f"GoogLeNet: init {known.init!r} is unknown: expected one of xavier, normal")
    b = Builder((known.input_size, known.input_size, 3), name=f"googlenet-{variant}")
    _stem(b, known)
    for module, kernels in MODULES.items():
        _module(b, f"inception_{module}", [_scaled(count, known) for count in kernels], known)
        if known.aux and module in HEADS:
            _auxiliary(b, HEADS[module], num_classes, known)
        if module == "3b":
            b.maxpool("pool3", 3, stride=2, ceil=True)                      # 28 -> 14
        if module == "4e":
            b.maxpool("pool4", known.pool4, stride=2, ceil=True)            # 14 -> 7
    b.global_avgpool("pool5")                                               # 1024
    b.dropout("drop", known.dropout, inverted=True)
    b.linear("fc", num_classes, init=_weights(known, b.shape()[-1]))
    b.loss("loss")
    net = b.net(seed=seed, device=device, dtype=dtype, values=values)
    for name, param in net.params.items():
        if name.endswith(".b") and not name.endswith("_bn.b"):
            param.lr_mult, param.decay_mult = known.bias_lr, known.bias_decay
    return net


def _stem(b: Builder, known: Knobs) -> None:
    """The three convolutions before the first module."""
    def norm(name: str) -> None:
        if known.lrn:
            b.lrn(name, n=5, k=1.0, alpha=1e-4, beta=0.75, divide_alpha=True)

    _conv(b, "conv1", _scaled(64, known), 7, known, stride=2)               # 224 -> 112
    b.maxpool("pool1", 3, stride=2, ceil=True)                              # 56
    norm("norm1")
    _conv(b, "conv2_reduce", _scaled(64, known), 1, known)
    _conv(b, "conv2", _scaled(192, known), 3, known)
    norm("norm2")
    b.maxpool("pool2", 3, stride=2, ceil=True)                              # 28


def _module(b: Builder, name: str, kernels: list[int], known: Knobs) -> None:
    """An Inception module."""
    one, reduce3, three, reduce5, five, projection = kernels
    x = b.last
    branches = [_conv(b, f"{name}_1x1", one, 1, known, input=x)]
    for kernel, side, reduced, count in (("3x3", 3, reduce3, three), ("5x5", known.five, reduce5, five)):
        before = x if known.naive else _conv(b, f"{name}_{kernel}_reduce", reduced, 1, known, input=x)
        branches.append(_conv(b, f"{name}_{kernel}", count, side, known, input=before))
    pooled = b.maxpool(f"{name}_pool", 3, stride=1, padding=1, input=x)
    branches.append(pooled if known.naive else _conv(b, f"{name}_pool_proj", projection, 1, known, input=pooled))
    b.concat(name, branches)


def _auxiliary(b: Builder, name: str, num_classes: int, known: Knobs) -> None:
    """An auxiliary classifier that reads the module before it; the next module reads that module, too."""
    trunk = b.last
    if known.aux_adaptive:
        b.adaptive_avgpool(f"{name}_pool", 4)
    else:
        b.avgpool(f"{name}_pool", 5, stride=3, ceil=True, count_pad="padding")      # 14 -> 4
    _conv(b, f"{name}_conv", _scaled(128, known), 1, known)
    b.flatten(f"{name}_flat")                                               # 4 x 4 x 128 = 2048
    b.linear(f"{name}_fc1", known.aux_fc, init=_weights(known, b.shape()[-1]), bias_init=known.bias)
    b.relu(f"{name}_relu")
    b.dropout(f"{name}_drop", known.aux_dropout, inverted=True)
    b.linear(f"{name}_fc2", num_classes, init=_weights(known, b.shape()[-1]))
    b.loss(f"{name}_loss", weight=known.aux_weight, train_only=True)
    b.last = trunk


def _conv(b: Builder, name: str, channels: int, kernel: int, known: Knobs, *, stride: int = 1,
          input: str | None = None) -> str:
    """A convolution that keeps the size, up to its stride, and its ReLU."""
    fan_in = kernel * kernel * b.shape(input)[-1]
    b.conv(name, channels, kernel, stride=stride, padding=kernel // 2, bias=not known.batchnorm,
           init=_weights(known, fan_in), bias_init=known.bias, input=input)
    if known.batchnorm:
        b.batchnorm(f"{name}_bn", eps=1e-3, sync=known.sync)
    return b.relu(f"{name}_relu")


def _weights(known: Knobs, fan_in: int) -> Uniform | Normal:
    return Normal(0.01) if known.init == "normal" else Uniform((3 / fan_in) ** 0.5)


def _scaled(count: int, known: Knobs) -> int:
    return max(1, round(count * known.width))


def differences(variant: str) -> list[str]:
    """Where a variant departs from the paper."""
    return variants_of.differences(PAPER, VARIANTS[variant])
