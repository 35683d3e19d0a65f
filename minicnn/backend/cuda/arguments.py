"""Arguments of kernels, checked and in exactly the form that a kernel reads.

CuPy does not check arguments: it passes a Python float as 8 bytes where the kernel reads 4, and ignores an array's
strides. A step has hundreds of arguments, so `checker` prepares one function for each parameter, which checks them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from minicnn.backend.cuda.source import DIVISOR, REAL, Parameter
from minicnn.errors import ShapeError

LARGEST = 2**31             # kernels index with 32 bits


def checker(kernel: str, parameter: Parameter, real: str, owns: Callable[[object], bool],
            bf16: bool = False) -> Callable:
    """value -> the argument: an array as it is, a number or struct as NumPy's. real: the file's number type.
    owns: whether an array is the device's.   bf16: activations are stored so. The function raises ShapeError for an
    argument that does not fit."""
    what = f"{kernel}: {parameter.name}"
    if real not in REAL:
        raise ShapeError(f"{what} must be float32 or float64, it is {real}")
    dtype = parameter.dtype(real, bf16)
    if parameter.pointer:
        return _array(what, dtype, owns)
    if parameter.fields:
        return _struct(what, dtype)
    return _divisor(what) if dtype == DIVISOR else _number(what, dtype)


def _array(what: str, dtype: np.dtype, owns: Callable[[object], bool]) -> Callable:
    def check(value):
        if value is None:
            return None
        if not owns(value):
            raise ShapeError(f"{what} must be an array of this backend's device, it is {type(value).__module__}."
                             f"{type(value).__name__}; see ops.from_host")
        if value.dtype != dtype:
            raise ShapeError(f"{what} must be {dtype}, it is {value.dtype}")
        if not value.flags.c_contiguous:
            raise ShapeError(f"{what}, an array of shape {value.shape}, is not C-contiguous")
        if value.size >= LARGEST:
            raise ShapeError(f"{what} has {value.size:,} elements, more than the {LARGEST - 1:,} that a kernel can "
                             "index; use a smaller batch")
        return value
    return check


def _number(what: str, dtype: np.dtype) -> Callable:
    """A NumPy scalar: CuPy passes it by exactly its size."""
    if dtype.kind == "f":
        return dtype.type
    low, high, make = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), dtype.type

    def check(value):
        if not low <= value <= high or value != int(value):
            raise ShapeError(f"{what} = {value} does not fit {dtype}; use a smaller batch or smaller layers")
        return make(value)
    return check


def _divisor(what: str) -> Callable:
    """A Divisor, as an array of one: CuPy passes that by its bytes."""
    fields = _divisors(what)
    return cache(lambda value: np.array([fields(value)], DIVISOR))


def _divisors(what: str) -> Callable:
    def check(value):
        if not 0 <= value < LARGEST:
            raise ShapeError(f"{what} = {value} cannot be a divisor, expected 0 to {LARGEST - 1}; use a smaller "
                             "batch or smaller layers")
        return divisor(value)
    return check


def _struct(what: str, dtype: np.dtype) -> Callable:
    """Fields from a dict, as an array of one. Every step uses the same structs, so they are cached."""
    checks = {name: _divisors(f"{what}.{name}") if dtype[name] == DIVISOR else _number(f"{what}.{name}", dtype[name])
              for name in dtype.names}
    make = cache(lambda *values: np.array([tuple(check(value) for check, value in zip(checks.values(), values,
                                                                                      strict=True))], dtype))
    return lambda value: make(*(value[name] for name in checks))


def divisor(by: int) -> tuple[int, int, int]:
    """A Divisor of common.cuh: n // by == (2 n * magic >> 32) >> shift for all n < 2^31."""
    shift = max(by - 1, 0).bit_length()
    return by, -(-(1 << 31 + shift) // max(by, 1)), shift
