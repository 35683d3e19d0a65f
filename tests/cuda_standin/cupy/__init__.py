"""The names of CuPy that minicnn and its tests use."""

from . import cuda
from .cuda.memory import get_default_memory_pool
from .kernels import RawKernel, RawModule
from .ndarray import asarray, ascontiguousarray, asnumpy, empty, full, ndarray, zeros

__version__ = "14.2.0"
EMULATED = True             # which CuPy does not have: tests/cuda_emulator/device.py

__all__ = ["RawKernel", "RawModule", "asarray", "ascontiguousarray", "asnumpy", "cuda", "empty", "full",
           "get_default_memory_pool", "ndarray", "zeros"]
