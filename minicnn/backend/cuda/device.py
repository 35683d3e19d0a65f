"""The GPU, through CuPy: whether it can be used, its memory, streams and graphs, and launching what source.py compiles.

CuPy calls a GPU "available" even if no kernel can be compiled, so one is compiled and run as a test.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from math import prod

import numpy as np

from minicnn.backend.cuda.source import HOPPER, OPTIONS, compiled
from minicnn.backend.cuda.streams import CupyInterconnect
from minicnn.backend.cuda.upload import Uploads
from minicnn.backend.interconnect import Interconnect
from minicnn.errors import DeviceError

OLDEST = 8                  # compute capability whose asynchronous copies the kernels use
SHARED = 48 * 1024          # bytes of shared memory that a block can have on every GPU without a request
RESERVED = 1024             # that each block takes in addition
RESIDENT = 512              # threads with 128 registers each, as in hopper.cuh, that a multiprocessor holds
INSTALL = ("pip install 'minicnn[cuda13]' for a driver of CUDA 13, 'minicnn[cuda12]' for one of CUDA 12 "
           "(nvidia-smi says which)")


@cache
def why_not() -> str | None:
    """None where CuPy can compile and run a kernel here; else the reason and what to do, in one line. Tested once."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                 # of CuPy's imports, under -W error: no fault of a GPU
            cupy = import_module("cupy")
    except ImportError as error:
        return f"CuPy is not installed or cannot be loaded ({_line(error)}); {INSTALL}"
    except Exception as error:                              # creating its cache folder on import, for one
        return f"CuPy cannot be loaded: {_line(error)}"
    try:
        if not cupy.cuda.runtime.getDeviceCount():
            return "there is no NVIDIA GPU in this machine, or this process may not see it (CUDA_VISIBLE_DEVICES)"
    except Exception as error:
        return (f"CuPy {cupy.__version__} finds no NVIDIA driver that it can use ({_line(error)}); install or update "
                "the driver, or use the CuPy that fits it: " + INSTALL)
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    if properties["major"] < OLDEST:
        return (f"the GPU, {properties['name'].decode()}, has compute capability {properties['major']}."
                f"{properties['minor']}; the kernels need {OLDEST}.0 (Ampere, 2020) or newer")
    try:
        probe = cupy.RawKernel('extern "C" __global__ void probe(int* x) { *x = 42; }', "probe", options=OPTIONS)
        x = cupy.zeros(1, np.int32)
        probe((1,), (1,), (x,))
        return None if int(x[0]) == 42 else "a kernel ran on the GPU and gave a wrong result"
    except Exception as error:
        return f"the GPU is there, but a kernel cannot be compiled and run ({_line(error)}); {INSTALL}"


def current_gpu() -> int | None:
    """The index of the GPU that the calling thread uses; None where none can be used."""
    return None if why_not() else int(import_module("cupy").cuda.runtime.getDevice())


