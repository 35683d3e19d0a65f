"""Batches of images on their way to a GPU while it still computes with the ones before.

An upload goes through pinned memory, which the copy engine reads without the host's help, on a stream of its own. Three
places take turns: one that is computed with, one whose copy is under way, one that the host writes. What was uploaded
is for what is launched before the next upload.
"""

from __future__ import annotations

import numpy as np

PLACES = 3


class _Place:
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
        self._places: list[_Place] = []
        self._last: _Place | None = None

    def __call__(self, array: np.ndarray):
        """A copy on the GPU, which what is launched on the current stream from now on may read."""
        stream = self._cupy.cuda.get_current_stream()
        if self._last is not None:
            self._last.used.record(stream)                          # by all that was launched until now
        place = self._free_place(array)
        np.copyto(place.host, array)
        place.device.set(place.host, stream=self._stream)
        place.copied.record(self._stream)
        stream.wait_event(place.copied)
        self._last = place
        self._places.append(place)
        return place.device

    def _free_place(self, array: np.ndarray) -> _Place:
        """The place used longest ago, once the GPU is done with it; a new one if it has another shape."""
        if len(self._places) < PLACES:
            return self._new_place(array)
        place = self._places.pop(0)
        place.used.synchronize()
        if (place.host.shape, place.host.dtype) != (array.shape, array.dtype):
            return self._new_place(array)
        return place

    def _new_place(self, array: np.ndarray) -> _Place:
        place = _Place(self._cupy, array.shape, array.dtype)
        # its memory may have been another array's, with which the GPU still computes
        self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
        return place
