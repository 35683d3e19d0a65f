"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015
(arXiv 1409.1556).

Table 1: convolutions of 3 x 3 with stride 1 that keep the size, ReLU after each, and after each of five blocks 2 x 2
max-pooling with stride 2. For 224 x 224 images the maps are 224, 112, 56, 28, 14 and 7 wide; then three fully connected
layers of 4096, 4096 and 1000. "3-64" is a convolution of 3 x 3 with 64 kernels, as the table prints it.

The layers have the names of the authors' released files: conv1_1 ... conv5_3, fc6, fc7, fc8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.init import Glorot, He, Normal
from minicnn.models import knobs as variants_of

A = ("3-64", "3-128", "3-256 3-256", "3-512 3-512", "3-512 3-512")                              # Table 1
B = ("3-64 3-64", "3-128 3-128", *A[2:])
C = (*B[:2], "3-256 3-256 1-256", "3-512 3-512 1-512", "3-512 3-512 1-512")
D = (*B[:2], "3-256 3-256 3-256", "3-512 3-512 3-512", "3-512 3-512 3-512")
E = (*B[:2], "3-256 3-256 3-256 3-256", "3-512 3-512 3-512 3-512", "3-512 3-512 3-512 3-512")

# Initialisers of (convolutions, fully connected layers). Section 3.1 prints a normal distribution with *variance* 0.01,
# with which the signal grows by 6e5 from the input to the logits of net A; with standard deviation 0.01 it shrinks to
# 6e-6 of its size. The section recommends Glorot's for training without a pretrained net A.
INITS = {"glorot": (Glorot(), Glorot()), "variance": (Normal(0.1), Normal(0.1)), "std": (Normal(0.01), Normal(0.01)),
         "torchvision": (He("out"), Normal(0.01))}


@dataclass(frozen=True)
class Knobs:
    """The options of VGG; the defaults are net D, VGG-16."""

    input_size: int = 224                                   # section 2.1
    blocks: tuple[str, ...] = D
    lrn: bool = False                                       # after the first convolution, with AlexNet's constants
    batchnorm: bool = False                                 # after every convolution, which keeps its bias
    fc: int = 4096                                          # section 2.1
    dropout: float = 0.5                                    # section 3.1; by Caffe: not scaled at test time
    init: str = "glorot"                                    # a key of INITS
    sync: bool = False                                      # batch statistics of all ranks


PAPER = Knobs()
BN = replace(PAPER, batchnorm=True, init="torchvision")     # pytorch/vision: torchvision/models/vgg.py

VARIANTS: dict[str, Knobs] = {
    "d": PAPER,
    "a": replace(PAPER, blocks=A),
    "a-lrn": replace(PAPER, blocks=A, lrn=True),
    "b": replace(PAPER, blocks=B),
    "c": replace(PAPER, blocks=C),
    "e": replace(PAPER, blocks=E),
    "a-bn": replace(BN, blocks=A),
    "b-bn": replace(BN, blocks=B),
    "d-bn": BN,
    "e-bn": replace(BN, blocks=E),
}


def vgg(variant: str = "d", num_classes: int = 1000, seed: int = 0, device: str = "auto", dtype: str = "float32", *,
        values: Mapping[str, np.ndarray] | None = None, **changes) -> Net:
    """VGG for images (N, 224, 224, 3) holding 0..255 minus the mean; logits (N, num_classes).

    variant: "d" (VGG-16), "a", "a-lrn", "b", "c", "e", and "a-bn", "b-bn", "d-bn", "e-bn".   changes: see Knobs.
    ConfigError for a name that does not exist; ShapeError naming the layer for which the image is too small.
    """
    known = variants_of.knobs_of("VGG", VARIANTS, variant, **changes)
    if known.init not in INITS:
        raise ConfigError(f"VGG: init {known.init!r} is unknown: expected one of {', '.join(INITS)}")
    conv_init, fc_init = INITS[known.init]
    b = Builder((known.input_size, known.input_size, 3), name=f"vgg-{variant}")
    for block, row in enumerate(known.blocks, start=1):
        for number, entry in enumerate(row.split(), start=1):
            kernel, kernels = map(int, entry.split("-"))
            b.conv(f"conv{block}_{number}", kernels, kernel, padding=kernel // 2, init=conv_init)
            if known.batchnorm:
                b.batchnorm(f"conv{block}_{number}_bn", sync=known.sync)
            b.relu(f"relu{block}_{number}")
            if known.lrn and block == number == 1:
                b.lrn("norm1")
        b.maxpool(f"pool{block}", 2)
    b.flatten("flatten")                                    # 7 x 7 x 512 = 25088
    for layer in (6, 7):
        b.linear(f"fc{layer}", known.fc, init=fc_init)
        b.relu(f"relu{layer}")
        b.dropout(f"drop{layer}", known.dropout, inverted=True)
    b.linear("fc8", num_classes, init=fc_init)
    b.loss("loss")
    return b.net(seed=seed, device=device, dtype=dtype, values=values)


def differences(variant: str) -> list[str]:
    """Where a variant departs from net D; the convolutions in one line."""
    known = VARIANTS[variant]
    convolutions = [] if known.blocks == D else [f"convolutions of the five blocks: {_counts(known.blocks)} (net D: "
                                                 f"{_counts(D)})"]
    return convolutions + variants_of.differences(PAPER, replace(known, blocks=D), "net D")


def _counts(blocks: tuple[str, ...]) -> str:
    """Such as "2, 2, 3, 3, 3, of which 3 are 1 x 1"."""
    rows = [row.split() for row in blocks]
    single = sum(entry.startswith("1-") for row in rows for entry in row)
    return ", ".join(str(len(row)) for row in rows) + (f", of which {single} are 1 x 1" if single else "")
