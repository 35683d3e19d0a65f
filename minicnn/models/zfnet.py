"""ZFNet: Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014 (arXiv 1311.2901).

Figure 3, for 224 x 224 images: AlexNet with 7 x 7 kernels at stride 2 in the first layer, instead of 11 x 11 at stride
4, stride 2 in the second, and no groups. The maps are 110, 55, 26, 13, 13, 13, 13 and 6 wide, which needs pooling
whose last window passes the edge. The order is ReLU, pooling, normalisation across maps.

Padding, the constants of the normalisation and the weight decay are not printed: padding is that of cuda-convnet, on
which the authors' code was based (section 3), the others are AlexNet's.

  b       Table 3: layers 3, 4, 5 of 512, 1024, 512 maps
  spp     ShaoqingRen/SPP_net: model-defs/Zeiler_conv5.prototxt, with the pyramid of He et al., arXiv 1406.4729
  onnx    "zfnet512" of the ONNX model zoo: onnx/onnx: .../data/light/light_zfnet512.onnx
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.graph import Net
from minicnn.init import Normal
from minicnn.models import knobs as variants_of


@dataclass(frozen=True)
class Knobs:
    """The options of ZFNet. Tuples have one entry per layer."""

    input_size: int = 224                                   # Figure 3
    kernels: tuple[int, ...] = (96, 256, 384, 384, 256)     # Figure 3
    padding: tuple[int, ...] = (0, 0, 1, 1, 1)              # not printed; that of layers 3 to 5 follows from 13
    conv1_ceil: bool = True                                 # the last window may pass the edge: 110. Padding 1 and
                                                            # rounding down give 110, too, one pixel further up
    pool_ceil: bool = True                                  # 110 -> 55, 26 -> 13
    pool_padding: int = 0                                   # 1 in rbgirshick/py-faster-rcnn, whose conv pads are 3, 2
    pool5: int = 3                                          # Figure 3; its window, with stride 2
    after_conv: tuple[str, ...] = ("relu pool lrn", "relu pool lrn", "relu", "relu", "relu pool")       # Figure 3
    lrn_k: float = 2.0                                      # not printed; AlexNet's
    lrn_alpha: float = 1e-4
    lrn_divide_alpha: bool = False
    lrn_within_alpha: float = 5e-5                          # of a normalisation within maps, 3 x 3, alpha / 9
    levels: tuple[int, ...] = ()                            # spatial pyramid pooling after layer 5: n x n bins each
    fc: tuple[int, ...] = (4096, 4096)                      # Figure 3
    dropout: float = 0.5                                    # section 3
    dropout_inverted: bool = False                          # not printed; as in AlexNet
    std: float = 0.01                                       # section 3: "all weights are initialized to 10^-2", which
                                                            # can only be the standard deviation
    fc_bias: float = 0.0                                    # section 3


PAPER = Knobs()

VARIANTS: dict[str, Knobs] = {
    "paper": PAPER,
    "b": replace(PAPER, kernels=(96, 256, 512, 1024, 512)),
    "spp": replace(
        PAPER, padding=(1, 0, 1, 1, 1), conv1_ceil=False,   # pad: 1
        after_conv=("relu lrn_within pool", "relu lrn_within pool", "relu", "relu", "relu"),    # WITHIN_CHANNEL
        levels=(6, 3, 2, 1),                                # arXiv 1406.4729, section 4.1: 50 bins
        dropout_inverted=True, fc_bias=1.0),                # Caffe's dropout; bias_filler
    "onnx": replace(
        PAPER, kernels=(96, 256, 512, 512, 512), conv1_ceil=False, pool_ceil=False, pool5=2,
        after_conv=("relu lrn pool", "relu lrn pool", "relu", "relu", "relu pool"),
        lrn_alpha=5e-4, lrn_divide_alpha=True, fc=(4096, 1024), dropout_inverted=True),
}


def zfnet(variant: str = "paper", num_classes: int = 1000, seed: int = 0, device: str = "auto",
          dtype: str = "float32", *, values: Mapping[str, np.ndarray] | None = None, **changes) -> Net:
    """ZFNet for images (N, 224, 224, 3) holding 0..255 minus the mean; logits (N, num_classes).

    variant: "paper", "b", "spp" or "onnx".   changes: see Knobs. ConfigError for a name that does not exist; ShapeError
    naming the layer for which the image is too small.
    """
    known = variants_of.knobs_of("ZFNet", VARIANTS, variant, **changes)
    b = Builder((known.input_size, known.input_size, 3), name=f"zfnet-{variant}")
    init = Normal(known.std)

    def conv(layer: int, kernel: int, stride: int = 1, ceil: bool = False) -> None:
        """Convolution number `layer`, and the layers that follow it in this variant."""
        b.conv(f"conv{layer}", known.kernels[layer - 1], kernel, stride=stride, padding=known.padding[layer - 1],
               ceil=ceil, init=init)
        for step in known.after_conv[layer - 1].split():
            _step(b, step, layer, known)

    conv(1, 7, stride=2, ceil=known.conv1_ceil)             # 96 kernels of 7 x 7 x 3, 224 -> 110; pooled to 55
    conv(2, 5, stride=2)                                    # 256 of 5 x 5 x 96, 55 -> 26; pooled to 13
    conv(3, 3)                                              # 384 of 3 x 3 x 256
    conv(4, 3)                                              # 384 of 3 x 3 x 384
    conv(5, 3)                                              # 256 of 3 x 3 x 384; pooled to 6
    if known.levels:
        _pyramid(b, known.levels)
    else:
        b.flatten("flatten")                                # 6 x 6 x 256 = 9216
    for layer, units in enumerate(known.fc, start=6):
        b.linear(f"fc{layer}", units, init=init, bias_init=known.fc_bias)
        b.relu(f"relu{layer}")
        b.dropout(f"drop{layer}", known.dropout, inverted=known.dropout_inverted)
    b.linear("fc8", num_classes, init=init)
    b.loss("loss")
    return b.net(seed=seed, device=device, dtype=dtype, values=values)


def _step(b: Builder, step: str, layer: int, known: Knobs) -> None:
    """One of the layers that follow a convolution."""
    if step == "relu":
        b.relu(f"relu{layer}")
    elif step == "pool":
        b.maxpool(f"pool{layer}", known.pool5 if layer == 5 else 3, stride=2, padding=known.pool_padding,
                  ceil=known.pool_ceil)
    elif step == "lrn":
        b.lrn(f"norm{layer}", n=5, k=known.lrn_k, alpha=known.lrn_alpha, beta=0.75,
              divide_alpha=known.lrn_divide_alpha)
    elif step == "lrn_within":
        b.lrn_within(f"norm{layer}", n=3, k=1.0, alpha=known.lrn_within_alpha, beta=0.75, divide_alpha=True)
    else:
        raise ConfigError(f"ZFNet: after_conv has a step {step!r}; expected relu, pool, lrn or lrn_within")


def _pyramid(b: Builder, levels: tuple[int, ...]) -> None:
    """Spatial pyramid pooling: for each level n the maxima of n x n bins, all in one row (arXiv 1406.4729, section 2).

    Bins of an image of a x a pixels begin every floor(a / n) pixels and reach as far as is needed to cover it: for
    a = 13 and n = 6, 3, 2, 1 these are the windows of the paper's Figure 4.
    """
    maps, rows = b.last, []
    _, H, W, _ = b.shape()
    if min(H, W) < max(levels):
        raise ShapeError(f"layer {maps!r}: its maps of {H} x {W} are too small for {max(levels)} x {max(levels)} bins; "
                         "use larger images")
    for n in levels:
        stride = (H // n, W // n)
        window = (H - (n - 1) * stride[0], W - (n - 1) * stride[1])
        b.maxpool(f"spp{n}", window, stride=stride, input=maps)
        rows.append(b.flatten(f"spp{n}_flat"))
    b.concat("spp", rows)                                   # 36 + 9 + 4 + 1 bins of 256 channels = 12800


def differences(variant: str) -> list[str]:
    """Where a variant departs from Figure 3."""
    return variants_of.differences(PAPER, VARIANTS[variant])
