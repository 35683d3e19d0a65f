"""Passing arrays between ranks: what minicnn/parallel needs from a backend.

On the host every thread can read every array, and its bytes can be sent as they are: there is nothing to do. On a GPU
each rank has a stream of its own, so a rank must wait until another rank's stream has computed an array, and messages
go through host memory unless the GPUs can access each other (cuda/streams.py).
"""

from __future__ import annotations

import numpy as np


class Interconnect:
    """Arrays of the host."""

    gpu: int | None = None              # index of the GPU that holds the arrays
    name: str | None = None             # and its name, the same in every process of this machine

    def settle(self) -> None:
        """Prepare the calling thread: from now on it computes with such arrays."""

    def record_event(self):
        """An event after everything that the calling thread has queued so far, for `after`."""

    def after(self, event) -> None:
        """Whatever the calling thread queues from now on waits for `event`, which another thread recorded."""

    def synchronize(self) -> None:
        """Wait until everything that the calling thread has queued is done."""

    def fetch(self, array):
        """An array of another rank of this process, on this rank's device."""
        return array

    def memory(self, nbytes: int) -> np.ndarray:
        """Host memory for messages, uint8."""
        return np.empty(nbytes, np.uint8)

    def is_on_host(self, array) -> bool:
        """Whether its bytes can be sent without a copy."""
        return True

    def to_host(self, array, target: np.ndarray) -> None:
        """Copy an array to host memory of its shape and type; complete on return."""
        target[...] = array

    def from_host(self, array: np.ndarray):
        """An array of a message, on this rank's device."""
        return array
