"""The emulator as a device of minicnn/backend/cuda/ops.py. Its arrays are NumPy's, so that tests can look into them."""

from __future__ import annotations

import ctypes
import re
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicnn.backend.cuda.ops import CudaOps
from minicnn.backend.interconnect import Interconnect
from tests.cuda_emulator.build import EmulatorError, Library

GUARD = 4096                # bytes of 0xFF around every array that a kernel is given
PAGE = 256                  # an array keeps its address modulo this: the alignment stays the same
ORDERS = (0, 1, 7)          # forward, backward, shuffled


class _Array(ctypes.Structure):
    _fields_ = [("address", ctypes.c_size_t), ("bytes", ctypes.c_size_t), ("item", ctypes.c_int),
                ("parameter", ctypes.c_int), ("constant", ctypes.c_int)]


class Kernel:
    """One kernel of a library: its parameters as the compiler sees them, and how to call it."""

    def __init__(self, library: Library, name: str):
        self.library, self.name, self.parameters = library, name, library.kernels[name]
        kinds, sizes = ctypes.create_string_buffer(64), (ctypes.c_int * 64)()
        count = getattr(library.code, f"cuemu_parameters_{name}")(kinds, sizes)
        self.kinds, self.sizes = kinds.raw[:count].decode(), list(sizes[:count])
        self.call = getattr(library.code, f"cuemu_call_{name}")


class EmulatorDevice:
    """order: of the threads (see ORDERS); None takes the next one for each launch.   watch: check every access."""

    def __init__(self, cache_folder: Path, order: int | None = None, watch: bool = True):
        self.cache_folder, self.order, self.watch = Path(cache_folder), order, watch
        self.launches = 0
        self._captured: list | None = None
        self._memory = np.empty(0, np.uint8)

    empty, zeros = staticmethod(np.empty), staticmethod(np.zeros)
    architecture, shared = "90", 227 * 1024                 # an H100
    free_memory = None                                      # its arrays are the host's

    def from_host(self, array):
        self._must_not_capture()
        return np.ascontiguousarray(array)

    upload = from_host

    def to_host(self, array):
        self._must_not_capture()
        return np.asarray(array)

    def _must_not_capture(self) -> None:
        if self._captured is not None:
            raise EmulatorError("an array was to be copied to or from the device while a step was being captured")

    def capture(self, function):
        """As a CUDA graph: launches are captured and not run, with addresses, which keep no array alive.

        What NumPy does to an array meanwhile is not captured.
        """
        self._captured = launches = []
        try:
            function()
        finally:
            self._captured = None

        return lambda: [self.launch_captured(launch) for launch in launches]

    @staticmethod
    def captured(kernel: Kernel, grid: tuple, block: tuple, arguments: tuple, shared: int) -> tuple:
        """A launch with the addresses of its arrays, which keep none of them alive."""
        weak = (weakref.ref(value) if kind in "pr" and value is not None else value
                for kind, value in zip(kernel.kinds, arguments, strict=True))
        return kernel, grid, block, tuple(weak), shared

    def launch_captured(self, launch: tuple) -> None:
        """Run what `captured` returned."""
        kernel, grid, block, arguments, shared = launch
        self.launch(kernel, grid, block, tuple(_still_there(kernel, i, value) for i, value in enumerate(arguments)),
                    shared)

    @staticmethod
    def owns(array) -> bool:
        return isinstance(array, np.ndarray)

    @staticmethod
    def interconnect(local_rank: int) -> Interconnect:
        return Interconnect()                                   # its arrays are NumPy's

    @staticmethod
    def record_event():
        return lambda: None                                 # nothing here runs ahead

    def compile(self, name: str, text: str, options: tuple[str, ...]) -> Library:
        return Library(text, options, self.cache_folder)

    def function(self, library: Library, kernel: str) -> Kernel:
        return Kernel(library, kernel)

    def launch(self, kernel: Kernel, grid: tuple, block: tuple, arguments: tuple, shared: int) -> None:
        """Run a kernel on copies of its arrays with guard zones around them, and copy back what it may write."""
        if self._captured is not None:
            self._captured.append(self.captured(kernel, grid, block, arguments, shared))
            return
        if len(arguments) != len(kernel.kinds):
            raise EmulatorError(f"{kernel.name}: {len(arguments)} arguments for {len(kernel.kinds)} parameters")
        staged = self._stage(kernel, arguments)
        base, boxes = self._memory.ctypes.data, []
        for i, value in enumerate(arguments):
            if kernel.kinds[i] not in "pr":
                boxes.append((ctypes.c_char * kernel.sizes[i]).from_buffer_copy(_number(kernel, i, value).tobytes()))
            else:
                boxes.append(ctypes.c_void_p(None if value is None else base + staged[value.ctypes.data].start))
        slots = (ctypes.c_void_p * len(boxes))(*(ctypes.addressof(box) for box in boxes))
        arrays = (_Array * len(staged))(*(_Array(base + copy.start, copy.array.nbytes, copy.array.itemsize,
                                                 copy.parameter, copy.constant) for copy in staged.values()))
        order = ORDERS[self.launches % len(ORDERS)] if self.order is None else self.order
        self.launches += 1
        runtime, three = kernel.library.runtime, ctypes.c_uint * 3
        kernel.library.code.cuemu_touch()
        if runtime.cuemu_launch(kernel.call, slots, three(*(*grid, 1, 1)[:3]), three(*(*block, 1, 1)[:3]),
                                ctypes.c_size_t(shared), order, int(self.watch), arrays, len(arrays)):
            message = re.sub(r"argument (\d+)", lambda match: kernel.parameters[int(match[1])],
                             runtime.cuemu_error().decode())
            raise EmulatorError(f"{kernel.name}: {kernel.library.where(runtime.cuemu_error_pc())}{message}")
        for copy in staged.values():
            self._fetch(kernel, copy)

    def _stage(self, kernel: Kernel, arguments: tuple) -> dict[int, _Copy]:
        """Copies of the arrays, each once, in one memory; keyed by the array's address."""
        staged: dict[int, _Copy] = {}
        for i, value in enumerate(arguments):
            if kernel.kinds[i] not in "pr" or value is None:
                continue
            if not isinstance(value, np.ndarray) or not value.flags.c_contiguous:
                raise EmulatorError(f"{kernel.name}: {kernel.parameters[i]} must be a contiguous array, got "
                                    f"{value!r:.60}")
            copy = staged.setdefault(value.ctypes.data, _Copy(value, i))
            copy.constant &= kernel.kinds[i] == "r"
            if copy.array.nbytes != value.nbytes:
                raise EmulatorError(f"{kernel.name}: {kernel.parameters[i]} begins where "
                                    f"{kernel.parameters[copy.parameter]} does, but is not as long")
        end = 0
        for at in sorted(staged):
            if at < end:
                raise EmulatorError(f"{kernel.name}: {kernel.parameters[staged[at].parameter]} overlaps another array")
            end = at + staged[at].array.nbytes
        needed = sum(copy.array.nbytes + 2 * GUARD + 2 * PAGE for copy in staged.values()) + PAGE
        if self._memory.size < needed:
            self._memory = np.empty(2 * needed, np.uint8)
        at, base = 0, self._memory.ctypes.data
        for address, copy in staged.items():
            copy.start = at + GUARD + (address - base - at - GUARD) % PAGE
            self._memory[at:copy.start] = 0xFF
            at = copy.start + copy.array.nbytes
            self._memory[copy.start:at] = copy.array.reshape(-1).view(np.uint8)
            self._memory[at:at + GUARD] = 0xFF
            at += GUARD
        return staged

    def _fetch(self, kernel: Kernel, copy: _Copy) -> None:
        """The guard zones must be as they were; an array that is not const is copied back."""
        end = copy.start + copy.array.nbytes
        for low, high in ((copy.start - GUARD, copy.start), (end, end + GUARD)):
            if np.any(self._memory[low:high] != 0xFF):
                byte = low + int(np.argmax(self._memory[low:high] != 0xFF)) - copy.start
                raise EmulatorError(f"{kernel.name}: {kernel.parameters[copy.parameter]} was written out of bounds, at "
                                    f"byte {byte} of {copy.array.nbytes}")
        if not copy.constant:
            copy.array.reshape(-1).view(np.uint8)[:] = self._memory[copy.start:end]


