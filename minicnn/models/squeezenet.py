"""SqueezeNet 1.1: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size"
(arXiv 1602.07360), in the form that its authors released later, with 2.4 times less computation.

A fire module is a 1 x 1 convolution to few channels (squeeze), and two that read these, of 1 x 1 and 3 x 3, whose
channels are concatenated (expand). There is no fully connected layer: the last convolution has one channel for each
class, whose mean over all pixels is the logit. Source: forresti/SqueezeNet: SqueezeNet_v1.1/train_val.prototxt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minicnn.builder import Builder
from minicnn.graph import Net
from minicnn.init import He, Normal

# (squeeze, expand) of fire modules 2 ... 9; None: max-pooling of 3 x 3 with stride 2
FIRES = ((16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256))


def squeezenet1_1(num_classes: int = 1000, input_size: int = 224, width: float = 1.0, seed: int = 0,
                  device: str = "auto", dtype: str = "float32", *, last_bias: float = 0.0,
                  values: Mapping[str, np.ndarray] | None = None) -> Net:
    """SqueezeNet 1.1 for images (N, 224, 224, 3); logits (N, num_classes).   width: a factor on all numbers of kernels.
    last_bias: the initial bias of the last convolution. Its ReLU is before the logits: at 0, with few classes, all
    logits may become 0 in the first steps, and learn no more.

    ShapeError naming the layer for which the image is too small.
    """
    b = Builder((input_size, input_size, 3), name="squeezenet1_1")
    b.conv("conv1", _scaled(64, width), 3, stride=2, init=He())                     # 224 -> 111
    b.relu("relu1")
    b.maxpool("pool1", 3, stride=2, ceil=True)                              # 55
    number = 2
    for fire in FIRES:
        if fire is None:
            b.maxpool(f"pool{number - 1}", 3, stride=2, ceil=True)          # 27, then 13
        else:
            _fire(b, f"fire{number}", *(_scaled(count, width) for count in fire))
            number += 1
    b.dropout("drop9", 0.5, inverted=True)
    b.conv("conv10", num_classes, 1, init=Normal(0.01), bias_init=last_bias)
    b.relu("relu10")
    b.global_avgpool("pool10")
    b.loss("loss")
    return b.net(seed=seed, device=device, dtype=dtype, values=values)


def _fire(b: Builder, name: str, squeeze: int, expand: int) -> None:
    b.conv(f"{name}_squeeze1x1", squeeze, 1, init=He())
    squeezed = b.relu(f"{name}_squeeze1x1_relu")
    for kernel in (1, 3):
        b.conv(f"{name}_expand{kernel}x{kernel}", expand, kernel, padding=kernel // 2, init=He(), input=squeezed)
        b.relu(f"{name}_expand{kernel}x{kernel}_relu")
    b.concat(name, [f"{name}_expand{kernel}x{kernel}_relu" for kernel in (1, 3)])


def _scaled(count: int, width: float) -> int:
    return max(1, round(count * width))
