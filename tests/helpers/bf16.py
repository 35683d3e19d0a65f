"""bf16 in NumPy, which has no such type: as uint16, as in minicnn; and operations on such arrays, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from minicnn.backend.ops import OPS, Ops
from minicnn.backend.select import get_ops
from tests.tolerances import TOLERANCES

# The arguments that are activations or their gradients, and those that kernels take as doubles.
ACTIVATIONS = {"x", "y", "dy", "dx", "dz", "xs", "dxs", "residual"}
DOUBLES = {"var", "sums", "counts", "top", "left", "height", "width"}
WITHOUT = {"optimisers": ("sgd_step", "rms_limit_step", "adam_advance", "adam_step", "ema_advance", "ema_step"),
           "others": ("find_overflow", "next_loss_scale", "count_losses", "batchnorm_fixed_statistics",
                      "batchnorm_update_statistics", "conv_work", "conv_algorithm", "linear_work")}
# What two kernels do, for channels that are no multiple of four: db is the sum of a dx that was stored, and the
# gradient between pooling and LRN is rounded, too. The sum of three values is rounded twice.
SUMS_WHAT_IS_STORED = ("lrn_backward", "lrn_maxpool_backward")
ROUNDINGS = {"add_forward": 2, "lrn_maxpool_backward": 4}
HALF = 2.0**-9              # half a unit in the last place of 8 bits, relative to the power of two above


def to_bf16(array) -> np.ndarray:
    """To the nearest, ties to even; NaN stays NaN."""
    with np.errstate(over="ignore"):
        array = np.asarray(array, np.float32)
    bits = array.view(np.uint32) if array.ndim else array.reshape(1).view(np.uint32).reshape(())
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), np.uint16(0x7FFF), rounded)


def from_bf16(array: np.ndarray) -> np.ndarray:
    return (array.astype(np.uint32) << 16).view(np.float32)


class Checked(Ops):
    """Each operation with its activations in bf16 on `ops`, compared at once with the reference in float64.

    It is given arrays of float64, and writes what `ops` has computed into them. What is written in bf16 must be the
    exact result, rounded once to the nearest: within half a unit in the last place, and what float32 sums are off.
    rounds_weights: the products round their operands, so weights are rounded before.
    """

    def __init__(self, ops: Ops, rounds_weights: bool = False):
        super().__init__("reference", "minicnn.kernels.reference")
        self.checked: set[str] = set()
        for name in (name for group in OPS.values() for name in group):
            if not any(name in group for group in WITHOUT.values()):
                setattr(self, name, self._checking(name, ops, rounds_weights))

    def _checking(self, name: str, ops: Ops, rounds_weights: bool) -> Callable:
        specification = getattr(get_ops("reference"), name)
        signature = inspect.signature(specification)

        def call(*args, **options):
            given = signature.bind(*args, **options).arguments
            rounded = {"w"} if rounds_weights and name.startswith(("conv", "linear")) and "sgd" not in name else set()
            seen: dict[int, tuple] = {}                     # an array that is given twice stays one

            def kept(array, argument):
                if id(array) not in seen:
                    device = _narrowed(array, argument, name, rounded)
                    host = from_bf16(device) if device.dtype == np.uint16 else device
                    exact = host.astype(np.float64) if host.dtype.kind == "f" else host.copy()
                    seen[id(array)] = array, ops.from_host(device), exact
                return seen[id(array)]

            for where, of in ((1, getattr(ops, name)), (2, specification)):
                of(**{key: None if key == "work" else _each(lambda array, key=key, where=where: kept(array, key)[where],
                                                            value) for key, value in given.items()})
            for array, device, exact in seen.values():
                got = ops.to_host(device)
                _compare(name, got, exact)
                array[...] = from_bf16(got) if got.dtype == np.uint16 else got
            self.checked.add(name)
        return call


def _each(function: Callable, value):
    if isinstance(value, np.ndarray):
        return function(value)
    return type(value)(_each(function, item) for item in value) if isinstance(value, (list, tuple)) else value


def _narrowed(array: np.ndarray, argument: str, name: str, rounded: set) -> np.ndarray:
    """What the device is given for an argument."""
    if array.dtype.kind != "f" or argument in DOUBLES or (argument == "mean" and name.startswith(("batch", "affine"))):
        return array.copy()
    if argument in rounded:
        return from_bf16(to_bf16(array))
    return to_bf16(array) if argument in ACTIVATIONS else array.astype(np.float32)


def half_a_unit(exact: np.ndarray) -> np.ndarray:
    """Of bf16, in the last place of these values."""
    return HALF * np.exp2(np.floor(np.log2(np.abs(exact) + 1e-30)) + 1)


def _compare(name: str, got: np.ndarray, exact: np.ndarray) -> None:
    if got.dtype.kind == "u" and got.dtype != np.uint16 or got.dtype.kind == "i":
        np.testing.assert_array_equal(got, exact, err_msg=name)
        return
    rtol, atol = TOLERANCES["sum"]["float32"]
    allowed = rtol * np.abs(exact) + 10 * atol + 0.03 * (name in SUMS_WHAT_IS_STORED and got.dtype == np.float32)
    if got.dtype == np.uint16:
        got = from_bf16(got)
        allowed += ROUNDINGS.get(name, 1) * half_a_unit(exact)
    assert np.array_equal(np.isnan(got), np.isnan(exact)), name
    wrong = np.abs(got - exact) > allowed
    assert not wrong.any(), f"{name}: {got[wrong][:4]} where {exact[wrong][:4]} was expected"
