"""What a name stands for while a graph is lowered: a node of ours with the source's shape, or something unfinished.

The source counts axes in its own order: `shape` is logical, (N, C, H, W). Our arrays are channels-last: `order` says
which logical axis each of our axes is. No array is transposed for that; the tag goes along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minicnn.interop.graph.neutral import Op
from minicnn.interop.layout import row_order

NHWC = (0, 2, 3, 1)             # our axes of an image whose logical axes are N, C, H, W
BATCH = 7919                    # stands for a batch that is not fixed: a prime that no other size equals
Pads = tuple[int, int, int, int]
Block = tuple[int, int, int]


@dataclass(frozen=True)
class Value:
    """The output of one of our nodes.

    blocks: of flattened maps, (C, H, W) one after the other: our features lie in the order H, W, C of each, the
    source's in the order C, H, W; None where both agree.   before: what was flattened, so that it can be undone.
    """

    node: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    blocks: tuple[Block, ...] | None = None
    before: Value | None = None

    @property
    def is_image(self) -> bool:
        """Whether it is (N, C, H, W) to the source, and (N, H, W, C) here."""
        return len(self.shape) == 4 and self.order == NHWC

    @property
    def channel_axis(self) -> int:
        """The logical axis that is our last one."""
        return self.order[-1]

    def rows(self) -> np.ndarray | None:
        """Of flattened maps: our feature i is the source's feature rows[i]; None where both agree."""
        if self.blocks is None:
            return None
        return row_order(self.blocks)

    def as_node(self, node: str) -> Value:
        """The same axes at another node."""
        return replace(self, node=node, before=None)


@dataclass(frozen=True)
class Padded:
    """A value with a border of zeros, which the next convolution or pooling takes as its padding."""

    value: Value
    pads: Pads

    @property
    def shape(self) -> tuple[int, ...]:
        N, C, H, W = self.value.shape
        top, left, bottom, right = self.pads
        return N, C, H + top + bottom, W + left + right


@dataclass(frozen=True)
class Pooled:
    """The mean over all pixels, (N, C, 1, 1) to the source: a layer once it is known who reads it."""

    value: Value
    op: Op

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.value.shape[:2], 1, 1


@dataclass(frozen=True)
class Part:
    """Channels [begin, end) of a value, and what was done to them.   squeezed: their axis is gone (a single one)."""

    value: Value
    begin: int
    end: int
    shape: tuple[int, ...]
    steps: tuple = ()
    squeezed: bool = False


@dataclass(frozen=True)
class Squares:
    """k + alpha * (a mean over neighbours of x^2), to a power: the formula of response normalisation, as it grows.

    shape: of the array as the source has it by now, whose axes of size 1 come and go; `channels`, which of these is the
    channel axis.   window: (channels, height, width) of the mean.   pads: zeros before and after the channels.
    """

    value: Value
    shape: tuple[int, ...]
    channels: int
    window: tuple[int, int, int] = (1, 1, 1)
    pads: tuple[int, int] = (0, 0)
    alpha: float = 1.0
    k: float | None = None
    beta: float | None = None

