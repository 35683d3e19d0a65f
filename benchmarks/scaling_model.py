"""What a training step of AlexNet costs on n ranks: a model with few parameters, for the three parallel schemes.

    seconds_per_image   forward and backward of one image on one rank       sgd      seconds to update all weights
    latency, bandwidth  of a message between two ranks: latency + bytes / bandwidth
    overlap             of the backward pass, the part that the exchange of gradients can overlap with

Each rank does its share of the multiply-adds, and sends what the transfer nodes move (minicnn/parallel/transfer.py):

    columns   n ranks share one batch. Before conv3, fc6 and fc7 each receives (n - 1)/n of the activations, and back
              their gradients; before fc8, rank 0 alone. None of it overlaps with computing. More than two
              also exchange before conv2, conv4 and conv5, each with the ranks of its own half (and at LRN, for a few
              channels, which are not counted). 32 ranks at most: they must divide 96, 256 and 384 kernels
    data      each rank has its own images; 2 (n - 1)/n of all gradients are exchanged during the backward pass
    hybrid    data for the convolutions and fc8; before fc6, fc7 and fc8 activations are exchanged, and gradients back
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOAT = 4                                               # bytes
SCHEMES = ("columns", "data", "hybrid")
CONV, FC = 2_332_704 + 1_376, 58_621_952 + 9_192       # parameters with biases; fc8's are within FC
FC8 = 4_096_000 + 1_000
MACS = {"conv": 665.8e6, "fc": 54.5e6, "fc8": 4.1e6}    # an image
CROSSING = {"conv3": 13 * 13 * 256, "fc6": 9216, "fc7": 4096, "fc8": 4096}      # activations an image
WITHIN_HALVES = {"conv2": 27 * 27 * 96, "conv4": 13 * 13 * 384, "conv5": 13 * 13 * 384}
MOST_COLUMNS = 32


@dataclass(frozen=True)
class Machine:
    """The parameters of the model."""

    seconds_per_image: float
    latency: float
    bandwidth: float
    overlap: float
    sgd: float

    def message(self, nbytes: float) -> float:
        return self.latency + nbytes / self.bandwidth

    def gradients(self, parameters: int, n: int) -> float:
        """Every rank sums 1/n of them and sends its part to all."""
        return 2 * (n - 1) * self.message(FLOAT * parameters / n) if n > 1 else 0.0


def step(machine: Machine, scheme: str, n: int, images: int) -> float:
    """Seconds of a training step with `images` images in all on n ranks; NaN if there are too many ranks."""
    total = sum(MACS.values())
    conv, fc, fc8 = (images * machine.seconds_per_image * MACS[part] / total for part in ("conv", "fc", "fc8"))
    if scheme == "columns":
        if n > MOST_COLUMNS:
            return math.nan
        exchange = sum(2 * max(0, n // 2 - 1) * machine.message(FLOAT * images * size / n)
                   for size in WITHIN_HALVES.values())
        exchange += sum(2 * (n - 1) * machine.message(FLOAT * images * CROSSING[point] / n)
                   for point in ("conv3", "fc6", "fc7"))
        last = 2 * (n - 1) * machine.message(FLOAT * images * CROSSING["fc8"] / n)
        return (conv + fc) / n + fc8 + exchange + last + machine.sgd * ((CONV + FC - FC8) / n + FC8) / (CONV + FC)
    compute = (conv + fc + fc8) / n
    behind = machine.overlap * compute * 2 / 3              # the backward pass is two thirds of a step
    if scheme == "data":
        return compute + max(0.0, machine.gradients(CONV + FC, n) - behind) + machine.sgd
    each = images / n
    exchange = 2 * (n - 1) * machine.message(FLOAT * each * CROSSING["fc6"])
    exchange += sum(2 * (n - 1) * machine.message(FLOAT * each * CROSSING[point] / (1 if point == "fc7" else n))
                for point in ("fc7", "fc8"))
    own = (CONV + FC8 + (FC - FC8) / n) / (CONV + FC)
    return compute + exchange + max(0.0, machine.gradients(CONV + FC8, n) - behind) + machine.sgd * own


def efficiency(machine: Machine, scheme: str, n: int, images: int) -> float:
    """Images a second of n ranks with `images` in all, over n times those of one rank.

    The one rank has all of these images with columns, which split one batch, and else the part that each rank has.
    """
    alone = images if scheme == "columns" else images // n
    rate = alone / step(machine, "data", 1, alone)
    return images / step(machine, scheme, n, images) / (n * rate)
