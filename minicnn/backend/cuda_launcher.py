"""Launching kernels of kernels/cuda, with every argument checked: what the operations in cuda.py are written with.

CuPy passes a kernel whatever it is given: the wrong number of arguments, a Python float as 8 bytes where the kernel
reads 4, an array whose strides it ignores, an empty grid as one block. So `launch` checks each argument against the
kernel's own parameters (cuda_loader.kernels): arrays by type, contiguity, device and size; numbers are cast to exactly
the type declared, and must fit.

A device is small: empty, zeros, from_host, upload, to_host, owns, compile, function, launch, record, mark; shared, the
bytes of shared memory that it gives a block; architecture, its compute capability as "90". CuPy is one
(cuda_loader.CupyDevice); the emulator in tests/cuda_emulator is another, so that the same code runs without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod

import numpy as np

from minicnn.backend import cuda_loader
from minicnn.backend.ops import address
from minicnn.errors import ShapeError

THREADS = 256               # a block, where nothing else asks for another number
LARGEST = 2**31             # kernels count in 32 bits
VECTOR_BYTES = 16


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def divisor(by: int) -> tuple[int, int, int]:
    """A Divisor of common.cuh: n // by == (2 n * magic >> 32) >> shift for all n < 2^31."""
    shift = max(by - 1, 0).bit_length()
    return by, ceil_div(1 << 31 + shift, max(by, 1)), shift


def aligned(size: int, to: int = 256) -> int:
    return ceil_div(size, to) * to


class Recording:
    """Launches that run anew with each call, and the arrays that they know by address."""

    def __init__(self, replay: Callable[[], None], arrays: list):
        self._replay, self._arrays = replay, arrays

    def __call__(self) -> None:
        self._replay()


