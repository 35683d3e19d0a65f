"""Passing arrays on GPUs between ranks (interconnect.py). Ranks may share a GPU, each with a stream of its own."""

from __future__ import annotations

import numpy as np

from minicnn.backend.interconnect import Interconnect


class CupyInterconnect(Interconnect):
    """Arrays on the GPU with index `gpu`.   cupy: the module."""

    def __init__(self, cupy, gpu: int):
        self.cupy, self.gpu = cupy, gpu
        self._streams: list = []                            # of threads, which hold no reference themselves

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
        self.synchronize()                                  # before the memory of `whole` is freed
        return copy

    @property
    def name(self) -> str:
        return self.cupy.cuda.runtime.deviceGetPCIBusId(self.gpu)

    def memory(self, nbytes: int) -> np.ndarray:
        """Pinned: copies to and from it need no intermediate buffer."""
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
