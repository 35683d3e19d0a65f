"""How arrays pass from one rank to another: what minicnn/parallel asks of a backend.

On the host any thread may read any array, and a message is made of its bytes: nothing to do. On a GPU each rank works
on a stream of its own, so what it has been given is there only when that stream has come so far, and messages go
through host memory unless the GPUs speak to each other (cuda/streams.py).
"""

from __future__ import annotations

import numpy as np


class Interconnect:
    """Arrays of the host."""

    gpu: int | None = None              # number of the GPU that the arrays are on
    name: str | None = None             # and what it is called by every process of this machine

    def settle(self) -> None:
        """The calling thread works with such arrays from here on."""

    def record_event(self):
        """Where the calling thread's work stands now, for `after`."""

    def after(self, event) -> None:
        """What the calling thread does from here on comes after `mark`, which another thread made."""

    def synchronize(self) -> None:
        """Wait until what the calling thread has asked for is done."""

    def fetch(self, array):
        """Another rank's array, of the same process, where this rank can compute with it."""
        return array

    def memory(self, nbytes: int) -> np.ndarray:
        """Host memory for messages, uint8."""
        return np.empty(nbytes, np.uint8)

    def is_on_host(self, array) -> bool:
        """Whether its bytes can be sent as they lie."""
        return True

    def to_host(self, array, target: np.ndarray) -> None:
        """Copy an array to host memory of its shape and type; it is there on return."""
        target[...] = array

    def from_host(self, array: np.ndarray):
        """An array of a message, where this rank can compute with it."""
        return array
