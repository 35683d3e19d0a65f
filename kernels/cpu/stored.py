"""How activations and their gradients are stored: as they are computed, or in bf16, in arrays of uint16.

    float32    s eeeeeeee mmmmmmm mmmmmmmmmmmmmmmm      what is computed with; parameters, sums, statistics
    bf16       s eeeeeeee mmmmmmm                       x, y, dx, dy, and what backward saves: half of the memory

A kernel computes with wide(x[i]) and writes y[i] = stored(value, y), once; what it keeps in between is of real(x). Of
arrays of floats that is x[i] and y[i] = value. `load` and `store` of vectors.py do the same.

Rounding is to the nearest, ties to even; infinities stay, and NaN becomes a quiet one: the same bits as on CUDA. The
instruction for it, vcvtneps2bf16, would write zeros for denormals.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, type_callable

from minicnn.kernels.cpu.llvm_code import INT32

BF16 = np.dtype(np.uint16)      # NumPy has no such type
NAN = 0x7FFF
INT16, FLOAT = ir.IntType(16), ir.FloatType()


def real(array) -> np.dtype:
    """What elements of the array are computed in: float32 for bf16. In kernels, too."""
    return np.dtype(np.float32) if array.dtype == BF16 else array.dtype


def computed_in(stored_type):
    """The same of Numba's types of elements."""
    return types.float32 if stored_type == types.uint16 else stored_type


@type_callable(real)
def _type_of_real(context):
    return lambda array: types.DType(computed_in(array.dtype)) if isinstance(array, types.Array) else None


@lower_builtin(real, types.Array)
def _real(context, builder, signature, arguments):
    return context.get_dummy_value()


@intrinsic
def wide(typingctx, value):
    """An element of an array, to compute with."""
    def code(context, builder, signature, arguments):
        return widened(builder, arguments[0]) if value == types.uint16 else arguments[0]
    return computed_in(value)(value), code


@intrinsic
def stored(typingctx, value, array):
    """The value as it is stored in the array."""
    if array.dtype != types.uint16:
        return value(value, array), lambda context, builder, signature, arguments: arguments[0]
    return (types.uint16(types.float32, array),
            lambda context, builder, signature, arguments: rounded(builder, arguments[0]))


# ---- scalars and vectors of LLVM
def widened(builder, halves):
    """The floats of these bf16."""
    bits = builder.zext(halves, _shaped(INT32, halves))
    return builder.bitcast(builder.shl(bits, _number(bits, 16)), _shaped(FLOAT, halves))


def rounded(builder, floats):
    """The bf16 of these floats."""
    bits = builder.bitcast(floats, _shaped(INT32, floats))
    odd = builder.and_(builder.lshr(bits, _number(bits, 16)), _number(bits, 1))
    nearest = builder.lshr(builder.add(bits, builder.add(odd, _number(bits, 0x7FFF))), _number(bits, 16))
    is_nan = builder.fcmp_unordered("uno", floats, floats)
    return builder.trunc(builder.select(is_nan, _number(bits, NAN), nearest), _shaped(INT16, floats))


def _shaped(lane, value):
    """The type of as many of these as the value has lanes."""
    return ir.VectorType(lane, value.type.count) if isinstance(value.type, ir.VectorType) else lane


def _number(value, number: int):
    return ir.Constant(value.type, [number] * value.type.count if isinstance(value.type, ir.VectorType) else number)
