"""cupy.RawModule and RawKernel: compiled for the emulator when they are first launched."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from pathlib import Path

import numpy as np

from tests.cuda_emulator.build import Library
from tests.cuda_emulator.device import EmulatorDevice, Kernel

from .cuda.nvrtc import text_and_options
from .cuda.runtime import SHARED_BY_REQUEST, CUDARuntimeError
from .cuda.stream import get_current_stream
from .ndarray import ndarray

FOLDER = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
FOLDER.mkdir(parents=True, exist_ok=True)                   # CuPy makes it when it is imported, too
ONE_AT_A_TIME = threading.RLock()                           # the emulator has one set of threads for the process
ORDER = 0                                                   # of the threads: races are what tests without CuPy look for
EMULATOR = EmulatorDevice(FOLDER, ORDER, watch=False)


class RawModule:
    """A file of kernels: `code`, or `path`, a cubin."""

    def __init__(self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = ()):
        self._text, self._options = text_and_options(Path(path).read_bytes()) if path else (code, tuple(options))

    @cached_property
    def library(self) -> Library:
        with ONE_AT_A_TIME:
            return Library(self._text, self._options, FOLDER)

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(None, name, module=self)


class RawKernel:
    """One kernel; `code` as for RawModule."""

    def __init__(self, code: str | None, name: str, options: tuple[str, ...] = (), *, module: RawModule | None = None):
        self.module, self.name = module or RawModule(code=code, options=options), name
        self.max_dynamic_shared_size_bytes, self.preferred_shared_memory_carveout = 48 * 1024, -1

    @cached_property
    def _kernel(self) -> Kernel:
        return Kernel(self.module.library, self.name)

    def __call__(self, grid: tuple, block: tuple, arguments: tuple, *, shared_mem: int = 0) -> None:
        if shared_mem > min(self.max_dynamic_shared_size_bytes, SHARED_BY_REQUEST):
            raise CUDARuntimeError(f"CUDA_ERROR_INVALID_VALUE: {self.name}: {shared_mem} bytes of shared memory")
        for value in arguments:
            if isinstance(value, np.ndarray) and value.size != 1:
                raise TypeError("You are trying to pass a numpy.ndarray of shape "
                                f"{value.shape} as a kernel parameter. Only numpy.ndarrays of size one can be passed")
        given = tuple(value.values if isinstance(value, ndarray) else value for value in arguments)
        with ONE_AT_A_TIME:
            get_current_stream().launch(EMULATOR, self._kernel, grid, block, given, shared_mem)
