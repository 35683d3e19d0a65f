"""Resharding between ranks: all-gather forward, reduce-scatter backward, halo exchange.

    forward    every rank receives the rows and channels of its target shard from the ranks that have them
    backward   the transpose: the gradients of all copies of a value are summed on the rank that sent it

If each rank has some channels and the target is all of them, this is an all-gather, and its backward a reduce-scatter:
the paper's conv3 and fc6 to fc8 need it. If the target is the rank's channels and two more on each side, it is the halo
exchange of an LRN across ranks; if only rank 0 has a target, it is a gather, for the input of fc8. Sums are in rank
order.
"""

from __future__ import annotations

from math import prod

import numpy as np

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, LayerPlan
from minicnn.parallel.comm import Comm
from minicnn.parallel.sharding import Ranges, Shard, overlap, slices, width


class Transfer(Layer):
    """From `have` to `want`, each a list of Shards, one per rank. `point`: the layer that reads the result."""

    def __init__(self, comm: Comm, point: str, have: list[Shard], want: list[Shard]):
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
        sends = [[X[here] for here, _ in overlap(have[rank], rank, want[p], p, rows, comm.size)]
                 for p in range(comm.size)]
        receives = [[Y[there] for _, there in overlap(have[p], p, want[rank], rank, rows, comm.size)]
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
        """Bytes for each pair of ranks in a forward pass, given the shape of one rank's array; backward: the same."""
        rows = prod(shape[:-1]) * (self.comm.size if self.have[self.comm.rank].rows == "own" else 1)
        crossing = {}
        for of in range(self.comm.size):
            for to in range(self.comm.size):
                places = overlap(self.have[of], of, self.want[to], to, rows, self.comm.size)
                if of != to and places:
                    crossing[of, to] = itemsize * sum((r.stop - r.start) * (c.stop - c.start) for (r, c), _ in places)
        return crossing

    def describe(self):
        have, want = self.have[self.comm.rank], self.want[self.comm.rank]
        return f"for {self.point}: {have.width} channels of {have.rows} rows -> {want.width} of {want.rows} rows"


class SendToRoot(Transfer):
    """A Transfer on a rank that only sends: the end of its graph.

    It is marked is_loss with weight 0, so that the backward pass starts here, with the gradient received from rank 0.
    """

    is_loss = True

    def __init__(self, comm: Comm, point: str, have: list[Shard], want: list[Shard], train_only: bool):
        super().__init__(comm, point, have, want)
        self.weight, self.train_only = 0.0, train_only

    def plan(self, in_shapes, dtype, ops):
        super().plan(in_shapes, dtype, ops)
        return LayerPlan((in_shapes[0][0],))

    def forward(self, ctx, xs, y, saved):
        y[...] = 0
        self._move("forward", xs[0], self._empty(ctx, xs[0].shape, xs[0].dtype), self.have, self.want, adds=False)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            empty = self._empty(ctx, dxs[0].shape, dxs[0].dtype)
            self._move("backward", empty, dxs[0], self.want, self.have, adds=True)

    @staticmethod
    def _empty(ctx, shape, dtype):
        return ctx.ops.empty((*shape[:-1], 0), dtype)


class SelectChannels(Layer):
    """Some channels of an array that the rank already has."""

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
    """Dropout of some channels of an array, with the same random numbers as in the unsharded array.

    layer: the unsharded Dropout.   shape: of one image in the unsharded array.   sample_ids(): the ids of the rows.
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
        """Scatter the channels into the unsharded array, apply dropout there, and gather them again."""
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
    """A view as (rows, channels)."""
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])
