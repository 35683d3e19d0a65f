"""Arrays on GPUs that pass from rank to rank (interconnect.py). Ranks may share a GPU, each on a stream of its own."""

from __future__ import annotations

import numpy as np

from minicnn.backend.interconnect import Interconnect


class CupyInterconnect(Interconnect):
    """Arrays on GPU number `gpu`.   cupy: the module."""

    def __init__(self, cupy, gpu: int):
        self.cupy, self.gpu = cupy, gpu
        self._streams: list = []                            # in use by threads, which keep no reference themselves

    def settle(self) -> None:
        self.cupy.cuda.Device(self.gpu).use()
        stream = self.cupy.cuda.Stream(non_blocking=True)
        self._streams.append(stream)
        stream.use()

    def record_event(self):
        event = self.cupy.cuda.Event(disable_timing=True)
        event.record()
        return event

    def after(self, event) -> None:
        self.cupy.cuda.get_current_stream().wait_event(event)

    def synchronize(self) -> None:
        self.cupy.cuda.get_current_stream().synchronize()

    def fetch(self, array):
        if self.is_on_host(array) or array.device.id == self.gpu:
            return array
        with array.device:                                  # whose default stream does not wait for this rank's
            whole = self.cupy.ascontiguousarray(array)
            self.synchronize()
        copy = whole.copy()                                 # CuPy copies to the current GPU
        self.synchronize()                                  # before `whole` goes back to where it is from
        return copy

    @property
    def name(self) -> str:
        return self.cupy.cuda.runtime.deviceGetPCIBusId(self.gpu)

    def memory(self, nbytes: int) -> np.ndarray:
        """Pinned: the copies to and from it need no detour."""
        if not nbytes:
            return np.empty(0, np.uint8)
        return np.frombuffer(self.cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)

    def is_on_host(self, array) -> bool:
        return isinstance(array, np.ndarray)

    def to_host(self, array, target: np.ndarray) -> None:
        if self.is_on_host(array):
            target[...] = array
        elif array.size:
            self.cupy.ascontiguousarray(array).get(out=target)

    def from_host(self, array: np.ndarray):
        return self.cupy.asarray(array)
