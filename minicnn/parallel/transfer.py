"""Where ranks meet: a layer that computes nothing and moves an array from who has it to who wants it.

    forward    every rank gets the rows and channels that it wants from those that have them
    backward   the reverse: the gradients of one value, from everyone who had a copy of it, are added up at its holder

If each rank has some channels and wants all, this is an all-gather, and its backward a reduce-scatter: what the paper's
conv3 and fc6 to fc8 need. If it wants its own and two more on each side, it is the halo of an LRN across ranks; if only
rank 0 wants anything, it is how fc8 gets its input. The sums run in the order of the ranks.
"""

from __future__ import annotations

from math import prod

import numpy as np

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, LayerPlan
from minicnn.parallel.comm import Comm
from minicnn.parallel.sharding import Ranges, Share, common, slices, width


class Transfer(Layer):
    """From `have` to `want`, both a Share for every rank. `point`: the layer it stands in front of."""

    def __init__(self, comm: Comm, point: str, have: list[Share], want: list[Share]):
        super().__init__()
        self.comm, self.point, self.have, self.want = comm, point, list(have), list(want)

    def plan(self, in_shapes, dtype, ops):
        (shape,), have, want = in_shapes, self.have[self.comm.rank], self.want[self.comm.rank]
        if shape[-1] != have.width:
            raise ShapeError(f"the transfer to {self.point} expects {have.width} channels, got {shape[-1]}")
        return LayerPlan((self._all_rows(shape[0]) // (self.comm.size if want.rows == "own" else 1), *shape[1:-1],
                          want.width))

    def forward(self, ctx, xs, y, saved):
        self._move("forward", xs[0], y, self.have, self.want, adds=False)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            self._move("backward", dy, dxs[0], self.want, self.have, adds=True)

    def _all_rows(self, rows: int) -> int:
        return rows * (self.comm.size if self.have[self.comm.rank].rows == "own" else 1)

    def _move(self, direction, source, target, have, want, adds):
        comm, rank = self.comm, self.comm.rank
        X, Y = _matrix(source), _matrix(target)                             # (rows, channels)
        rows = len(X) * (comm.size if have[rank].rows == "own" else 1)
        sends = [[X[here] for here, _ in common(have[rank], rank, want[p], p, rows, comm.size)]
                 for p in range(comm.size)]
        receives = [[Y[there] for _, there in common(have[p], p, want[rank], rank, rows, comm.size)]
                    for p in range(comm.size)]
        first = next((p for p in range(comm.size) if receives[p]), None)
        fills = first is not None and sum(part.size for part in receives[first]) == Y.size
        if adds and not fills:
            Y[...] = 0

        def consume(p, pieces):
            for part, piece in zip(receives[p], pieces, strict=True):
                if adds and not (fills and p == first):
                    part += piece
                else:
                    part[...] = piece

        comm.exchange(self.point, direction, sends, receives, consume)

    def traffic(self, shape, itemsize: int) -> dict[tuple[int, int], int]:
        """Bytes from each rank to each other in a forward pass, for one rank's array of this shape; back the same."""
        rows = prod(shape[:-1]) * (self.comm.size if self.have[self.comm.rank].rows == "own" else 1)
        crossing = {}
        for of in range(self.comm.size):
            for to in range(self.comm.size):
                places = common(self.have[of], of, self.want[to], to, rows, self.comm.size)
                if of != to and places:
                    crossing[of, to] = itemsize * sum((r.stop - r.start) * (c.stop - c.start) for (r, c), _ in places)
        return crossing

    def describe(self):
        have, want = self.have[self.comm.rank], self.want[self.comm.rank]
        return f"to {self.point}: {have.width} of {have.rows} -> {want.width} of {want.rows} rows"


class HandOver(Transfer):
    """The same on a rank that hands its part over and has nothing to do behind it: where its graph ends.

    It passes for a loss of weight 0, so that the network begins its backward pass here: with what comes back.
    """

    is_loss = True

    def __init__(self, comm: Comm, point: str, have: list[Share], want: list[Share], train_only: bool):
        super().__init__(comm, point, have, want)
        self.weight, self.train_only = 0.0, train_only

    def plan(self, in_shapes, dtype, ops):
        super().plan(in_shapes, dtype, ops)
        return LayerPlan((in_shapes[0][0],))

    def forward(self, ctx, xs, y, saved):
        y[...] = 0
        self._move("forward", xs[0], self._nothing(ctx, xs[0].shape, xs[0].dtype), self.have, self.want, adds=False)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            nothing = self._nothing(ctx, dxs[0].shape, dxs[0].dtype)
            self._move("backward", nothing, dxs[0], self.want, self.have, adds=True)

    @staticmethod
    def _nothing(ctx, shape, dtype):
        return ctx.ops.empty((*shape[:-1], 0), dtype)


class Take(Layer):
    """Some channels of what the rank already holds."""

    def __init__(self, channels: Ranges):
        super().__init__()
        self.channels = channels

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan((*in_shapes[0][:-1], width(self.channels)))

    def forward(self, ctx, xs, y, saved):
        for whole, own in slices(self.channels):
            y[..., own] = xs[0][..., whole]

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            dxs[0][...] = 0
            for whole, own in slices(self.channels):
                dxs[0][..., whole] = dy[..., own]

    def describe(self):
        return f"{width(self.channels)} channels"


class SplitDropout(Layer):
    """Dropout of some channels of an array, with the random numbers that these have in the unsplit one.

    layer: the unsplit Dropout.   shape: of one image in the unsplit array.   sample_ids(): those of the rows.
    """

    in_place = True

    def __init__(self, layer, shape: tuple[int, ...], channels: Ranges, sample_ids):
        super().__init__()
        self.layer, self.shape, self.channels, self.sample_ids = layer, tuple(shape), channels, sample_ids

    def plan(self, in_shapes, dtype, ops):
        shape = tuple(in_shapes[0])
        return LayerPlan(shape, work=shape[0] * prod(self.shape) * np.dtype(dtype).itemsize)

    def forward(self, ctx, xs, y, saved):
        if ctx.train:
            self._drop(ctx, ctx.ops.dropout_forward, xs[0], y)
        else:
            self.layer.forward(ctx, xs, y, saved)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is None:
            return
        if ctx.train:
            self._drop(ctx, ctx.ops.dropout_backward, dy, dxs[0])
        else:
            self.layer.backward(ctx, dy, saved, dxs)

    def _drop(self, ctx, operation, source, target):
        """Put the channels in their places in the unsplit array, draw there, and take them out again."""
        shape = (len(source), *self.shape)
        whole = ctx.work[:prod(shape) * source.itemsize].view(source.dtype).reshape(shape)
        whole[...] = 0
        for place, own in slices(self.channels):
            whole[..., place] = source[..., own]
        operation(whole, whole, **{**self.layer.draw(ctx), "sample_ids": self.sample_ids()})
        for place, own in slices(self.channels):
            target[..., own] = whole[..., place]

    def describe(self):
        return f"{self.layer.describe()}, {width(self.channels)} of {self.shape[-1]} channels"


def _matrix(array):
    """(rows, channels) of the same memory."""
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])
