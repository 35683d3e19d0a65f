"""The GPU, by CuPy: whether it can be used, its memory, streams and graphs, and launching what source.py compiles.

CuPy calls a GPU "available" where no kernel can be compiled, so one is run before anyone believes it.
"""

from __future__ import annotations

import contextlib
import threading
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
SHARED = 48 * 1024          # bytes of shared memory that every GPU gives a block without being asked
RESERVED = 1024             # and that each block takes besides
RESIDENT = 512              # threads with 128 registers each, as in hopper.cuh, that a multiprocessor holds
INSTALL = ("pip install 'minicnn[cuda13]' for a driver of CUDA 13, 'minicnn[cuda12]' for one of CUDA 12 "
           "(nvidia-smi says which)")


@cache
def why_not() -> str | None:
    """None where CuPy can compile and run a kernel here; else the reason and what to do, in one line. Asked once."""
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        return f"CuPy is not installed or cannot be loaded ({_line(error)}); {INSTALL}"
    except Exception as error:                              # it makes its cache folder when imported, for one
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
    """The number of the GPU that the calling thread uses; None where none can be used."""
    return None if why_not() else int(import_module("cupy").cuda.runtime.getDevice())


def _line(error: Exception) -> str:
    """The first line of a message that may have many."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


class CupyDevice:
    """The current GPU, by CuPy: what launcher.py and ops.py ask of a device.

    Kernels run on CuPy's current stream, where its own copies and sums run too: what is launched in order happens in
    order.
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
        self._asked: dict = {}                      # kernel -> bytes of it that it may use, where they are many
        self._own = threading.local()               # of a rank that is a thread, which has a stream of its own

    def from_host(self, array: np.ndarray):
        """A copy on the GPU."""
        self._must_not_capture("copied to the GPU")
        return self.cupy.asarray(np.ascontiguousarray(array))

    def upload(self, array: np.ndarray):
        """The same without the GPU having to wait, for what is launched before the next upload: see Uploads."""
        self._must_not_capture("copied to the GPU")
        uploads = getattr(self._own, "uploads", None) or Uploads(self.cupy)
        self._own.uploads = uploads
        return uploads(np.ascontiguousarray(array))

    def to_host(self, array) -> np.ndarray:
        """A copy as NumPy's; waits until the kernels before it are done."""
        self._must_not_capture("copied from the GPU")
        return self.cupy.asnumpy(array)

    def _must_not_capture(self, what: str) -> None:
        """What the host does is no part of a recording: it would be done once, and not with each replay."""
        if getattr(self._own, "recording", False):
            raise DeviceError(f"an array was to be {what} while a step was being recorded; do that before the step")

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """What `function` launches, as a CUDA graph; the result launches it on the stream that is then current.

        Capturing takes a stream of its own, the default one cannot; nothing runs meanwhile. Memory that is taken
        meanwhile comes from a pool that lives as long as the graph: in the common one it would be free afterwards.
        """
        stream, pool = self.cupy.cuda.Stream(non_blocking=True), self.cupy.cuda.MemoryPool()
        self._own.recording = True
        try:
            with stream, self.cupy.cuda.using_allocator(pool.malloc):
                stream.begin_capture()
                try:
                    function()
                except BaseException:
                    with contextlib.suppress(Exception):        # that the capture was broken off; why is on its way
                        stream.end_capture()
                    raise
                graph = stream.end_capture()
        finally:
            self._own.recording = False

        def launch(pool=pool) -> None:
            graph.launch()

        return launch

    def record_event(self) -> Callable[[], None]:
        """A place in the current stream: the result waits until the GPU has come to it."""
        event = self.cupy.cuda.Event(block=True, disable_timing=True)
        event.record()
        return event.synchronize

    def owns(self, array) -> bool:
        """Whether a kernel may be given this array: CuPy would let an array of another GPU pass."""
        return isinstance(array, self.cupy.ndarray) and array.device.id == self.index

    def interconnect(self, place: int) -> Interconnect:
        """How arrays pass between ranks, of which the one at this place on the machine takes the next GPU."""
        return CupyInterconnect(self.cupy, place % self.cupy.cuda.runtime.getDeviceCount())

    def compile(self, name: str, text: str, options: tuple[str, ...]):
        """What `function` takes; compiled at the first launch, and kept on disk by CuPy."""
        if HOPPER in options:                       # CuPy would choose sm_90, and takes no second -arch
            return self.cupy.RawModule(path=str(compiled(name, text, options)))
        return self.cupy.RawModule(code=text, options=options)

    def function(self, module, kernel: str):
        """The kernel of a compiled file. Looked up once: CuPy hashes the whole text each time."""
        return module.get_function(kernel)

    def launch(self, function, grid: tuple, block: tuple, arguments: tuple, shared: int) -> None:
        """Run a kernel on the current stream."""
        if shared > SHARED and self._asked.get(function, 0) < shared:       # it has to be asked for, once
            function.max_dynamic_shared_size_bytes = self._asked[function] = shared
            function.preferred_shared_memory_carveout = self._carveout(prod(block), shared)
        function(grid, block, arguments, shared_mem=shared)

    def _carveout(self, threads: int, shared: int) -> int:
        """Of the memory beside a multiprocessor, the percentage that as many blocks as have registers share. The rest
        is its cache, which they need as well."""
        runtime = self.cupy.cuda.runtime
        whole = runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerMultiprocessor, self.index)
        return min(100, -(-100 * max(1, RESIDENT // threads) * (shared + RESERVED) // whole))

    def describe(self) -> str:
        """Name, driver and compiler, for `minicnn doctor`."""
        runtime = self.cupy.cuda.runtime
        properties = runtime.getDeviceProperties(self.index)
        version = runtime.driverGetVersion()
        return (f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB, compute capability "
                f"{properties['major']}.{properties['minor']}, driver for CUDA {version // 1000}.{version % 1000 // 10}"
                f", CuPy {self.cupy.__version__}, NVRTC {'.'.join(map(str, self.cupy.cuda.nvrtc.getVersion()))}")
