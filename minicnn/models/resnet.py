"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv 1512.03385).

Table 1, for 224 x 224 images; every convolution is followed by batch normalisation, and has no bias (section 3.4):

    conv1      7 x 7, 64, stride 2         112 x 112
    pool1      3 x 3 maximum, stride 2     56 x 56
    conv2_x    blocks of 64                56 x 56
    conv3_x    blocks of 128               28 x 28; in this stage and the next ones, the first block has stride 2
    conv4_x    blocks of 256               14 x 14
    conv5_x    blocks of 512               7 x 7
    average over all pixels, fully connected layer, softmax

A block of w is 3 x 3, 3 x 3, both with w channels (18, 34 layers), or a bottleneck: 1 x 1 and 3 x 3 with w channels,
then 1 x 1 with 4w (50, 101, 152 layers).

A block adds its input to its output, before the last ReLU: y = relu(F(x) + shortcut(x)). The shortcut is x itself;
where the shape changes (section 4.1) it is A: every second pixel, with zeros as further channels, B: a 1 x 1
convolution; or C: a 1 x 1 convolution in every block. Plain nets are the same without shortcuts.

`cifar_resnet` is the net of section 4.2 for 32 x 32 images: 6n + 2 layers, n blocks each of 16, 32 and 64, shortcut A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.init import He, Uniform
from minicnn.models import knobs as variants_of

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}     # Table 1
BOTTLENECK = 50                                             # layers from which blocks are bottlenecks
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)                  # Table 6: n = 3, 5, 7, 9, 18, 200


@dataclass(frozen=True)
class Knobs:
    """The options of a ResNet."""

    input_size: int = 224                                   # section 3.4
    widths: tuple[int, ...] = (64, 128, 256, 512)           # Table 1; of the blocks of each stage
    residual: bool = True                                   # False: a plain net
    shortcut: str = "b"                                     # section 4.1: of the nets of Table 4, but ResNet-34 C
    stride_3x3: bool = False                                # a bottleneck's stride: in its first 1 x 1, as in the
                                                            # authors' release (KaimingHe/deep-residual-networks)
    pool1_ceil: bool = False                                # pads of max-pooling are not printed: 1 here; True: 0, the
                                                            # last window over the edge, as in Caffe. Both give 56
    zeros_around: bool = False                              # of shortcut A: False: after the channels of x
    zero_gamma: bool = False                                # True: a block is initialised as its shortcut
    fan: str = "in"                                         # of He's initialisation; the paper's reference [13]
    fc_uniform: bool = False                                # True: U(-1/sqrt(fan in), 1/sqrt(fan in)), bias too
    sync: bool = False                                      # batch statistics of all ranks; the authors': of each GPU's
                                                            # 32 images


PAPER = Knobs()
TORCHVISION = replace(                                      # pytorch/vision: torchvision/models/resnet.py; the stride
    PAPER, stride_3x3=True, fan="out", fc_uniform=True)     # as in facebookarchive/fb.resnet.torch

VARIANTS: dict[str, Knobs] = {
    "v1": PAPER,
    "v1.5": TORCHVISION,
    "a": replace(PAPER, shortcut="a"),                      # Table 3
    "c": replace(PAPER, shortcut="c"),                      # Table 3
    "zero-gamma": replace(TORCHVISION, zero_gamma=True),    # Goyal et al., arXiv 1706.02677, section 5.1
}
CIFAR = replace(PAPER, input_size=32, widths=(16, 32, 64), shortcut="a")    # section 4.2


def resnet(depth: int, variant: str = "v1", num_classes: int = 1000, seed: int = 0, device: str = "auto",
           dtype: str = "float32", *, values: Mapping[str, np.ndarray] | None = None, blocks: tuple[int, ...] = (),
           **changes) -> Net:
    """ResNet for images (N, 224, 224, 3); logits (N, num_classes).

    depth: 18, 34, 50, 101 or 152.   variant: "v1", "v1.5", "a", "c", "zero-gamma".   blocks: numbers of blocks to use
    instead of Table 1's.   changes: see Knobs. ConfigError for what does not exist; ShapeError naming the layer for
    which the image is too small.
    """
    known = variants_of.knobs_of("ResNet", VARIANTS, variant, **changes)
    blocks = blocks or _known_depth(depth, BLOCKS)
    b = Builder((known.input_size, known.input_size, 3), name=f"{_kind(known)}{depth}-{variant}")
    _conv(b, "conv1", known.widths[0], 7, known, stride=2)                  # 224 -> 112
    b.relu("relu1")
    if known.pool1_ceil:
        b.maxpool("pool1", 3, stride=2, ceil=True)
    else:
        b.maxpool("pool1", 3, stride=2, padding=1)                          # 112 -> 56
    for stage, (count, width) in enumerate(zip(blocks, known.widths, strict=True), start=2):
        _stage(b, f"conv{stage}", count, width, known, bottleneck=depth >= BOTTLENECK, stride=1 if stage == 2 else 2)
    return _classifier(b, num_classes, known, seed=seed, device=device, dtype=dtype, values=values)


