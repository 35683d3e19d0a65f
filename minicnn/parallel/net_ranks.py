"""The distributed hooks of a network trained on several ranks; minicnn/ranks.py documents the interface."""

from __future__ import annotations

import zlib

import numpy as np

from minicnn.errors import ConfigError
from minicnn.parallel.comm import SAVE_TIMEOUT
from minicnn.parallel.sharding import slices, width
from minicnn.ranks import SingleProcess


class NetRanks(SingleProcess):
    """The hooks of a ParallelNet, `net`."""

    is_split = True

    def __init__(self, net):
        super().__init__(net.ops)
        self.net, self.comm = net, net.comm
        self.rank, self.size = self.comm.rank, self.comm.size
        self.is_main = self.rank == 0
        self.has_logits = net.by_rows or self.is_main

    def local_batch(self, batch: int) -> int:
        """Number of images of a batch that this rank processes; ConfigError unless the ranks divide the batch."""
        if not self.net.by_rows:
            return batch
        if batch % self.comm.size:
            near = batch - batch % self.comm.size or self.comm.size
            raise ConfigError(f"{self.comm.size} ranks do not divide a batch of {batch} images; choose a "
                              f"multiple of {self.comm.size}, such as {near}")
        return batch // self.comm.size

    def local_rows(self, batch: int) -> slice:
        """The rows of a batch that this rank processes."""
        count = self.local_batch(batch)
        return slice(self.comm.rank * count, (self.comm.rank + 1) * count) if self.net.by_rows else slice(0, batch)

    def check_equal(self, values: dict) -> None:
        self.comm.check_equal(values)

    def broadcast(self, value, arrays):
        return self.comm.broadcast_object(value, arrays)

    def wait_until_saved(self) -> None:
        with self.comm.min_timeout(SAVE_TIMEOUT):
            self.comm.barrier("checkpoint")

    def any(self, *flags: bool) -> tuple[bool, ...]:
        return tuple(self.comm.all_gather_values([float(flag) for flag in flags], "agreement").any(axis=0).tolist())

    def sum(self, numbers: dict[str, float]) -> dict[str, float]:
        sums = self.comm.all_gather_values(list(numbers.values()), "agreement").sum(axis=0)
        return {name: type(numbers[name])(value) for name, value in zip(numbers, sums.tolist(), strict=True)}

    def scatter(self, arrays: dict[str, np.ndarray]) -> dict:
        parts, held = {}, self.net.arrays()
        for name, array in arrays.items():
            if name in held:
                own, channels = held[name], self.net.partition.channels[name]
                parts[name] = np.empty(own.shape, array.dtype) if channels else array
                for whole, here in slices(channels[self.comm.rank]) if channels else ():
                    parts[name][..., here] = array[..., whole]
                parts[name] = self.ops.from_host(parts[name])
        return parts

    def gather(self, arrays: dict) -> dict[str, np.ndarray]:
        size, rank, result = self.comm.size, self.comm.rank, {}
        shared = [self.ops.to_host(arrays[name]) for name in arrays if name in self.net._replicated]
        self.comm.check_equal({"the weights": checksum(shared)})
        for name, channels in self.net.partition.channels.items():
            if channels is None:
                if rank == 0 and name in arrays:
                    result[name] = self.ops.to_host(arrays[name])
            elif name in arrays:
                own = np.asarray(self.ops.to_host(arrays[name]), order="C")
                full = np.empty(self.net.full_shapes[name], own.dtype) if rank == 0 else own
                parts = [np.empty((*full.shape[:-1], width(here)), own.dtype) if rank == 0 else None
                         for here in channels]

                def place(p, pieces, full=full, channels=channels):
                    for everywhere, here in slices(channels[p]) if pieces else ():
                        full[..., everywhere] = pieces[0][..., here]

                self.comm.exchange("weights", "", [[own] if p == 0 else [] for p in range(size)],
                                   [[part] if rank == 0 else [] for part in parts], place)
                if rank == 0:
                    result[name] = full
        return result


def checksum(arrays) -> int:
    """A checksum of host arrays."""
    found = 0
    for array in arrays:
        found = zlib.crc32(np.ascontiguousarray(array), found)
    return found
