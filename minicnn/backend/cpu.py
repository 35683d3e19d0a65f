"""The CPU backend: Numba kernels on one pool of threads (why: kernels/cpu/threads.py)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from minicnn.backend.ops import Ops
from minicnn.errors import DeviceError
from minicnn.kernels.cpu import threads
from minicnn.system.cores import available_cores


class CpuOps(Ops):
    """The operations of kernels/cpu. Numba compiles each when it is first called, and caches it on disk."""

    together = staticmethod(threads.together)
    fusions = frozenset({"update"})

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


def make_ops() -> Ops:
    """The operations of kernels/cpu. Raises DeviceError where Numba cannot be used."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        raise DeviceError("device 'cpu': NUMBA_DISABLE_JIT is set, and its kernels work compiled only; unset it, or "
                          "use --device reference (NumPy alone, slow)")
    try:
        return CpuOps("cpu", "minicnn.kernels.cpu")
    except ImportError as error:
        raise DeviceError(f"device 'cpu' needs Numba, which cannot be loaded ({error}); install it, "
                          "or use --device reference (NumPy alone, slow)") from error


def set_threads(count: int | None = None) -> None:
    """Use `count` threads for everything (None: every core this process may run on)."""
    if count is not None and count < 1:
        raise DeviceError(f"the number of threads must be at least 1, got {count}")
    threads.set_threads(count)


def thread_report() -> str:
    """One line: the number of threads, of cores, the width of vectors, and whether kernels cannot be kept."""
    from minicnn.kernels.cpu.code_cache import NOT_KEPT
    from minicnn.kernels.cpu.tile import vector_bytes

    return (f"{threads.threads()} of {available_cores()} cores, vectors of {vector_bytes()} bytes"
            + ("; kernels are compiled at every start, set NUMBA_CACHE_DIR to a writable folder" if NOT_KEPT else ""))
