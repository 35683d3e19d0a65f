"""The CPU backend: Numba kernels on one pool of threads (why: kernels/cpu/threads.py).

    cpu, cpu:fp32    the precision of the arrays
    cpu:bf16         the factors of float32 matrix products are rounded to bf16 (kernels/cpu/bf16), and activations and
                     their gradients are stored in bf16 (kernels/cpu/stored.py)
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator

import numpy as np

from minicnn.backend.ops import OPS, Ops
from minicnn.backend.stores_bf16 import StoresBf16
from minicnn.errors import DeviceError
from minicnn.kernels.cpu import threads
from minicnn.kernels.cpu.memory import contiguous
from minicnn.system.cores import available_cores

PRECISIONS = ("fp32", "bf16")           # of matrix products
BY_ADDRESS = ("conv", "linear", "augment")      # whose kernels read arrays by address, and take them to be contiguous
WORTH_WHILE = 1.5                       # times the GFLOP/s of float32: below, roundings and copies cost what is gained


class CpuOps(Ops):
    """The operations of kernels/cpu. Numba compiles each when it is first called, and caches it on disk."""

    together = staticmethod(threads.together)
    fusions = frozenset({"update", "early", "again"})

    def __init__(self):
        super().__init__("cpu", "minicnn.kernels.cpu")
        for function in (function for module_name in BY_ADDRESS for function in OPS[module_name]):
            setattr(self, function, of_contiguous(getattr(self, function)))

    @contextlib.contextmanager
    def telling_of_compiling(self, tell: Callable[[str], None]) -> Iterator[None]:
        from numba.core import event

        class Listener(event.Listener):
            def on_start(self, event):
                kernel = event.data["dispatcher"].py_func
                if kernel.__module__.startswith("minicnn."):       # not Numba's own functions
                    tell(f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}")

            def on_end(self, event):
                pass

        listener = Listener()
        event.register("numba:compile", listener)
        try:
            yield
        finally:
            event.unregister("numba:compile", listener)


class CpuBf16Ops(StoresBf16, CpuOps):
    """The same, with convolution and fully connected layers from kernels/cpu/bf16.

    Their factors are rounded to bf16 and sums are float32; convolutions that Winograd's algorithm computes faster in
    float32 are left to it (conv_algorithm names them), and so are depthwise ones. Networks of float32 whose layers let
    it store activations and their gradients in bf16; parameters, their gradients and updates are float32. Arrays of
    float64 are computed in float64.
    """

    def __init__(self):
        super().__init__()
        self.spec = "cpu:bf16"
        for module_name in ("conv", "linear"):
            module = importlib.import_module(f"minicnn.kernels.cpu.bf16.{module_name}")
            for function in OPS[module_name]:
                setattr(self, function, of_contiguous(getattr(module, function)))


@functools.cache
def of_contiguous(operation: Callable) -> Callable:
    """The operation, with a ShapeError in place of wrong results where an array is not C-contiguous."""
    @functools.wraps(operation)
    def checked(*arguments, **options):
        for given in (*arguments, *options.values()):
            if isinstance(given, np.ndarray):
                contiguous(given)
        return operation(*arguments, **options)

    return checked


def make_ops(precision: str = "fp32") -> Ops:
    """The operations of kernels/cpu. Raises DeviceError where Numba, or the precision, cannot be used."""
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r} of device 'cpu': expected one of {', '.join(PRECISIONS)}")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        raise DeviceError("device 'cpu': NUMBA_DISABLE_JIT is set, and its kernels work compiled only; unset it, or "
                          "use --device reference (NumPy alone, slow)")
    try:
        importlib.import_module("minicnn.kernels.cpu.tile").vector_bytes()      # of a variable that may be wrong
        if precision == "bf16":
            importlib.import_module("minicnn.kernels.cpu.bf16.available").needed()
            return CpuBf16Ops()
        return CpuOps()
    except ImportError as error:
        raise DeviceError(f"device 'cpu' needs Numba, which cannot be loaded ({error}); install it, "
                          "or use --device reference (NumPy alone, slow)") from error


def set_threads(count: int | None = None) -> None:
    """Use `count` threads for everything (None: every core this process may run on)."""
    if count is not None and count < 1:
        raise DeviceError(f"the number of threads must be at least 1, got {count}")
    threads.set_threads(count)


def bf16_report() -> str:
    """One line: by which instructions device "cpu:bf16" multiplies, and how fast beside float32, as measured now."""
    from minicnn.kernels.cpu.bf16 import block, rates

    chosen = block.chosen()
    ours, float32 = rates.of_bf16(chosen), rates.of_float32()
    advice = "most nets gain, by less" if ours >= WORTH_WHILE * float32 else "not faster: use cpu"
    return (f"{chosen.kind}, {ours:.0f} GFLOP/s on one thread, float32 {float32:.0f}: {ours / float32:.1f} times "
            f"in the inner loop, {advice}")


def thread_report() -> str:
    """One line: the number of threads, of cores, the width of vectors, and whether kernels cannot be kept."""
    from minicnn.kernels.cpu.code_cache import NOT_KEPT
    from minicnn.kernels.cpu.tile import vector_bytes

    return (f"{threads.threads()} of {available_cores()} cores, vectors of {vector_bytes()} bytes"
            + ("; kernels are compiled at every start, set NUMBA_CACHE_DIR to a writable folder" if NOT_KEPT else ""))
