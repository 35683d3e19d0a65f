"""Pieces of LLVM IR that several files generate."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INT32, INT64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def next_index(typingctx, address):
    """The int64 at this address, which is then incremented, atomically."""
    def code(context, builder, signature, arguments):
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], INT64.as_pointer()), INT64(1), "monotonic")

    return types.int64(types.int64), code


def splat(builder, number, lanes: int):
    """A vector with the scalar in every lane."""
    undefined = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def lanes_below(builder, count, lanes: int, first: int = 0):
    """A mask: whether first + lane < count, lane by lane."""
    numbers = ir.Constant(ir.VectorType(INT64, lanes), list(range(first, first + lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, count, lanes))


def call_function(builder, name: str, returns, *arguments):
    """A call of one of LLVM's own functions."""
    function_type = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def suffix(vector: ir.VectorType) -> str:
    """How LLVM writes the type in names of functions: v16f32."""
    lane = vector.element
    return f"v{vector.count}" + {"float": "f32", "double": "f64"}.get(str(lane), str(lane))


def masked_load(builder, pointer, mask, align: int):
    """The elements where the mask is set, 0 elsewhere; pointer to a vector, align in bytes."""
    vector = pointer.type.pointee
    return call_function(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, pointer, INT32(align), mask,
                         ir.Constant(vector, None))


def masked_store(builder, vector, pointer, mask, align: int) -> None:
    """Store only the elements where the mask is set."""
    call_function(builder, f"llvm.masked.store.{suffix(vector.type)}.p0", ir.VoidType(), vector, pointer, INT32(align),
                  mask)


def prefetch(builder, pointer, for_writing: bool = False, locality: int = 3) -> None:
    """Begin to fetch the memory at pointer (to bytes) into the nearest cache; where there is none, nothing happens.

    locality: 3 for the nearest cache, 2 for the next one.
    """
    call_function(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, INT32(int(for_writing)), INT32(locality),
                  INT32(1))
