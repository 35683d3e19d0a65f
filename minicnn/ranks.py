"""Distributed hooks of a network, which are trivial for a single process: `net.ranks`.

Training asks these of every network, so that its loop is the same on one rank and on several. Those of several ranks
are in minicnn/parallel/net_ranks.py.
"""

from __future__ import annotations

import numpy as np


class SingleProcess:
    """The only rank.   ops: the network's backend."""

    rank, size = 0, 1
    is_main = True              # rank 0: it writes files and prints
    is_split = False            # a forward pass needs the other ranks
    has_logits = True           # `net.logits` can be asked for after `net.loss`

    def __init__(self, ops):
        self.ops = ops

    def local_rows(self, batch: int) -> slice:
        """Which images of a batch the loader gives to this rank: all of them."""
        return slice(0, batch)

    def check_equal(self, values: dict) -> None:
        """RankError where the ranks do not hold the same values."""

    def broadcast(self, value, arrays: dict[str, np.ndarray]) -> tuple:
        """Rank 0's value (anything that JSON can hold) and arrays, on every rank."""
        return value, arrays

    def wait_until_saved(self) -> None:
        """Returns when rank 0 has come here, too, from writing files."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether it is set on any rank."""
        return flags

    def sum(self, numbers: dict[str, float]) -> dict[str, float]:
        """The sum over the ranks of each number."""
        return numbers

    def scatter(self, arrays: dict[str, np.ndarray]) -> dict:
        """What this rank holds of arrays that belong to parameters or state, by their names: all of it."""
        return {name: self.ops.from_host(array) for name, array in arrays.items()}

    def gather(self, arrays: dict) -> dict[str, np.ndarray]:
        """The inverse of `scatter`, on rank 0."""
        return {name: self.ops.to_host(array) for name, array in arrays.items()}
