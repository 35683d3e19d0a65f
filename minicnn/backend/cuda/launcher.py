"""Launches kernels of kernels/cuda and checks every argument; the operations in ops.py are written with it.

CuPy does not check launches: it passes any number of arguments, and runs an empty grid as one block. So `launch` checks
each argument against the kernel's parameters, read from its text (source.kernels, arguments.py).

A device has empty, zeros, from_host, upload, to_host, owns, compile, function, launch, capture, record_event,
free_memory; shared, the bytes of shared memory that a block may have; architecture, its compute capability as "90".
CuPy is one (device.CupyDevice); the emulator in tests/cuda_emulator is another: the same code runs without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod

import numpy as np

from minicnn.backend.cuda import source
from minicnn.backend.cuda.arguments import LARGEST, checker
from minicnn.backend.cuda.source import BF16, real_dtype
from minicnn.backend.ops import address
from minicnn.errors import ShapeError

THREADS = 256               # of a block, unless an operation needs another number
FLOAT32 = np.dtype(np.float32)
NAMES = {np.dtype(name): name for name in source.REAL}         # faster than str(dtype)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def aligned(size: int, to: int = 256) -> int:
    return ceil_div(size, to) * to


def vector(array) -> int:
    """The elements that a thread moves at once: VECTOR of common.cuh."""
    return 16 // real_dtype(array.dtype).itemsize


class Capture:
    """Captured launches, which every call replays, and the arrays whose addresses they hold."""

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
        self._functions: dict[tuple, object] = {}                   # (file, kernel, dtype, bf16, options) -> function
        self._checkers: dict[tuple, list[Callable]] = {}            # (file, kernel, dtype, bf16) -> checks
        self._modules: dict[tuple, object] = {}                     # (file, dtype, bf16, options) -> compiled
        self._own = threading.local()                               # ranks that are threads have a stream each

    def launch(self, file: str, kernel: str, grid, arguments: tuple, block=THREADS, shared: int = 0,
               options: tuple[str, ...] = ()) -> None:
        """Run `kernel` of kernels/cuda/<file>.cu on `grid` blocks of `block` threads; an empty grid does nothing.

        arguments: in the order of the kernel's parameters; arrays, None for a null pointer, numbers (for a
        Divisor too), a dict for a struct. The number type is that of the first array that the kernel declares as T,
        and how activations are stored that of the first it declares as S.
        shared: bytes of shared memory.   options: of the compiler, for a file with several compiled forms.
        """
        grid, block = (size if isinstance(size, tuple) else (size,) for size in (grid, block))
        parameters = source.kernels(file)[kernel]
        if len(arguments) != len(parameters):
            raise TypeError(f"{kernel} takes {len(parameters)} arguments, got {len(arguments)}")
        real, bf16 = _types(parameters, arguments)
        checks = self._checks(file, kernel, real, bf16)
        checked = tuple([check(value) for check, value in zip(checks, arguments, strict=True)])
        if 0 in grid:
            return
        if grid[0] >= LARGEST or max(grid[1:], default=0) > 65535 or prod(block) > 1024 or shared > self.device.shared:
            raise ShapeError(f"{kernel}: a grid of {grid} blocks of {block} threads with {shared} bytes of shared "
                             "memory is more than a GPU allows; use a smaller batch or smaller layers")
        self.device.launch(self._function(file, kernel, real, bf16, options), grid, block, checked, shared)
        captured = getattr(self._own, "captured", None)
        if captured is not None:
            captured.extend(value for value, parameter in zip(checked, parameters, strict=True) if parameter.pointer)

    def capture(self, function: Callable[[], None]) -> Capture:
        """The launches of `function`; calling the result replays them all, at the cost of one launch.

        A device captures addresses, so the result keeps every array alive: its memory must not be reused.
        """
        self._own.captured = arrays = []
        try:
            replay = self.device.capture(function)
        finally:
            self._own.captured = None

        return Capture(replay, list({id(array): array for array in arrays}.values()))

    def _checks(self, file: str, kernel: str, real: str, bf16: bool) -> list[Callable]:
        """The checks of the kernel's arguments."""
        key = (file, kernel, real, bf16)
        if bf16 and real == "float64":
            raise ShapeError(f"{kernel}: activations in bf16 need parameters in float32, they are float64")
        if key not in self._checkers:
            self._checkers[key] = [checker(kernel, parameter, real, self.device.owns, bf16)
                                   for parameter in source.kernels(file)[kernel]]
        return self._checkers[key]

    def _function(self, file: str, kernel: str, real: str, bf16: bool, options: tuple[str, ...]):
        key, module = (file, kernel, real, bf16, options), (file, real, bf16, options)
        if key not in self._functions:
            if module not in self._modules:
                text = source.source(file)
                self._modules[module] = self.device.compile(file, text, source.options(text, real, self.products,
                                                                                            options, bf16))
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
        """The same in memory of the calling thread, for operations without a `work`; it grows as needed and is kept."""
        needed = sum(aligned(prod(shape) * np.dtype(dtype).itemsize) for shape in shapes)
        memory = getattr(self._own, "scratch", None)
        if memory is None or memory.size < needed:
            memory = self._own.scratch = self.device.empty((needed,), "uint8")
        return self.arrays_in(memory, shapes, dtype)

    def each(self, file: str, kernel: str, n: int, *arguments) -> None:
        """An elementwise kernel over n elements, 16 bytes to a thread."""
        self.launch(file, kernel, ceil_div(n, THREADS * 4), arguments)

    @staticmethod
    def packs(channels: int, *arrays) -> int:
        """1 where rows of this many channels can be read a vector at a time in all these arrays, else 0."""
        given = [array for array in arrays if array is not None]
        at_once = vector(given[0])
        return int(channels % at_once == 0
                   and all(address(array) % (at_once * array.dtype.itemsize) == 0 for array in given))


def _types(parameters: list[source.Parameter], arguments: tuple) -> tuple[str, bool]:
    """The number type of a launch, and whether its activations are bf16."""
    first = {}
    for value, parameter in zip(arguments, parameters, strict=True):
        if parameter.pointer and hasattr(value, "dtype"):
            first.setdefault(parameter.type, value.dtype)
    stored = first.get("S", FLOAT32)
    real = first.get("T", real_dtype(stored))
    return NAMES.get(real) or str(real), stored == BF16
