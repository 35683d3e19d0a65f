"""The small CIFAR-10 networks that the AlexNet paper refers to.

`cifar_paper` is the "four-layer CNN" of section 3.3: 13 % test error without response normalisation, 11 % with it. The
paper's footnote 3 refers to cuda-convnet's files for the details, layers-conv-local-13pct.cfg and -11pct.cfg: two
convolutions and two locally connected layers, trained on 24 x 24 crops of the 32 x 32 images.
`cifar_18pct` is layers-18pct.cfg of the same program, 18 % in 20 minutes on uncropped images: three convolutions and a
fully connected layer, normalised within maps. Both can use tanh instead of ReLU; Figure 1 of the paper compares the two
on "a four-layer convolutional neural network" that it does not describe.

As in the files, biases have twice the learning rate and no weight decay; layers with a different weight decay have a
multiplier on their Param. The training recipes are in minicnn/train/recipes.py. Files: dnouri/cuda-convnet.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.init import Normal
from minicnn.layers.local import Local2d

ACTIVATIONS = ("relu", "tanh")


def cifar_paper(lrn: bool = True, activation: str = "relu", num_classes: int = 10, input_size: int = 24, seed: int = 0,
                device: str = "auto", dtype: str = "float32", *,
                values: Mapping[str, np.ndarray] | None = None) -> Net:
    """Two convolutions, two locally connected layers, (N, 24, 24, 3) -> (N, num_classes): the 11 % and 13 % nets.

    Besides the normalisation (9 maps wide, k 1, alpha .001/9, beta .75), the 11 % file has 64 maps in local3, and the
    13 % file 32. Input: 0..255 minus the mean.
    """
    b = Builder((input_size, input_size, 3), name="cifar-paper")
    nonlinear = _nonlinearity(b, activation)
    norm = {"n": 9, "k": 1.0, "alpha": 1e-3, "beta": 0.75, "divide_alpha": True}

    b.conv("conv1", 64, 5, padding=2, init=Normal(0.0001))
    nonlinear("1")
    b.maxpool("pool1", 3, stride=2, ceil=True)
    if lrn:
        b.lrn("norm1", **norm)                              # here after the pooling, below before it
    b.conv("conv2", 64, 5, padding=2, init=Normal(0.01))
    nonlinear("2")
    if lrn:
        b.lrn("norm2", **norm)
    b.maxpool("pool2", 3, stride=2, ceil=True)
    for name, maps in ("local3", 64 if lrn else 32), ("local4", 32):
        _, H, W, C = b.shape()
        b.layer(name, Local2d((H, W), C, maps, 3, padding=1, init=Normal(0.04)))
        nonlinear(name[-1])
    b.flatten("flatten")
    b.linear("fc10", num_classes, init=Normal(0.01))
    b.loss("loss")
    decay = {"conv1": 0.0, "conv2": 0.0, "fc10": 2.5 if lrn else 1.0}       # wc 0, 0, .01 or .004; else .004
    return _with_multipliers(b.net(seed=seed, device=device, dtype=dtype, values=values), decay)


def cifar_18pct(lrn: bool = True, activation: str = "relu", num_classes: int = 10, input_size: int = 32, seed: int = 0,
                device: str = "auto", dtype: str = "float32", *,
                values: Mapping[str, np.ndarray] | None = None) -> Net:
    """Three convolutions and a fully connected layer (N, 32, 32, 3) -> (N, num_classes). Input: 0..255 minus the mean.

    The file applies the non-linearity of layer 1 after its max-pooling; the maximum commutes with increasing functions.
    """
    b = Builder((input_size, input_size, 3), name="cifar-18pct")
    nonlinear = _nonlinearity(b, activation)
    norm = {"n": 3, "k": 1.0, "alpha": 5e-5, "beta": 0.75, "divide_alpha": True}
    window = {"stride": 2, "ceil": True}

    b.conv("conv1", 32, 5, padding=2, init=Normal(0.0001))
    nonlinear("1")
    b.maxpool("pool1", 3, **window)                         # 32 -> 16
    if lrn:
        b.lrn_within("norm1", **norm)
    b.conv("conv2", 32, 5, padding=2, init=Normal(0.01))
    nonlinear("2")
    b.avgpool("pool2", 3, count_pad=False, **window)        # 16 -> 8; padding is not counted
    if lrn:
        b.lrn_within("norm2", **norm)
    b.conv("conv3", 64, 5, padding=2, init=Normal(0.01))
    nonlinear("3")
    b.avgpool("pool3", 3, count_pad=False, **window)        # 8 -> 4
    b.flatten("flatten")                                    # 4 x 4 x 64 = 1024
    b.linear("fc10", num_classes, init=Normal(0.01))
    b.loss("loss")
    net = b.net(seed=seed, device=device, dtype=dtype, values=values)
    return _with_multipliers(net, {"fc10": 250.0})          # wc 1 against .004


def _nonlinearity(b: Builder, activation: str):
    """The builder's method for ReLU or tanh, as a function of the layer's number."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}: expected one of {', '.join(ACTIVATIONS)}")
    add = b.relu if activation == "relu" else b.tanh
    return lambda number: add(f"{activation}{number}")


def _with_multipliers(net: Net, decay: dict[str, float]) -> Net:
    """Set the multipliers: of biases as in all files, of weights by layer."""
    for name, param in net.params.items():
        if name.endswith(".b"):
            param.lr_mult, param.decay_mult = 2.0, 0.0
        else:
            param.decay_mult = decay.get(name.removesuffix(".w"), 1.0)
    return net
