"""Distributed hooks of a network, `net.ranks`; trivial for a single process.

Training calls these for every network, so that the training loop is the same on one rank and on several. The
implementation for several ranks is in minicnn/parallel/net_ranks.py.
"""

from __future__ import annotations

import numpy as np


class SingleProcess:
    """World size 1.   ops: the network's backend."""

    rank, size = 0, 1
    is_main = True              # rank 0: it writes files and prints
    is_split = False            # the network is partitioned: a forward pass involves the other ranks
    has_logits = True           # `net.logits` is available after `net.loss`

    def __init__(self, ops):
        self.ops = ops

    def local_rows(self, batch: int) -> slice:
        """The rows of a batch that this rank processes: all of them."""
        return slice(0, batch)

    def check_equal(self, values: dict) -> None:
        """RankError unless all ranks have the same values."""

    def broadcast(self, value, arrays: dict[str, np.ndarray]) -> tuple:
        """Rank 0's value (JSON-serialisable) and arrays, on every rank."""
        return value, arrays

    def wait_until_saved(self) -> None:
        """A barrier: wait until rank 0 has written its files."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set on any rank."""
        return flags

    def sum(self, numbers: dict[str, float]) -> dict[str, float]:
        """Each number summed over the ranks."""
        return numbers

    def scatter(self, arrays: dict[str, np.ndarray]) -> dict:
        """This rank's shards of full arrays of parameters or state, by name; here the full arrays."""
        return {name: self.ops.from_host(array) for name, array in arrays.items()}

    def gather(self, arrays: dict) -> dict[str, np.ndarray]:
        """The full arrays on rank 0: the inverse of `scatter`."""
        return {name: self.ops.to_host(array) for name, array in arrays.items()}
