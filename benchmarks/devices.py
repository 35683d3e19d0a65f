"""The device of a benchmark's arrays: the host, or a GPU. Both sides of a comparison read the same arrays."""

from __future__ import annotations

import sys

import limits
import numpy as np
from side_by_side import PAUSE, TURN

PRODUCT, COPIED = 8192, 1 << 28         # side of a GPU's matrices, and elements of its copy: neither fits a cache


class Host:
    """The host: an array of ours and a tensor of PyTorch share memory without a copy."""

    torch_device, turn, pause = "cpu", TURN, PAUSE
    name = staticmethod(limits.machine)

    @staticmethod
    def limits(threads: int) -> tuple[str, dict]:
        """Whose matrix product it is, and for "sgemm" and "copy" (GFLOP or GB of one call, the call)."""
        whose, *product = limits.sgemm(threads)
        return whose, {"sgemm": product, "copy": limits.copy(threads)}

    @staticmethod
    def dtype(torch):
        """The type of the tensors of PyTorch's convolutions."""
        return torch.float32

    @staticmethod
    def tensor(tensor):
        """The tensor on this device."""
        return tensor

    @staticmethod
    def array(tensor):
        """The same memory as an array of ours; the tensor must be contiguous."""
        return tensor.detach().numpy()

    @staticmethod
    def activations(tensor):
        """The same of what is between the layers, as our network of this precision stores it."""
        return Host.array(tensor)

    @staticmethod
    def to_host(array) -> np.ndarray:
        """A tensor or an array of ours, as a NumPy array."""
        return array.detach().numpy() if hasattr(array, "detach") else np.asarray(array)

    @staticmethod
    def finish() -> None:
        """Wait until everything that was started is done."""


class Gpu:
    """The first GPU, for CuPy and PyTorch alike.   precision: that of matrix products, as in
    minicnn/backend/cuda/ops.py."""

    torch_device = "cuda"
    turn, pause = 0.2, 0.0          # seconds: Python's lead does not count, and the clock of the GPU stays high

    def __init__(self, torch, precision: str):
        from minicnn.backend.cuda.device import why_not

        if reason := why_not() or (None if torch.cuda.is_available() else "this PyTorch was built without CUDA"):
            sys.exit(f"error: this benchmark needs an NVIDIA GPU: {reason}")
        import cupy

        self.cupy, self.torch, self.precision = cupy, torch, precision
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.benchmark = True               # it may choose the fastest algorithm for each shape
        self.finish = torch.cuda.synchronize               # everything on the device, of CuPy and PyTorch

    def dtype(self, torch):
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)

    def tensor(self, tensor):
        return tensor.to(self.torch_device)

    def array(self, tensor):
        return self.cupy.from_dlpack(tensor.detach())

    activations = array

    def to_host(self, array) -> np.ndarray:
        return array.detach().cpu().numpy() if hasattr(array, "detach") else self.cupy.asnumpy(array)

    def captured(self, function, times: int):
        """`times` calls of a function of PyTorch, as one CUDA graph; the result replays it, and returns what the last
        call does."""
        side = self.torch.cuda.Stream()
        side.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(side):                  # PyTorch requires a warm-up on another stream
            for _ in range(3):
                function()
        self.torch.cuda.current_stream().wait_stream(side)
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            for _ in range(times):
                result = function()

        def replay():
            graph.replay()
            return result

        return replay

    def name(self) -> str:
        """The name under which results are stored: "NVIDIA H100 80GB HBM3"."""
        return self.torch.cuda.get_device_name()

    def limits(self, threads: int) -> tuple[str, dict]:
        """As Host's: PyTorch's matrix product in this precision, and a copy on the device."""
        options = {"device": self.torch_device, "dtype": self.dtype(self.torch)}
        a, b = (self.torch.randn(PRODUCT, PRODUCT, **options) for _ in range(2))
        out = self.torch.empty_like(a)
        x = self.torch.zeros(COPIED, device=self.torch_device)
        y = self.torch.empty_like(x)
        return "PyTorch", {"sgemm": (2e-9 * PRODUCT**3, lambda: self.torch.mm(a, b, out=out)),
                           "copy": (8e-9 * COPIED, lambda: y.copy_(x))}
