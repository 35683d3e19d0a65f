"""airbench93 and airbench94: Keller Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498).

For images (N, 32, 32, 3), from KellerJordan/cifar10-airbench: airbench/lib_airbench93.py and legacy/airbench94.py:

    whiten     2 x 2, 24, no padding; fixed by its recipes: eigenvectors of patches (train/whiten.py). Bias, GELU  31
    block1     3 x 3, 64; 2 x 2 max-pooling; batch norm; GELU; 3 x 3, 64; batch norm; GELU                       15
    block2     the same with 128 (airbench94: 256)                                                                7
    block3     the same with 128 (airbench94: 256)                                                                3
    3 x 3 max-pooling, linear layer without bias, its outputs times 1/9

Convolutions of the blocks have no bias, and pass their inputs on at first (Dirac). Batch normalisation has no scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from minicnn.builder import Builder
from minicnn.graph import Net
from minicnn.init import Dirac, Uniform
from minicnn.models import knobs as variants_of


@dataclass(frozen=True)
class Knobs:
    """The options of airbench."""

    input_size: int = 32
    widths: tuple[int, ...] = (64, 128, 128)                # of the blocks
    whiten: int = 2                                         # side of the first convolution's kernels
    momentum: float = 0.4                                   # of the running statistics; they print 0.6 for the rest
    eps: float = 1e-12
    logit_factor: float = 1 / 9
    label_smoothing: float = 0.2


VARIANTS: dict[str, Knobs] = {"93": Knobs(), "94": replace(Knobs(), widths=(64, 256, 256))}


def airbench(variant: str = "93", num_classes: int = 10, seed: int = 0, device: str = "auto", dtype: str = "float32", *,
             values: Mapping[str, np.ndarray] | None = None, **changes) -> Net:
    """airbench for images (N, 32, 32, 3) of a mean of 0 and a standard deviation of 1; logits (N, num_classes).

    The first convolution is as drawn until `whiten` has set it; its own recipes do not train it then.
    variant: "93" or "94".   changes: see Knobs. ShapeError naming the layer for which the image is too small.
    """
    known = variants_of.knobs_of("airbench", VARIANTS, variant, **changes)
    b = Builder((known.input_size, known.input_size, 3), name=f"airbench{variant}")
    b.conv("whiten", 2 * 3 * known.whiten**2, known.whiten, init=Dirac())
    b.gelu("whiten_gelu")
    for number, width in enumerate(known.widths, start=1):
        _block(b, f"block{number}", width, known)
    b.maxpool("pool", 3)
    b.flatten("flatten")
    b.linear("fc", num_classes, bias=False, init=Uniform(b.shape()[-1] ** -0.5))
    b.multiply("logits", known.logit_factor)
    b.loss("loss", label_smoothing=known.label_smoothing)
    return b.net(seed=seed, device=device, dtype=dtype, values=values)


def _block(b: Builder, name: str, width: int, known: Knobs) -> None:
    for number in (1, 2):
        b.conv(f"{name}_conv{number}", width, 3, padding=1, bias=False, init=Dirac())
        if number == 1:
            b.maxpool(f"{name}_pool", 2, stride=2)
        b.batchnorm(f"{name}_bn{number}", scale=False, eps=known.eps, momentum=known.momentum)
        b.gelu(f"{name}_gelu{number}")


airbench93, airbench94 = partial(airbench, "93"), partial(airbench, "94")
