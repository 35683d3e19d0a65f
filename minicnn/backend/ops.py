"""The seam between layers and kernels: the list of operations, and the backends that provide them.

A layer calls `ctx.ops.conv_forward(...)` and never learns which hardware runs it. Each backend binds the whole list:

    reference   kernels/reference, NumPy: the specification, slow and plain, with the derivations
    cpu         kernels/cpu, Numba: what trains
    cuda        kernels/cuda, CUDA C++ launched by CuPy (minicnn/backend/cuda/ops.py)

Every function writes into the arrays it is given (`y`, `dx`, `dw` ...) and returns nothing. Parameter gradients and db
accumulate (+=) unless `add` is False, counts and the state of a loss scale go on from what they are, everything else is
overwritten. Only `*_work`, the bytes of scratch space that an operation wants, and
`conv_algorithm`, how it will be computed in words, return something. A backend that lacks an operation cannot be made:
there is no silent slow path.
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
    "linear": ("linear_forward", "linear_backward_data", "linear_backward_weights", "linear_work"),
    "epilogue": ("epilogue_backward",),
    "activation": ("relu_forward", "relu_backward", "tanh_forward", "tanh_backward"),
    "pool": ("maxpool_forward", "maxpool_backward", "avgpool_forward", "avgpool_backward"),
    "lrn": ("lrn_forward", "lrn_backward", "lrn_within_forward", "lrn_within_backward"),
    "dropout": ("dropout_forward", "dropout_backward", "scale_forward"),
    "combine": ("concat_forward", "concat_backward", "add_forward", "add_backward", "accumulate"),
    "loss": ("softmax_forward", "softmax_cross_entropy_forward", "softmax_cross_entropy_backward"),
    "running_metrics": ("count_losses", "count_correct"),
    "loss_scale": ("find_overflow", "next_loss_scale"),
    "sgd": ("sgd_step",),
    "augment": ("augment_forward",),
}

BACKENDS = ("reference", "cpu", "cuda")


@dataclass(frozen=True)
class DeviceNumber:
    """A number that kernels read from the device's memory, for steps that are recorded once and replayed with others.

    array: one float64 on the device; the number is that many times `factor`.
    """

    array: object
    factor: float = 1.0

    def __mul__(self, factor: float) -> DeviceNumber:
        return DeviceNumber(self.array, self.factor * factor)


def address(array) -> int:
    """Where an array of NumPy or CuPy lies; a plain number, nothing is read."""
    return array.data.ptr if hasattr(array.data, "ptr") else array.ctypes.data


class Ops:
    """All operations of one backend as attributes, and its arrays (NumPy's, for backends on the host).

    name: "reference", "cpu" or "cuda".   spec: what get_ops makes the same from, such as "cuda:bf16".
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
        """The array on this backend's device; here it already is."""
        return np.ascontiguousarray(array)

    def upload(self, array: np.ndarray):
        """The same for a batch of images, which a device takes while it computes. For use before the next upload."""
        return self.from_host(array)

    @staticmethod
    def to_host(array) -> np.ndarray:
        """The array as NumPy's."""
        return np.asarray(array)

    def interconnect(self, place: int = 0) -> Interconnect:
        """How this backend's arrays pass between ranks. place: the rank's number among those on this machine."""
        return Interconnect()

    # A backend that can record: record(function) notes the operations that function() calls, which happen only when the
    # callable that it returns is called, as often as one likes; `lr` and `epoch` may then be DeviceNumbers. mark()
    # returns a function that waits until everything before the mark is done.
    capture: Callable[[Callable[[], None]], Callable[[], None]] | None = None
    record_event: Callable[[], Callable[[], None]] | None = None
    needs_loss_scale = False    # small gradients are lost in its products, unless scaled (train/loss_scale.py)

    def together(self) -> contextlib.AbstractContextManager:
        """Inside, operations that do not need each other's results; they may be done at its end, in one go."""
        return contextlib.nullcontext()

    def telling_of_compiling(self, tell: Callable[[str], None]) -> contextlib.AbstractContextManager:
        """While inside, tell(name) is called when a kernel is about to be compiled, which takes a second or so."""
        return contextlib.nullcontext()

    def report(self) -> str:
        """One line per operation: its name and the function that runs it."""
        rows = [(op, getattr(self, op)) for group in OPS.values() for op in group]
        return "\n".join(f"{op:32s}{function.__module__}.{function.__name__}" for op, function in rows)

    def __repr__(self) -> str:
        return f"Ops({self.name!r})"
