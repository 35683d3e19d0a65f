"""Batch normalisation over the batches of all ranks: what `BatchNorm2d(sync=True)` becomes in data parallel training.

    forward    mean_r, var_r of each rank's values -> mean = mean of mean_r,  var = mean of var_r + (mean_r - mean)^2
    backward   the sums of dz and of dz (x - mean) are added up over the ranks

Every rank has equally many values. The gradients of w and b remain the rank's own: they are summed with all others.
"""

from __future__ import annotations

from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.parallel.comm import Comm


class SyncBatchNorm2d(BatchNorm2d):
    """The same layer on one of several ranks. `point`: its name, for the ledger of what is exchanged."""

    capturable = False

    def __init__(self, comm: Comm, point: str, layer: BatchNorm2d):
        super().__init__(**layer.options())
        self.comm, self.point, self.multipliers = comm, point, layer.multipliers

    def _combined_statistics(self, ctx, mean, var, count: int) -> int:
        own, of_ranks = (ctx.ops.empty((*size, 2, len(mean)), "float64") for size in ((), (self.comm.size,)))
        own[0], own[1] = mean, var
        self.comm.all_gather(own, of_ranks, self.point)
        mean[...] = of_ranks[:, 0].mean(axis=0)
        var[...] = (of_ranks[:, 1] + (of_ranks[:, 0] - mean) ** 2).mean(axis=0)
        return count * self.comm.size

    def _combined_sums(self, ctx, sums, count: int) -> int:
        self.comm.all_reduce([sums], self.point)
        return count * self.comm.size


def synchronised(layer, comm: Comm, point: str):
    """The layer as a rank computes it for its own images; `layer` itself, unless it is to be synchronised."""
    return SyncBatchNorm2d(comm, point, layer) if getattr(layer, "sync", False) else layer
