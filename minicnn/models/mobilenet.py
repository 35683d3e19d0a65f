"""MobileNetV2: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018 (arXiv 1801.04381).

Table 2, for 224 x 224 images. A block widens its channels t times (1 x 1), filters each of them (3 x 3, depthwise) and
narrows them again (1 x 1, without a non-linearity); where shape allows it, its input is added. Batch normalisation
follows every convolution, and ReLU6, min(max(x, 0), 6), all but the narrowing ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minicnn.builder import Builder
from minicnn.graph import Net
from minicnn.init import He, Normal

# Table 2: expansion factor t, channels c, blocks n, stride s of the first of them
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(num_classes: int = 1000, input_size: int = 224, width: float = 1.0, seed: int = 0,
                 device: str = "auto", dtype: str = "float32", *, dropout: float = 0.2, sync: bool = False,
                 values: Mapping[str, np.ndarray] | None = None) -> Net:
    """MobileNetV2 for images (N, 224, 224, 3); logits (N, num_classes).

    width: a factor on all numbers of channels, which are rounded to multiples of 8, as in the authors' code.   dropout:
    0.2, as there and in torchvision.   sync: batch statistics of all ranks. ShapeError naming the layer for which the
    image is too small.
    """
    b = Builder((input_size, input_size, 3), name="mobilenet_v2")
    _conv(b, "conv1", multiple_of_8(32 * width), 3, stride=2, sync=sync)                # 224 -> 112
    for stage, (factor, channels, count, stride) in enumerate(BLOCKS, start=2):         # 112, 56, 28, 14, 14, 7, 7
        for block in range(1, count + 1):
            _block(b, f"conv{stage}_{block}", factor, multiple_of_8(channels * width),
                   stride=stride if block == 1 else 1, sync=sync)
    _conv(b, "conv9", multiple_of_8(1280 * max(width, 1.0)), 1, sync=sync)
    b.global_avgpool("pool")
    b.dropout("drop", dropout, inverted=True)
    b.linear("fc", num_classes, init=Normal(0.01))
    b.loss("loss")
    return b.net(seed=seed, device=device, dtype=dtype, values=values)


def _block(b: Builder, name: str, factor: int, channels: int, *, stride: int, sync: bool) -> None:
    """An inverted residual block (Table 1)."""
    start, before = b.last, b.shape()[-1]
    if factor > 1:
        _conv(b, f"{name}_expand", factor * before, 1, sync=sync)
    _conv(b, f"{name}_depthwise", factor * before, 3, stride=stride, groups=factor * before, sync=sync)
    _conv(b, f"{name}_project", channels, 1, relu=False, sync=sync)
    if (before, stride) == (channels, 1):
        b.add(f"{name}_sum", [b.last, start])


def _conv(b: Builder, name: str, channels: int, kernel: int, *, stride: int = 1, groups: int = 1,
          relu: bool = True, sync: bool = False) -> None:
    b.conv(name, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, init=He("out"))
    b.batchnorm(f"{name}_bn", sync=sync)
    if relu:
        b.clipped_relu(f"{name}_relu6", 6.0)


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, that is not more than a tenth below `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
