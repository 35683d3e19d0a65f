"""Views of arrays in another shape, and arrays in the work space of an operation."""

from __future__ import annotations

import threading
from math import prod

import numpy as np

from minicnn.errors import ShapeError

ALIGN = 64                       # bytes: a cache line, and the widest vector


def flat(a: np.ndarray) -> np.ndarray:
    """a as one axis, never a copy."""
    return contiguous(a).reshape(-1)


def rows(a: np.ndarray, width: int) -> np.ndarray:
    """a as a matrix (a.size / width, width), never a copy."""
    return contiguous(a).reshape(-1, width)


def view(memory: np.ndarray, offset: int, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array of this shape in memory (uint8), `offset` bytes in."""
    return memory[offset : offset + _bytes(shape, dtype)].view(dtype).reshape(shape)


def bytes_of(requests: list[tuple[tuple[int, ...], object]]) -> int:
    """Bytes of work space for arrays of these (shape, dtype), each on a cache line of its own."""
    return sum(_aligned(_bytes(*request)) for request in requests) + ALIGN


def arrays_in(work: np.ndarray | None, requests: list[tuple[tuple[int, ...], object]]) -> list[np.ndarray]:
    """The arrays of `bytes_of`, one after the other in work (uint8); allocated where it is None or too small."""
    if work is None or work.size < bytes_of(requests):
        work = np.empty(bytes_of(requests), np.uint8)
    offset, arrays = -work.ctypes.data % ALIGN, []
    for shape, dtype in requests:
        arrays.append(view(work, offset, shape, dtype))
        offset += _aligned(arrays[-1].nbytes)
    return arrays


class Kept(threading.local):
    """Scratch memory for an operation without a `work`; it grows as needed and is kept.

    The calls of one thread follow each other, but several ranks may be several threads.
    """

    memory = np.empty(0, np.uint8)

    def arrays(self, requests: list[tuple[tuple[int, ...], object]]) -> list[np.ndarray]:
        """The arrays of these (shape, dtype), not yet set to anything."""
        needed = bytes_of(requests)
        if self.memory.size < needed:
            self.memory = np.empty(needed, np.uint8)
        return arrays_in(self.memory, requests)


def contiguous(a: np.ndarray) -> np.ndarray:
    """The array itself; ShapeError where it is not C-contiguous."""
    if not a.flags.c_contiguous:
        raise ShapeError(f"an array of shape {a.shape} with strides {a.strides} is not C-contiguous; "
                         "pass np.ascontiguousarray(...) of it")
    return a


def _bytes(shape: tuple[int, ...], dtype) -> int:
    return prod(shape) * np.dtype(dtype).itemsize


def _aligned(size: int) -> int:
    """size, rounded up to whole cache lines."""
    return -(-size // ALIGN) * ALIGN
