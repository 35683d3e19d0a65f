"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.

Eight layers with weights: five convolutions and three fully connected layers. `alexnet` follows section 3.5 of the
paper; the differences of other implementations are a table of options, minicnn/models/alexnet_variants.py. For
224 x 224 images the maps are 55, 27, 13, 13, 13 and 6 wide, and there are 60,965,224 parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.init import Normal, Uniform
from minicnn.models.alexnet_variants import knobs_of


def alexnet(variant: str = "paper", num_classes: int = 1000, seed: int = 0, device: str = "auto",
            dtype: str = "float32", *, values: Mapping[str, np.ndarray] | None = None, **changes) -> Net:
    """AlexNet for images (N, 224, 224, 3) holding 0..255 minus the mean; logits (N, num_classes).

    variant: "paper", "authors", "caffe", "ungrouped" or "torchvision".   changes: options to override, such as
    lrn_groups=1 or input_size=67 (see Knobs).   values: weights to use instead of drawing them (see Net). Raises
    ConfigError for an unknown variant or option, and ShapeError naming the layer for which the image is too small.
    """
    knobs = knobs_of(variant, **changes)
    b = Builder((knobs.input_size, knobs.input_size, 3), name=f"alexnet-{variant}")

    def initialisers(layer: int, fan_in: int) -> dict:
        """Initialisers of the weights and biases of a layer (section 5)."""
        if knobs.std is None:
            return {"init": Uniform(fan_in**-0.5), "bias_init": Uniform(fan_in**-0.5)}
        return {"init": Normal(knobs.std[layer - 1]), "bias_init": knobs.bias if layer in knobs.bias_layers else 0.0}

    def conv(layer: int, kernel: int, **geometry) -> None:
        """Convolution number `layer`, and the layers that follow it in this variant."""
        groups = geometry.get("groups", 1)
        fan_in = kernel * kernel * b.shape()[-1] // groups
        b.conv(f"conv{layer}", knobs.kernels[layer - 1], kernel, **geometry, **initialisers(layer, fan_in))
        for step in knobs.after_conv[layer - 1].split():
            if step == "relu":
                b.relu(f"relu{layer}")
            elif step == "lrn":
                b.lrn(f"norm{layer}", n=5, k=knobs.lrn_k, alpha=knobs.lrn_alpha, beta=0.75, groups=knobs.lrn_groups,
                      divide_alpha=knobs.lrn_divide_alpha)
            elif step == "lrn_within":
                b.lrn_within(f"norm{layer}_within", n=5, k=1.0, alpha=1e-3, beta=0.75, divide_alpha=True)
            elif step == "pool":
                b.maxpool(f"pool{layer}", 3, stride=2, ceil=knobs.ceil)      # z = 3, s = 2: they overlap (section 3.4)
            else:
                raise ConfigError(f"AlexNet: after_conv has a step {step!r}; expected relu, lrn, lrn_within or pool")

    def hidden(layer: int) -> None:
        """A fully connected hidden layer with its dropout (section 4.2)."""
        if knobs.dropout_before:
            b.dropout(f"drop{layer}", knobs.dropout, inverted=knobs.dropout_inverted)
        b.linear(f"fc{layer}", knobs.fc, **initialisers(layer, b.shape()[-1]))
        b.relu(f"relu{layer}")
        if not knobs.dropout_before:
            b.dropout(f"drop{layer}", knobs.dropout, inverted=knobs.dropout_inverted)

    conv(1, 11, stride=4, padding=knobs.conv1_padding, ceil=knobs.ceil)     # 96 kernels of 11 x 11 x 3
    conv(2, 5, padding=2, groups=knobs.groups)              # 256 of 5 x 5 x 48: each GPU reads its own half of layer 1
    conv(3, 3, padding=1)                                   # 384 of 3 x 3 x 256: the only one that reads both halves
    conv(4, 3, padding=1, groups=knobs.groups)              # 384 of 3 x 3 x 192
    conv(5, 3, padding=1, groups=knobs.groups)              # 256 of 3 x 3 x 192
    b.flatten("flatten")                                    # 6 x 6 x 256 = 9216
    hidden(6)                                               # 4096 neurons
    hidden(7)                                               # 4096 neurons
    b.linear("fc8", num_classes, **initialisers(8, b.shape()[-1]))
    b.loss("loss")                                          # multinomial logistic regression

    net = b.net(seed=seed, device=device, dtype=dtype, values=values)
    for name, param in net.params.items():
        if name.endswith(".b"):
            param.lr_mult, param.decay_mult = knobs.bias_lr, knobs.bias_decay
    return net


def reduced_alexnet(variant: str = "paper", num_classes: int = 10, seed: int = 0, device: str = "auto",
                    dtype: str = "float32", **changes) -> Net:
    """The same layers for 67 x 67 images with 64 units in fc6 and fc7: small enough to check every gradient.

    Kernels, groups, normalisation, pooling and dropout are as in the full network; maps are 15, 7, 3, 3, 3, 1 wide.
    """
    return alexnet(variant, num_classes, seed, device, dtype, **{"input_size": 67, "fc": 64, **changes})
