"""Copies of image batches to a GPU while it still computes with the batches before.

An upload goes through pinned memory, which the copy engine reads without the host, on a stream of its own. Three
buffers take turns: one that is being computed with, one that is being copied, one that the host writes. An uploaded
array is valid for everything launched before the next upload. Batches of photographs that keep their aspect differ in
size, and are flat: a buffer for them has some room.
"""

from __future__ import annotations

import numpy as np

BUFFERS = 3
ROOM = 1.25                    # of a buffer for flat arrays: times the size of the first


class _Buffer:
    """Memory for a batch like `array`, on the host and on the GPU."""

    def __init__(self, cupy, array: np.ndarray):
        dtype, shape = array.dtype, array.shape if array.ndim > 1 else (int(ROOM * array.size),)
        self.bytes = cupy.cuda.alloc_pinned_memory(max(1, int(np.prod(shape)) * dtype.itemsize))
        self.host = np.frombuffer(self.bytes, dtype, int(np.prod(shape))).reshape(shape)
        self.device = cupy.empty(shape, dtype)
        self.copied, self.used = (cupy.cuda.Event(block=True, disable_timing=True) for _ in range(2))

    def fits(self, array: np.ndarray) -> bool:
        """Whether it is for arrays of this shape, or flat and large enough."""
        flat = array.ndim == self.host.ndim == 1 and array.size <= self.host.size
        return (flat or array.shape == self.host.shape) and array.dtype == self.host.dtype


class Uploads:
    """cupy: the module. One object for each stream that computes."""

    def __init__(self, cupy):
        self._cupy, self._stream = cupy, cupy.cuda.Stream(non_blocking=True)
        self._buffers: list[_Buffer] = []
        self._last: _Buffer | None = None

    def __call__(self, array: np.ndarray):
        """A copy on the GPU, for kernels launched on the current stream from now on."""
        stream = self._cupy.cuda.get_current_stream()
        if self._last is not None:
            self._last.used.record(stream)                          # by everything launched until now
        buffer = self._free_buffer(array)
        host, device = buffer.host, buffer.device
        if array.ndim == 1:
            host, device = host[:array.size], device[:array.size]
        np.copyto(host, array)
        device.set(host, stream=self._stream)
        buffer.copied.record(self._stream)
        stream.wait_event(buffer.copied)
        self._last = buffer
        self._buffers.append(buffer)
        return device

    def _free_buffer(self, array: np.ndarray) -> _Buffer:
        """The buffer used longest ago, once the GPU is done with it; a new one if the array does not fit."""
        if len(self._buffers) < BUFFERS:
            return self._new_buffer(array)
        buffer = self._buffers.pop(0)
        buffer.used.synchronize()
        if not buffer.fits(array):
            return self._new_buffer(array)
        return buffer

    def _new_buffer(self, array: np.ndarray) -> _Buffer:
        buffer = _Buffer(self._cupy, array)
        # its memory may have belonged to an array that the GPU still uses
        self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
        return buffer
