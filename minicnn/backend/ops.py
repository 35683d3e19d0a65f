"""The seam between layers and kernels: the list of operations, and the backends that provide them.

A layer calls `ctx.ops.conv_forward(...)` and does not know which hardware runs it. Each backend binds the whole list:

    reference   kernels/reference, NumPy: the specification, slow and plain, with the derivations
    cpu         kernels/cpu, Numba: for training
    cuda        kernels/cuda, CUDA C++ launched by CuPy (minicnn/backend/cuda/ops.py)

Every function writes into the arrays it is given (`y`, `dx`, `dw` ...) and returns nothing. Parameter gradients and db
accumulate (+=) unless `add` is False, counts and the state of a loss scale are updated, everything else is overwritten.
Only `*_work`, the bytes of scratch space that an operation needs, and `conv_algorithm`, the name of its algorithm,
return something. A backend that lacks an operation cannot be created: there is no silent slow path.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minicnn.backend.interconnect import Interconnect
from minicnn.errors import DeviceError

# module in kernels/<backend>/ -> the operations it must provide
OPS: dict[str, tuple[str, ...]] = {
    "conv": ("conv_forward", "conv_backward_data", "conv_backward_weights", "conv_work", "conv_algorithm"),
    "linear": ("linear_forward", "linear_backward_data", "linear_backward_weights", "linear_sgd_step",
               "linear_work"),
    "epilogue": ("epilogue_backward",),
    "activation": ("relu_forward", "relu_backward", "leaky_relu_forward", "leaky_relu_backward",
                   "clipped_relu_forward", "clipped_relu_backward", "tanh_forward", "tanh_backward",
                   "sigmoid_forward", "sigmoid_backward", "gelu_forward", "gelu_backward"),
    "pool": ("maxpool_forward", "maxpool_backward", "avgpool_forward", "avgpool_backward",
             "global_avgpool_forward", "global_avgpool_backward", "adaptive_avgpool_forward",
             "adaptive_avgpool_backward"),
    "lrn": ("lrn_forward", "lrn_backward", "lrn_maxpool_forward", "lrn_maxpool_backward", "lrn_within_forward",
            "lrn_within_backward"),
    "batchnorm": ("batchnorm_statistics", "batchnorm_fixed_statistics", "batchnorm_update_statistics", "affine_forward",
                  "affine_backward_weights", "affine_backward_data"),
    "dropout": ("dropout_forward", "dropout_backward", "scale_forward"),
    "combine": ("concat_forward", "concat_backward", "add_forward", "add_backward", "subsample_forward",
                "subsample_backward", "accumulate"),
    "loss": ("softmax_forward", "softmax_cross_entropy_forward", "softmax_cross_entropy_backward"),
    "running_metrics": ("count_losses", "count_correct"),
    "loss_scale": ("find_overflow", "next_loss_scale"),
    "sgd": ("sgd_step",),
    "rms_limit": ("rms_limit_step",),
    "adam": ("adam_advance", "adam_step"),
    "ema": ("ema_advance", "ema_step"),
    "augment": ("augment_forward",),
    "resize_crop": ("resize_crop_forward", "cutout_forward"),
}

BACKENDS = ("reference", "cpu", "cuda")


@dataclass(frozen=True)
class DeviceNumber:
    """A scalar that kernels read from device memory, so that a captured step can be replayed with other values.

    array: one float64 on the device; the scalar is its value times `factor`.
    """

    array: object
    factor: float = 1.0

    def __mul__(self, factor: float) -> DeviceNumber:
        return DeviceNumber(self.array, self.factor * factor)


def address(array) -> int:
    """The address of an array of NumPy or CuPy; nothing is read."""
    return array.data.ptr if hasattr(array.data, "ptr") else array.ctypes.data


class Ops:
    """All operations of one backend as attributes, and its arrays (NumPy's, for backends on the host).

    name: "reference", "cpu" or "cuda".   spec: the device name for which get_ops returns the same, such as "cuda:bf16".
    """

    def __init__(self, name: str, kernels: str):
        self.name = self.spec = name
        for module_name, functions in OPS.items():
            module = importlib.import_module(f"{kernels}.{module_name}")
            for function in functions:
                if not hasattr(module, function):
                    raise DeviceError(f"backend {name!r} lacks the operation {function}, expected in {module.__name__}")
                setattr(self, function, getattr(module, function))

    empty = staticmethod(np.empty)
    zeros = staticmethod(np.zeros)

    @staticmethod
    def from_host(array: np.ndarray) -> np.ndarray:
        """The array on this backend's device, which here is the host."""
        return np.asarray(array, order="C")             # not ascontiguousarray, which gives 0-d arrays an axis

    def upload(self, array: np.ndarray):
        """from_host for a batch of images, copied while the device computes. Valid until the next upload."""
        return self.from_host(array)

    @staticmethod
    def to_host(array) -> np.ndarray:
        """The array as a NumPy array."""
        return np.asarray(array)

    # ---- activations, which may be stored with fewer bits than are computed with
    def stored_dtype(self, dtype: str) -> str:
        """The dtype of activations and their gradients in a network of this dtype; "uint16" for bf16."""
        return dtype

    def widened(self, array):
        """An activation in the network's dtype: the array itself, where that is how it is stored."""
        return array

    def write(self, target, values) -> None:
        """target = values, rounded to what the target is stored in; both are arrays of the same shape."""
        target[...] = values

    def interconnect(self, local_rank: int = 0) -> Interconnect:
        """How arrays pass between ranks. local_rank: the rank's index among those of this machine."""
        return Interconnect()

    # For backends with CUDA graphs: capture(function) captures the operations that function() calls, without running
    # them, and returns a callable that replays them; `lr` and `epoch` may then be DeviceNumbers. record_event() returns
    # a function that waits until everything before the event is done.
    capture: Callable[[Callable[[], None]], Callable[[], None]] | None = None
    record_event: Callable[[], Callable[[], None]] | None = None
    free_memory: Callable[[], int] | None = None        # bytes, where arrays are not in the host's memory
    fusions: frozenset[str] = frozenset()   # in which this backend saves passes over memory, of plan.FUSIONS
    needs_loss_scale = False    # its products underflow for small gradients, unless scaled (train/loss_scale.py)

    def together(self) -> contextlib.AbstractContextManager:
        """For operations inside that do not need each other's results; they may run together at the end."""
        return contextlib.nullcontext()

    def telling_of_compiling(self, tell: Callable[[str], None]) -> contextlib.AbstractContextManager:
        """Inside, tell(name) is called before a kernel is compiled, which takes about a second."""
        return contextlib.nullcontext()

    def report(self) -> str:
        """One line per operation: its name and its function."""
        rows = [(op, getattr(self, op)) for group in OPS.values() for op in group]
        return "\n".join(f"{op:32s}{function.__module__}.{function.__name__}" for op, function in rows)

    def __repr__(self) -> str:
        return f"Ops({self.name!r})"
