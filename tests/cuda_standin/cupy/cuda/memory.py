"""Memory of the one GPU, which is the host's, and the pools that it comes from."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from math import prod

import numpy as np

ALIGNMENT = 512             # of every address that CuPy's pool gives
_thread, _common = threading.local(), [None]


class Device:
    """The GPU with index 0."""

    compute_capability = "90"

    def __init__(self, device: int = 0):
        if device != 0:
            raise ValueError(f"the stand-in has one GPU, not number {device}")
        self.id = device

    def use(self) -> Device:
        return self

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error) -> None:
        pass

    def synchronize(self) -> None:
        pass


def _memory(nbytes: int) -> np.ndarray:
    """Aligned bytes, all 255."""
    raw = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:start + nbytes]


def allocate(shape, dtype) -> np.ndarray:
    """An array in memory of the current allocator."""
    shape = (shape,) if np.isscalar(shape) else tuple(shape)
    malloc = getattr(_thread, "allocator", None) or _common[0] or _memory
    return malloc(prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)


class MemoryPool:
    """It keeps what it gave until it is freed itself, as CuPy's pool does."""

    def __init__(self):
        self._given = []

    def malloc(self, nbytes: int) -> np.ndarray:
        self._given.append(_memory(nbytes))
        return self._given[-1]


    def free_bytes(self) -> int:
        """None: memory that is freed is the host's again."""
        return 0


def get_default_memory_pool() -> MemoryPool:
    return _pool


_pool = MemoryPool()


def set_allocator(allocator: Callable | None) -> None:
    """None: memory comes from the GPU itself."""
    _common[0] = allocator


@contextlib.contextmanager
def using_allocator(allocator: Callable | None):
    """For this thread."""
    outer, _thread.allocator = getattr(_thread, "allocator", None), allocator
    try:
        yield
    finally:
        _thread.allocator = outer


def alloc_pinned_memory(nbytes: int) -> bytearray:
    return bytearray(nbytes)