@dataclass
class _Copy:
    """An array that a kernel was given, as parameter number `parameter` first, and where its copy begins.
    constant: it is a const parameter, wherever it was given."""

    array: np.ndarray
    parameter: int
    constant: bool = True
    start: int = 0


def _still_there(kernel: Kernel, i: int, value):
    """An argument of a captured launch."""
    if not isinstance(value, weakref.ref):
        return value
    array = value()
    if array is None:
        raise EmulatorError(f"{kernel.name}: {kernel.parameters[i]}, captured, has been freed")
    return array


def _number(kernel: Kernel, i: int, value):
    """A scalar or struct of just the type that the kernel reads: CuPy would pass a Python float as 8 bytes."""
    kind, size = kernel.kinds[i], kernel.sizes[i]
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.itemsize != size or dtype.kind != {"s": "V"}.get(kind, kind):
        raise EmulatorError(f"{kernel.name}: {kernel.parameters[i]} is {size} bytes of kind {kind!r}, got "
                            f"{type(value).__name__} {dtype or ''}")
    return value


def is_emulated(ops) -> bool:
    """Whether these operations run on the emulator, which is too slow for many launches or multiplications: as its
    own device, or behind the stand-in for CuPy (tests/cuda_standin)."""
    device = getattr(ops, "device", None)
    return isinstance(device, EmulatorDevice) or hasattr(getattr(device, "cupy", None), "EMULATED")


def extent(ops) -> dict[str, int]:
    """How much check_layer checks: on the emulator a sample of the elements, for a pass takes up to 0.1 s."""
    return {"elementwise": 50, "coordinates": 12} if is_emulated(ops) else {}


def emulated_ops(cache_folder: Path, version: str = "v3", products: str = "Tf32", **options) -> CudaOps:
    """The cuda backend on an emulated device; see EmulatorDevice for the options."""
    return CudaOps(EmulatorDevice(cache_folder, **options), version, products)
