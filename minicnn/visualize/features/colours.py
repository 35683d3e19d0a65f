"""Colour and grey in the two columns of AlexNet, as a number.

Figure 3 of the paper shows that the kernels of conv1 on one GPU are largely colour-agnostic and those on the other
largely colour-specific. Here the colour of a kernel w is the share of its squared weights in which its three colour
planes differ from their mean m:

    colour = |w - m|^2 / |w|^2        0: all planes are equal, grey;   1: the planes add up to 0

and the split is the probability that a random kernel of the more colourful column has more of it than one of the other
(the Mann-Whitney statistic): 0.5 without a split, 1 where every kernel of one exceeds every kernel of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError
from minicnn.layers.conv import Conv2d
from minicnn.visualize.features.layers import predicting


@dataclass(frozen=True)
class Split:
    """layer: the first convolution.   shares: (2, K / 2), the colour of the kernels of each column.   separation: from
    0.5 to 1.   caption: both in words."""

    layer: str
    shares: np.ndarray
    separation: float
    caption: str


def colour_shares(weights: np.ndarray) -> np.ndarray:
    """The colour of each kernel of weights (R, S, 3, K), from 0 to 1: (K,). A kernel of zeros has none."""
    weights = np.asarray(weights, np.float64)
    differing = weights - weights.mean(axis=2, keepdims=True)
    whole = (weights**2).sum(axis=(0, 1, 2))
    return (differing**2).sum(axis=(0, 1, 2)) / np.where(whole > 0, whole, 1)


def colour_split(net) -> Split:
    """How much colour each column has. ConfigError for a network without two columns on colour images."""
    convolutions = [node for node in predicting(net) if isinstance(node.layer, Conv2d)]
    if len(convolutions) < 2 or convolutions[1].layer.groups != 2 or net.input_shape[-1] != 3:
        raise ConfigError(f"network {net.name!r} has no two columns: its second convolution has no two groups that "
                          "halve the first one's kernels on colour images; the paper's AlexNet has: alexnet")
    first = convolutions[0].name
    shares = colour_shares(net.ops.to_host(net.params[f"{first}.w"].data)).reshape(2, -1)
    separation = separated(*shares)
    means, edge = shares.mean(axis=1), random_separations(shares.shape[1])
    return Split(first, shares, separation,
                 f"Colour of a kernel of {first}: the share of its squared weights in which its three colour planes "
                 f"differ from their mean. Mean of the first column {means[0]:.3f}, of the second {means[1]:.3f}. "
                 f"A kernel of the more colourful column has more of it than one of the other with probability "
                 f"{separation:.2f} (0.50: no split, 1.00: complete; 95 % of random splits are below {edge:.2f}).")


def separated(one: np.ndarray, other: np.ndarray) -> float:
    """The probability that an element of the larger set exceeds one of the other; ties count half. From 0.5 to 1."""
    above = np.mean((one[:, None] > other) + 0.5 * (one[:, None] == other))
    return float(max(above, 1 - above))


def random_separations(half: int, draws: int = 2000, share: float = 0.95) -> float:
    """What this share of random splits into two halves stays below."""
    order = np.argsort(np.random.default_rng(0).random((draws, 2 * half)), axis=1)[:, :half]
    above = (order.sum(axis=1) - half * (half - 1) / 2) / half**2
    return float(np.quantile(np.maximum(above, 1 - above), share))