class Launcher:
    """The kernels of one device, compiled when they are first launched, and memory for those that need some.

    products: what the tensor cores read, "Tf32", "Bf16" or "Fp16" (gemm.cuh).
    """

    def __init__(self, device, products: str):
        self.device, self.products = device, products
        self._functions: dict[tuple, object] = {}                   # (file, kernel, dtype, options) -> function
        self._modules: dict[tuple, object] = {}                     # (file, dtype, options) -> what was compiled
        self._own = threading.local()                               # ranks that are threads have a stream each

    def launch(self, file: str, kernel: str, grid, arguments: tuple, block=THREADS, shared: int = 0,
               options: tuple[str, ...] = ()) -> None:
        """Run `kernel` of kernels/cuda/<file>.cu on `grid` blocks of `block` threads; an empty grid does nothing.

        arguments: in the order of the kernel's parameters; arrays, None for a null pointer, numbers, also for a
        Divisor, a dict for a struct. The number type is that of the first array that the kernel declares as T.
        shared: bytes of shared memory.   options: of the compiler, for a file of which there are several.
        """
        grid, block = (size if isinstance(size, tuple) else (size,) for size in (grid, block))
        parameters = cuda_loader.kernels(file)[kernel]
        if len(arguments) != len(parameters):
            raise TypeError(f"{kernel} takes {len(parameters)} arguments, got {len(arguments)}")
        real = next((str(value.dtype) for value, parameter in zip(arguments, parameters, strict=True)
                     if parameter.pointer and parameter.type == "T" and value is not None), "float32")
        checked = tuple(self._checked(kernel, parameter, value, real)
                        for parameter, value in zip(parameters, arguments, strict=True))
        if 0 in grid:
            return
        if grid[0] >= LARGEST or max(grid[1:], default=0) > 65535 or prod(block) > 1024 or shared > self.device.shared:
            raise ShapeError(f"{kernel}: a grid of {grid} blocks of {block} threads with {shared} bytes of shared "
                             "memory is more than a GPU takes; use a smaller batch or smaller layers")
        self.device.launch(self._function(file, kernel, real, options), grid, block, checked, shared)
        recorded = getattr(self._own, "recorded", None)
        if recorded is not None:
            recorded.extend(value for value, parameter in zip(checked, parameters, strict=True) if parameter.pointer)

    def record(self, function: Callable[[], None]) -> Recording:
        """What `function` launches, to be run by calling the result: the whole at the cost of one launch.

        A device records addresses. So every array is kept with them, lest another one take its place.
        """
        self._own.recorded = arrays = []
        try:
            replay = self.device.record(function)
        finally:
            self._own.recorded = None

        return Recording(replay, list({id(array): array for array in arrays}.values()))

    def _checked(self, kernel: str, parameter, value, real: str):
        """The argument in exactly the form that the kernel reads; raises ShapeError where it does not fit."""
        what = f"{kernel}: {parameter.name}"
        if real not in cuda_loader.REAL:
            raise ShapeError(f"{what} must be float32 or float64, it is {real}")
        if parameter.pointer:
            if value is None:
                return None
            if not self.device.owns(value):
                raise ShapeError(f"{what} must be an array of this backend's device, it is {type(value).__module__}."
                                 f"{type(value).__name__}; see ops.from_host")
            if value.dtype != parameter.dtype(real):
                raise ShapeError(f"{what} must be {parameter.dtype(real)}, it is {value.dtype}")
            if not value.flags.c_contiguous:
                raise ShapeError(f"{what}, an array of shape {value.shape}, is not C-contiguous")
            if value.size >= LARGEST:
                raise ShapeError(f"{what} has {value.size:,} elements, more than the {LARGEST - 1:,} that a kernel can "
                                 "count; use a smaller batch")
            return value
        if parameter.fields:
            numbers = [self._number(f"{what}.{name}", parameter.dtype(real)[name], value[name])
                       for name, _ in parameter.fields]
            return np.array([tuple(numbers)], parameter.dtype(real))
        number = self._number(what, parameter.dtype(real), value)
        return np.array([number], cuda_loader.DIVISOR) if isinstance(number, tuple) else number

    @staticmethod
    def _number(what: str, dtype: np.dtype, value):
        """A NumPy scalar: CuPy passes it by exactly its size. Or the numbers of a Divisor."""
        if dtype == cuda_loader.DIVISOR:
            if not 0 <= value < LARGEST:
                raise ShapeError(f"{what} = {value} is no number to divide by; use a smaller batch or smaller layers")
            return divisor(value)
        if dtype.kind == "f":
            return dtype.type(value)
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max or value != int(value):
            raise ShapeError(f"{what} = {value} does not fit {dtype}; use a smaller batch or smaller layers")
        return dtype.type(value)

    def _function(self, file: str, kernel: str, real: str, options: tuple[str, ...]):
        key, module = (file, kernel, real, options), (file, real, options)
        if key not in self._functions:
            if module not in self._modules:
                text = cuda_loader.source(file)
                self._modules[module] = self.device.compile(file, text, cuda_loader.options(text, real, self.products,
                                                                                            options))
            self._functions[key] = self.device.function(self._modules[module], kernel)
        return self._functions[key]

    def arrays_in(self, work, shapes: list[tuple[int, ...]], dtype) -> list:
        """Arrays of these shapes one after the other in `work` (uint8), or in new memory where it is None."""
        sizes = [aligned(prod(shape) * np.dtype(dtype).itemsize) for shape in shapes]
        if work is None:
            work = self.device.empty((sum(sizes),), "uint8")
        starts = np.cumsum([0, *sizes])
        return [work[start:start + prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
                for start, shape in zip(starts.tolist(), shapes, strict=False)]

    def scratch(self, shapes: list[tuple[int, ...]], dtype) -> list:
        """The same in memory that each thread keeps, for operations that are given none; it grows, and then stays."""
        needed = sum(aligned(prod(shape) * np.dtype(dtype).itemsize) for shape in shapes)
        memory = getattr(self._own, "scratch", None)
        if memory is None or memory.size < needed:
            memory = self._own.scratch = self.device.empty((needed,), "uint8")
        return self.arrays_in(memory, shapes, dtype)

    def each(self, file: str, kernel: str, n: int, *arguments) -> None:
        """A kernel that walks over n numbers, 16 bytes to a thread."""
        self.launch(file, kernel, ceil_div(n, THREADS * 4), arguments)

    @staticmethod
    def packs(channels: int, *arrays) -> int:
        """1 where rows of so many channels can be read 16 bytes at a time in all these arrays, else 0."""
        given = [array for array in arrays if array is not None]
        fits = channels * given[0].dtype.itemsize % VECTOR_BYTES == 0
        return int(fits and all(address(array) % VECTOR_BYTES == 0 for array in given))
