"""The CUDA backend: every operation as launches of the kernels in kernels/cuda.

    kinds/*.py      the operations, a file for each kind: grid, block and arguments of each launch
    launcher.py     compiles and launches kernels
"""

from __future__ import annotations

from minicnn.backend.cuda import device as gpu
from minicnn.backend.cuda.kinds.augment import Augment
from minicnn.backend.cuda.kinds.batchnorm import BatchNorm
from minicnn.backend.cuda.kinds.combine import Combine
from minicnn.backend.cuda.kinds.conv import Conv
from minicnn.backend.cuda.kinds.dropout import Dropout
from minicnn.backend.cuda.kinds.elementwise import Elementwise
from minicnn.backend.cuda.kinds.epilogue import Epilogue
from minicnn.backend.cuda.kinds.linear import Linear
from minicnn.backend.cuda.kinds.loss import Loss
from minicnn.backend.cuda.kinds.lrn import Lrn
from minicnn.backend.cuda.kinds.optimisers import Optimisers
from minicnn.backend.cuda.kinds.pool import Pool
from minicnn.backend.cuda.kinds.resize_crop import ResizeCrop
from minicnn.backend.cuda.launcher import Launcher
from minicnn.backend.interconnect import Interconnect
from minicnn.backend.ops import OPS, Ops
from minicnn.errors import DeviceError

# Precision of matrix products of float32 arrays -> version, and the type its tensor cores read. Arrays and sums are
# float32 in any case: "tf32" and "fp16" round the factors to 10 bits of mantissa and "bf16" to 7, to be faster.
# fp16 also has a smaller range, nothing below 2^-24: its gradients need loss scaling (train/loss_scale.py).
PRECISIONS = {"fp32": ("v3", "Tf32"), "tf32": ("v4", "Tf32"), "bf16": ("v4", "Bf16"), "fp16": ("v4", "Fp16")}
PRECISION = "tf32"          # the default; another one is chosen as "cuda:fp32"
ON_HOPPER = {"v4": "v5"}    # what replaces a version on an H100 or H200


def make_ops(precision: str = PRECISION) -> Ops:
    """The operations on the current GPU. Raises DeviceError, with the reason, where there is none that works."""
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r} of device 'cuda': expected one of {', '.join(PRECISIONS)}")
    device, (version, products) = gpu.CupyDevice(), PRECISIONS[precision]
    return CudaOps(device, ON_HOPPER.get(version, version) if device.architecture == "90" else version, products)


class CudaOps(Conv, Linear, Elementwise, Pool, Lrn, BatchNorm, Dropout, Combine, Epilogue, Loss, Optimisers, Augment,
              ResizeCrop, Ops):
    """All operations on one device.

    version: of the matrix products, a key of TILES (see kernels/README.md).   products: the type that versions 4 and 5
    multiply.
    """

    fusions = frozenset({"pool", "epilogue", "update"})

    def __init__(self, device, version: str, products: str):
        self.name, self.device, self.version, self.products = "cuda", device, version, products
        self.spec = next((f"cuda:{name}" for name, (of, reads) in PRECISIONS.items()
                          if reads == products and version in (of, ON_HOPPER.get(of))), "cuda")
        self.empty, self.zeros, self.to_host = device.empty, device.zeros, device.to_host
        self.record_event, self.free_memory = device.record_event, device.free_memory
        self.needs_loss_scale = products == "Fp16"
        self._gpu = Launcher(device, products)
        missing = [op for group in OPS.values() for op in group if not hasattr(self, op)]
        if missing:
            raise DeviceError(f"backend 'cuda' lacks the operation {missing[0]}, expected in {type(self).__module__}")

    def from_host(self, array):
        """The array on the device; one that is already there is returned as it is."""
        return array if self.device.owns(array) and array.flags.c_contiguous else self.device.from_host(array)

    def upload(self, array):
        """See Ops."""
        return array if self.device.owns(array) else self.device.upload(array)

    def capture(self, function):
        """See Ops; the result keeps the captured arrays alive. Nothing in `function` may need the host."""
        return self._gpu.capture(function)

    def interconnect(self, local_rank: int = 0) -> Interconnect:
        return self.device.interconnect(local_rank)