def _line(error: Exception) -> str:
    """The first line of a message that may have several."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


class CupyDevice:
    """The current GPU, through CuPy: what launcher.py and ops.py need from a device.

    Kernels run on CuPy's current stream, as do its own copies and sums: what is launched in order runs in order.
    """

    def __init__(self):
        reason = why_not()
        if reason:
            raise DeviceError(f"device 'cuda' cannot be used: {reason}; or use --device cpu")
        self.cupy = import_module("cupy")
        self.index = int(self.cupy.cuda.runtime.getDevice())
        self.empty, self.zeros = self.cupy.empty, self.cupy.zeros
        self.architecture = self.cupy.cuda.Device(self.index).compute_capability
        runtime = self.cupy.cuda.runtime
        self.shared = runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, self.index)
        self._requested: dict = {}                  # kernel -> bytes of shared memory requested beyond SHARED
        self._own = threading.local()               # ranks that are threads have a stream each

    def from_host(self, array: np.ndarray):
        """A copy on the GPU, contiguous; of an array of the host or of this GPU."""
        if self.owns(array):
            return self.cupy.ascontiguousarray(array)
        self._must_not_capture("copied to the GPU")
        return self.cupy.asarray(np.asarray(array, order="C"))

    def upload(self, array: np.ndarray):
        """The same while the GPU computes, valid until the next upload: see Uploads."""
        self._must_not_capture("copied to the GPU")
        uploads = getattr(self._own, "uploads", None) or Uploads(self.cupy)
        self._own.uploads = uploads
        return uploads(np.ascontiguousarray(array))

    def to_host(self, array) -> np.ndarray:
        """A copy as a NumPy array; waits until the kernels before it are done."""
        self._must_not_capture("copied from the GPU")
        return self.cupy.asnumpy(array)

    def _must_not_capture(self, what: str) -> None:
        """A copy by the host is not part of a CUDA graph: it would be done once, and not in each replay."""
        if getattr(self._own, "capturing", False):
            raise DeviceError(f"an array was to be {what} while a step was being captured; do that before the step")

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """What `function` launches, as a CUDA graph; the result launches it on the stream that is then current.

        Capturing needs a stream of its own, since the default stream cannot be captured; nothing runs meanwhile. Memory
        allocated meanwhile comes from a pool that lives as long as the graph: in the common pool it would be freed.
        """
        stream, pool = self.cupy.cuda.Stream(non_blocking=True), self.cupy.cuda.MemoryPool()
        self._own.capturing = True
        try:
            with stream, self.cupy.cuda.using_allocator(pool.malloc):
                stream.begin_capture()
                try:
                    function()
                except BaseException:
                    with contextlib.suppress(Exception):        # "capture invalidated": the cause is raised below
                        stream.end_capture()
                    raise
                graph = stream.end_capture()
        finally:
            self._own.capturing = False

        def launch(pool=pool) -> None:
            graph.launch()

        return launch

    def record_event(self) -> Callable[[], None]:
        """An event in the current stream: the result waits until the GPU has reached it."""
        event = self.cupy.cuda.Event(block=True, disable_timing=True)
        event.record()
        return event.synchronize

    def owns(self, array) -> bool:
        """Whether a kernel may use this array: CuPy would accept an array of another GPU."""
        return isinstance(array, self.cupy.ndarray) and array.device.id == self.index

    def interconnect(self, local_rank: int) -> Interconnect:
        """How arrays pass between ranks; the ranks of a machine take its GPUs in turn."""
        return CupyInterconnect(self.cupy, local_rank % self.cupy.cuda.runtime.getDeviceCount())

    def compile(self, name: str, text: str, options: tuple[str, ...]):
        """The argument of `function`; compiled at the first launch, and cached on disk by CuPy."""
        if HOPPER in options:                       # CuPy would choose sm_90, and accepts no second -arch
            return self.cupy.RawModule(path=str(compiled(name, text, options)))
        return self.cupy.RawModule(code=text, options=options)

    def function(self, module, kernel: str):
        """The kernel of a compiled file. Looked up once: CuPy hashes the whole text each time."""
        return module.get_function(kernel)

    def launch(self, function, grid: tuple, block: tuple, arguments: tuple, shared: int) -> None:
        """Run a kernel on the current stream."""
        if shared > SHARED and self._requested.get(function, 0) < shared:
            function.max_dynamic_shared_size_bytes = self._requested[function] = shared
            function.preferred_shared_memory_carveout = self._carveout(prod(block), shared)
        function(grid, block, arguments, shared_mem=shared)

    def _carveout(self, threads: int, shared: int) -> int:
        """The percentage of a multiprocessor's memory that becomes shared memory: enough for as many blocks as have
        registers. The rest is its L1 cache, which they need as well."""
        runtime = self.cupy.cuda.runtime
        total = runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerMultiprocessor, self.index)
        return min(100, -(-100 * max(1, RESIDENT // threads) * (shared + RESERVED) // total))

    def free_memory(self) -> int:
        """Bytes of the GPU's memory that this process may still take, with what CuPy's pool keeps for later arrays."""
        free, _ = self.cupy.cuda.runtime.memGetInfo()
        return free + self.cupy.get_default_memory_pool().free_bytes()

    def describe(self) -> str:
        """Name, driver and compiler, for `minicnn doctor`."""
        runtime = self.cupy.cuda.runtime
        properties = runtime.getDeviceProperties(self.index)
        version = runtime.driverGetVersion()
        return (f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB, compute capability "
                f"{properties['major']}.{properties['minor']}, driver for CUDA {version // 1000}.{version % 1000 // 10}"
                f", CuPy {self.cupy.__version__}, NVRTC {'.'.join(map(str, self.cupy.cuda.nvrtc.getVersion()))}")
