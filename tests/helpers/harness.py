"""Testing an operation: call it with uninitialised outputs, compare it with the reference, differentiate numerically.

`call` runs one operation on copies of its arguments, checks that it wrote what it may write and nothing else, and
returns what it wrote. `compare` compares that with the reference, computed in float64 from the same values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from minicnn.backend.ops import OPS, Ops
from minicnn.backend.select import get_ops
from tests.tolerances import assert_close


def garbage(shape, dtype) -> np.ndarray:
    """An output that has not been written yet: NaN, or 255 in bytes."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 255, dtype)


def on_host(ops: Ops) -> Ops:
    """The same operations for arrays of NumPy; on a GPU, these are copied there before each operation, and back."""
    if isinstance(ops.empty((1,), "uint8"), np.ndarray):
        return ops
    host = copy.copy(ops)
    host.empty, host.zeros, host.from_host, host.to_host = np.empty, np.zeros, Ops.from_host, Ops.to_host
    for name in (name for group in OPS.values() for name in group):
        setattr(host, name, _copying(ops, getattr(ops, name)))
    return host


def _copying(ops: Ops, operation: Callable) -> Callable:
    """The operation on copies of its arrays, which are copied back. An array that is given twice stays one."""
    def call(*args, **options):
        copies, originals = {}, {}

        def to_device(array):
            if id(array) not in copies:
                copies[id(array)], originals[id(array)] = ops.from_host(array), array
            return copies[id(array)]

        result = operation(*_each(to_device, args), **_each(to_device, options))
        for key, array in originals.items():
            array[...] = ops.to_host(copies[key])
        return result
    return call


def applied(ops, layer, *xs, **options) -> np.ndarray:
    """The output of a layer that is called outside a network."""
    return ops.to_host(layer(*xs, ops=ops, **options))


def _each(function, value):
    """The function applied to an array, or to the arrays of a list, tuple or dict; anything else is returned as is."""
    if isinstance(value, np.ndarray):
        return function(value)
    if isinstance(value, dict):
        return {key: _each(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each(function, item) for item in value)
    return value


def _arrays(value) -> list:
    """The arrays in there, in order."""
    found = []
    _each(found.append, value)
    return found


def call(ops, function: str, *args, writes: tuple[int, ...], **options):
    """ops.function(*args, **options) on copies; `writes` are the positions of the arguments it may write to.

    Returns these arguments after the call: one, or a tuple. The same array given twice stays one array. Everything else
    must be unchanged; only the option `work` may be overwritten.
    """
    copies, originals = {}, {}

    def to_device(array):
        if id(array) not in copies:
            copies[id(array)], originals[id(array)] = ops.from_host(array.copy()), array
        return copies[id(array)]

    device_args, device_options = _each(to_device, list(args)), _each(to_device, options)
    getattr(ops, function)(*device_args, **device_options)
    may_change = {id(array) for array in _arrays([args[i] for i in writes])} | {id(options.get("work"))}
    for key, array in originals.items():
        if key not in may_change:
            np.testing.assert_array_equal(ops.to_host(copies[key]), array, err_msg=f"{function} changed an input")
    written = tuple(_each(lambda array: ops.to_host(copies[id(array)]), args[i]) for i in writes)
    return written[0] if len(written) == 1 else written


def compare(ops, function: str, *args, writes: tuple[int, ...], kind: str, terms: int = 1, **options):
    """What `call` returns, after comparing it with the reference in float64."""
    seen = {}

    def double(array):
        if id(array) not in seen:
            seen[id(array)] = array.astype(np.float64) if array.dtype.kind == "f" else array
        return seen[id(array)]

    got = call(ops, function, *args, writes=writes, **options)
    exact_options = {key: value if key == "work" else _each(double, value) for key, value in options.items()} \
        | ({"work": None} if "work" in options else {})
    wanted = call(get_ops("reference"), function, *_each(double, list(args)), writes=writes, **exact_options)
    for a, b, given in zip(_arrays([got]), _arrays([wanted]), _arrays([args[i] for i in writes]), strict=True):
        assert a.dtype == given.dtype
        assert_close(a, b, kind, terms)
    return got


def numeric_gradient(forward, x: np.ndarray, dy: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """d/dx of sum(forward() * dy), element by element, by central differences; forward() reads x, which is changed."""
    assert x.dtype == np.float64
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        centre = x[i]
        x[i] = centre + eps
        above = forward()
        x[i] = centre - eps
        below = forward()
        x[i] = centre
        gradient[i] = ((above - below) * dy).sum() / (2 * eps)
    return gradient
