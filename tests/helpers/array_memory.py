"""The bytes of array data that NumPy holds, on all threads; nothing else is counted, so that load does not matter."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import numpy as np

GET_HANDLER = 305                                           # PyDataMem_GetHandler, in NumPy's C API
# PYFUNCTYPE: the GIL is held, as NumPy expects; its calloc releases it itself.
MALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
CALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
REALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
FREE = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
KINDS = (MALLOC, CALLOC, REALLOC, FREE)


class Handler(ctypes.Structure):
    """PyDataMem_Handler: the functions that NumPy allocates with."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p),
                ("malloc", ctypes.c_void_p), ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p),
                ("free", ctypes.c_void_p)]


def _handler() -> Handler:
    """NumPy's own one, which all threads share."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    core = getattr(np, "_core", None) or np.core
    api = ctypes.cast(pointer(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    get = ctypes.PYFUNCTYPE(ctypes.py_object)(api[GET_HANDLER])
    handler = Handler.from_address(pointer(get(), b"mem_handler"))
    assert (handler.name, handler.version) == (b"default_allocator", 1)
    return handler


class ArrayMemory:
    """now: the bytes of array data that were allocated since the beginning, less those that were freed.   peak."""

    now = peak = 0

    def _count(self, pointer, size: int):
        self.now += size
        self.peak = max(self.peak, self.now)
        return pointer

    def __init__(self, malloc, calloc, realloc, free):
        def resized(context, old, size):                    # how large it was is not known: counted as a new one
            return self._count(realloc(context, old, size), size)

        def freed(context, pointer, size):
            self.now -= size
            free(context, pointer, size)

        self.functions = (MALLOC(lambda context, size: self._count(malloc(context, size), size)),
                          CALLOC(lambda context, n, size: self._count(calloc(context, n, size), n * size)),
                          REALLOC(resized), FREE(freed))


@contextlib.contextmanager
def array_memory() -> Iterator[ArrayMemory]:
    """Counts while the block runs."""
    handler = _handler()
    before = handler.malloc, handler.calloc, handler.realloc, handler.free
    memory = ArrayMemory(*(kind(function) for kind, function in zip(KINDS, before, strict=True)))
    _set(handler, [ctypes.cast(function, ctypes.c_void_p).value for function in memory.functions])
    try:
        yield memory
    finally:
        _set(handler, before)


def _set(handler: Handler, functions) -> None:
    handler.malloc, handler.calloc, handler.realloc, handler.free = functions
