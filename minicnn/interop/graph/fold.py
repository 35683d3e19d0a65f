"""Values that are known before any image is: what exporters compute from shapes and constants, evaluated by NumPy."""

from __future__ import annotations

from math import prod

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.graph.neutral import Op, refuse

MAX_ELEMENTS = 1_000_000        # of a result


def evaluate(op: Op, arrays: list[np.ndarray | None]) -> np.ndarray | list[np.ndarray]:
    """The outputs of an operation whose inputs are all known. CheckpointError for one that is not evaluated here."""
    if op.kind not in FOLDS:
        raise refuse(op, "is applied to constants, which is not evaluated here", advice="fold constants before the "
                     "export, such as with onnxsim")
    largest = max([MAX_ELEMENTS, *(array.size for array in arrays if array is not None)])
    try:
        if (size := _size(op, arrays)) > largest:
            raise refuse(op, f"makes {size:,} elements from nothing", advice="store weights in the file")
        with np.errstate(all="ignore"):
            result = FOLDS[op.kind](op, *arrays)
    except CheckpointError:
        raise
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError, KeyError) as error:
        raise refuse(op, f"cannot be evaluated: {error}", shapes=[a.shape for a in arrays if a is not None]) from error
    return result


def _size(op: Op, arrays: list) -> int:
    """The elements that a result will have, where these can be more than the inputs have."""
    if op.kind in ("add", "sub", "mul", "div", "pow", "equal"):
        return prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    if op.kind == "concat":
        return sum(array.size for array in arrays)
    if op.kind == "gather":
        return arrays[1].size * (arrays[0].size // max(1, arrays[0].shape[op.attrs.get("axis", 0)]))
    return 0


def setting(op: Op, name: str, arrays: list, index: int, default=None):
    """An attribute that later versions of the operator have as an input."""
    if name in op.attrs:
        return op.attrs[name]
    given = arrays[index] if index < len(arrays) else None
    return default if given is None else np.asarray(given).reshape(-1).tolist()


def _sized(op: Op, shape) -> tuple[int, ...]:
    """A shape that is not too large. CheckpointError otherwise."""
    shape = tuple(int(size) for size in np.asarray(shape).reshape(-1))
    if min(shape, default=0) < 0 or prod(shape) > MAX_ELEMENTS:
        raise refuse(op, f"makes an array of the shape {shape}", advice=f"the limit is {MAX_ELEMENTS:,} elements")
    return shape


def _reshape(op: Op, x, shape=None):
    wanted = [int(size) for size in (op.attrs["shape"] if shape is None else np.asarray(shape).reshape(-1))]
    return x.reshape([x.shape[k] if size == 0 and not op.attrs.get("allowzero") else size
                      for k, size in enumerate(wanted)])


def _slice(op: Op, x, *inputs):
    arrays = [x, *inputs]
    starts, ends = setting(op, "starts", arrays, 1), setting(op, "ends", arrays, 2)
    axes = setting(op, "axes", arrays, 3, list(range(len(starts))))
    steps = setting(op, "steps", arrays, 4, [1] * len(starts))
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        low = -x.shape[axis] - 1
        index[axis] = slice(start, None if step < 0 and end < low else end, step)
    return x[tuple(index)]


def _squeeze(op: Op, x, *inputs):
    axes = setting(op, "axes", [x, *inputs], 1)
    return np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze(op: Op, x, *inputs):
    axes = setting(op, "axes", [x, *inputs], 1)
    return np.expand_dims(x, tuple(axes))


def _split(op: Op, x, *inputs):
    axis, sizes = op.attrs.get("axis", 0), setting(op, "sizes", [x, *inputs], 1)
    if sizes is None:
        part = -(-x.shape[axis] // len(op.outputs))
        sizes = [min(part, x.shape[axis] - part * k) for k in range(len(op.outputs))]
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _range(op: Op, start, limit, delta):
    count = max(0, int(np.ceil((limit - start) / delta)))
    _sized(op, [count])
    return np.asarray(start + delta * np.arange(count), np.asarray(start).dtype)


def _divide(op: Op, a, b):
    """Of integers towards zero."""
    if np.asarray(a).dtype.kind in "iu" and np.asarray(b).dtype.kind in "iu":
        return np.asarray(np.trunc(a / b), np.asarray(a).dtype)
    return np.divide(a, b)


FOLDS = {
    "identity": lambda op, x: x, "shape": lambda op, x: np.array(x.shape[op.attrs["start"]:op.attrs["end"]], np.int64),
    "constantofshape": lambda op, shape: np.full(_sized(op, shape), op.attrs["value"]),
    "gather": lambda op, x, index: np.asarray(np.take(x, index, op.attrs.get("axis", 0))),
    "slice": _slice, "concat": lambda op, *xs: np.concatenate(xs, op.attrs["axis"]),
    "squeeze": _squeeze, "unsqueeze": _unsqueeze, "reshape": _reshape, "split": _split,
    "flatten": lambda op, x: x.reshape(prod(x.shape[:op.attrs["axis"]]), -1),
    "transpose": lambda op, x: x.transpose(op.attrs.get("perm")),
    "cast": lambda op, x: np.asarray(x).astype(op.attrs["to"]),
    "add": lambda op, *xs: np.asarray(sum(xs[1:], xs[0])), "sub": lambda op, a, b: np.subtract(a, b),
    "mul": lambda op, a, b: np.multiply(a, b), "div": _divide, "neg": lambda op, x: np.negative(x),
    "pow": lambda op, a, b: np.power(a, b), "sqrt": lambda op, x: np.sqrt(x),
    "equal": lambda op, a, b: np.equal(a, b), "range": _range,
    "expand": lambda op, x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, _sized(op, shape))),
}
