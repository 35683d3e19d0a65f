"""Copies of image batches to a GPU while it still computes with the batches before.

An upload goes through pinned memory, which the copy engine reads without the host, on a stream of its own. Three
buffers take turns: one that is being computed with, one that is being copied, one that the host writes. An uploaded
array is valid for everything launched before the next upload.
"""

from __future__ import annotations

import numpy as np

BUFFERS = 3


class _Buffer:
    """Memory for one batch, on the host and on the GPU."""

    def __init__(self, cupy, shape: tuple[int, ...], dtype: np.dtype):
        self.bytes = cupy.cuda.alloc_pinned_memory(max(1, int(np.prod(shape)) * dtype.itemsize))
        self.host = np.frombuffer(self.bytes, dtype, int(np.prod(shape))).reshape(shape)
        self.device = cupy.empty(shape, dtype)
        self.copied, self.used = (cupy.cuda.Event(block=True, disable_timing=True) for _ in range(2))


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
        np.copyto(buffer.host, array)
        buffer.device.set(buffer.host, stream=self._stream)
        buffer.copied.record(self._stream)
        stream.wait_event(buffer.copied)
        self._last = buffer
        self._buffers.append(buffer)
        return buffer.device

    def _free_buffer(self, array: np.ndarray) -> _Buffer:
        """The buffer used longest ago, once the GPU is done with it; a new one if its shape differs."""
        if len(self._buffers) < BUFFERS:
            return self._new_buffer(array)
        buffer = self._buffers.pop(0)
        buffer.used.synchronize()
        if (buffer.host.shape, buffer.host.dtype) != (array.shape, array.dtype):
            return self._new_buffer(array)
        return buffer

    def _new_buffer(self, array: np.ndarray) -> _Buffer:
        buffer = _Buffer(self._cupy, array.shape, array.dtype)
        # its memory may have belonged to an array that the GPU still uses
        self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
        return buffer