def cifar_resnet(depth: int, num_classes: int = 10, seed: int = 0, device: str = "auto", dtype: str = "float32", *,
                 values: Mapping[str, np.ndarray] | None = None, **changes) -> Net:
    """The residual net of 6n + 2 layers for images (N, 32, 32, 3); logits (N, num_classes).

    changes: such as residual=False for the plain net, or shortcut="b", as many have it; see Knobs.
    """
    known = variants_of.knobs_of("ResNet", {"": CIFAR}, "", **changes)
    if depth < 8 or depth % 6 != 2:
        raise ConfigError(f"a ResNet for CIFAR-10 has 6n + 2 layers, such as {', '.join(map(str, CIFAR_DEPTHS))}; "
                          f"got {depth}")
    b = Builder((known.input_size, known.input_size, 3), name=f"cifar-{_kind(known)}{depth}")
    _conv(b, "conv1", known.widths[0], 3, known)
    b.relu("relu1")
    for stage, width in enumerate(known.widths, start=2):                   # 32, 16, 8
        _stage(b, f"conv{stage}", (depth - 2) // 6, width, known, bottleneck=False, stride=1 if stage == 2 else 2)
    return _classifier(b, num_classes, known, seed=seed, device=device, dtype=dtype, values=values)


def _stage(b: Builder, name: str, blocks: int, width: int, known: Knobs, *, bottleneck: bool, stride: int) -> None:
    """The blocks of one row of Table 1; the first one has the stride."""
    for block in range(1, blocks + 1):
        _block(b, f"{name}_{block}", width, known, bottleneck=bottleneck, stride=stride if block == 1 else 1)


def _block(b: Builder, name: str, width: int, known: Knobs, *, bottleneck: bool, stride: int) -> None:
    """F(x) + shortcut(x), and the last ReLU (Figure 5)."""
    start = b.last
    if bottleneck:
        first, second = (1, stride) if known.stride_3x3 else (stride, 1)
        convolutions = ((width, 1, first), (width, 3, second), (4 * width, 1, 1))
    else:
        convolutions = ((width, 3, stride), (width, 3, 1))
    channels = convolutions[-1][0]
    shortcut = _shortcut(b, name, channels, stride, known) if known.residual else None
    b.last = start
    for number, (K, kernel, step) in enumerate(convolutions, start=1):
        last = number == len(convolutions)
        _conv(b, f"{name}_conv{number}", K, kernel, known, stride=step, gamma=float(not (last and known.zero_gamma)))
        if not last:
            b.relu(f"{name}_relu{number}")
    if shortcut:
        b.add(f"{name}_sum", [b.last, shortcut])
    b.relu(f"{name}_relu")


def _shortcut(b: Builder, name: str, channels: int, stride: int, known: Knobs) -> str:
    """The node that is added: the block's input itself, or A, B or C."""
    if known.shortcut not in ("a", "b", "c"):
        raise ConfigError(f"ResNet: shortcut {known.shortcut!r} is unknown: expected one of a, b, c")
    before = b.shape()[-1]
    if (before, stride) == (channels, 1) and known.shortcut != "c":
        return b.last
    if known.shortcut == "a":
        zeros = (channels - before) // 2 if known.zeros_around else 0
        return b.subsample(f"{name}_shortcut", channels, stride, before=zeros)
    return _conv(b, f"{name}_shortcut", channels, 1, known, stride=stride)


def _conv(b: Builder, name: str, channels: int, kernel: int, known: Knobs, *, stride: int = 1,
          gamma: float = 1.0) -> str:
    """A convolution that keeps the size, up to its stride, and its batch normalisation."""
    b.conv(name, channels, kernel, stride=stride, padding=kernel // 2, bias=False, init=He(known.fan))
    return b.batchnorm(f"{name}_bn", init=gamma, sync=known.sync)


def _classifier(b: Builder, num_classes: int, known: Knobs, **common) -> Net:
    """The average over all pixels and the last layer."""
    b.global_avgpool("pool")
    bound = Uniform(b.shape()[-1] ** -0.5)
    b.linear("fc", num_classes, **({"init": bound, "bias_init": bound} if known.fc_uniform else {"init": He()}))
    b.loss("loss")
    return b.net(**common)


def _kind(known: Knobs) -> str:
    return "resnet" if known.residual else "plain"


def _known_depth(depth: int, known: Mapping[int, tuple]) -> tuple[int, ...]:
    if depth not in known:
        raise ConfigError(f"there is no ResNet of {depth} layers for ImageNet: expected one of "
                          f"{', '.join(map(str, known))}; those for CIFAR-10 have {', '.join(map(str, CIFAR_DEPTHS))}")
    return known[depth]


def differences(depth: int, variant: str) -> list[str]:
    """Where a variant departs from the paper's net of Table 4. Without bottlenecks, their stride changes nothing."""
    known = VARIANTS[variant]
    return variants_of.differences(PAPER, known if depth >= BOTTLENECK else replace(known, stride_3x3=False))


resnet18 = partial(resnet, 18)
resnet34 = partial(resnet, 34)
resnet50 = partial(resnet, 50)
resnet101 = partial(resnet, 101)
resnet152 = partial(resnet, 152)
plain18 = partial(resnet, 18, residual=False)
plain34 = partial(resnet, 34, residual=False)

resnet20 = partial(cifar_resnet, 20)
resnet32 = partial(cifar_resnet, 32)
resnet44 = partial(cifar_resnet, 44)
resnet56 = partial(cifar_resnet, 56)
resnet110 = partial(cifar_resnet, 110)
resnet1202 = partial(cifar_resnet, 1202)
plain20 = partial(cifar_resnet, 20, residual=False)
plain32 = partial(cifar_resnet, 32, residual=False)
plain44 = partial(cifar_resnet, 44, residual=False)
plain56 = partial(cifar_resnet, 56, residual=False)
plain110 = partial(cifar_resnet, 110, residual=False)
