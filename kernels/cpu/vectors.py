"""Vectors of LANES elements as values inside kernels: LRN, pooling and batch normalisation are written with them.

    a[i : i+16]   +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
                  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |    v = load(a, i, LANES)
                  +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+    store(b, i, LANES, v * v + splat(k))

LLVM vectorises plain loops, but often not those with windows, masks and short rows. Here the vectors are explicit. The
number of lanes is the same on every machine and for every type: 16 floats are one register of AVX-512, two of AVX2 or
four of NEON, and 16 bytes are one register of any of them.

The last vector of a row is shorter: `count` lanes are loaded (the others are 0) or stored. Where count is the constant
LANES, that is an ordinary load or store; where it is None, one of WIDE elements, for sums along the other axis: four of
them at a time fill a core's pipelines, and read memory in long runs. Arrays have one axis, and no index is checked. An
array of uint16 holds bf16 (stored.py): the vectors that are loaded and stored are of float32.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from minicnn.kernels.cpu import llvm_code
from minicnn.kernels.cpu.compiling import FASTMATH
from minicnn.kernels.cpu.llvm_code import lanes_below, masked_load, masked_store
from minicnn.kernels.cpu.memory import ALIGN
from minicnn.kernels.cpu.stored import computed_in, rounded, widened

LANES = 16
WIDE = 4 * LANES
AHEAD = 512              # how far ahead memory is prefetched, in elements: 2 KiB of floats

# A piece of a kernel: it is inlined into each kernel that calls it, with that caller's constants, and cannot be called
# from elsewhere.
part = njit(nogil=True, fastmath=FASTMATH, error_model="numpy", forceinline=True, no_cpython_wrapper=True,
            no_cfunc_wrapper=True)


class Vector(types.Type):
    """The type of LANES (or WIDE) elements of a type; a comparison gives one of booleans."""

    def __init__(self, dtype, lanes=LANES):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"{lanes} x {dtype}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        lane = ir.IntType(1) if vector.dtype == types.boolean else manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(lane, vector.lanes))


def _define(operation, instruction, gives=None):
    """v operation w for two vectors of one type, lane by lane; a vector of that type, or of elements `gives`."""
    @type_callable(operation)
    def typing(context):
        def result(v, w):
            if isinstance(v, Vector) and v == w:
                return Vector(gives, v.lanes) if gives else v
        return result

    @lower_builtin(operation, Vector, Vector)
    def lower(context, builder, signature, arguments):
        return instruction(builder, *arguments)


_define(operator.add, ir.IRBuilder.fadd)
_define(operator.sub, ir.IRBuilder.fsub)
_define(operator.mul, ir.IRBuilder.fmul)
_define(operator.truediv, ir.IRBuilder.fdiv)
_define(operator.or_, ir.IRBuilder.or_)                                         # of masks
_define(operator.gt, lambda builder, v, w: builder.fcmp_ordered(">", v, w), types.boolean)
_define(operator.ne, lambda builder, v, w: builder.fcmp_unordered("!=", v, w), types.boolean)  # v != v: where v is NaN
_define(operator.eq, lambda builder, v, w: builder.icmp_signed("==", v, w), types.boolean)     # of integers


def _address(context, builder, array_type, array, i, what):
    """The address of array[i], as a pointer to `what`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [i]), what.as_pointer())


@intrinsic
def load(typingctx, array, i, count):
    """array[i : i+count], and 0 in the other lanes; WIDE elements where count is None."""
    lanes, bytes_of_one = WIDE if count == types.none else LANES, array.dtype.bitwidth // 8

    def code(context, builder, signature, arguments):
        memory = context.get_value_type(Vector(array.dtype, lanes))
        address = _address(context, builder, array, *arguments[:2], memory)
        if count == types.none:
            v = builder.load(address, align=bytes_of_one)
        else:
            v = masked_load(builder, address, lanes_below(builder, arguments[2], LANES), bytes_of_one)
        return widened(builder, v) if array.dtype == types.uint16 else v
    counted = types.none if count == types.none else types.intp
    return Vector(computed_in(array.dtype), lanes)(array, types.intp, counted), code


def _as_stored(builder, array, v):
    """What is written into the array for this vector."""
    return rounded(builder, v) if array.dtype == types.uint16 else v


@intrinsic
def store(typingctx, array, i, count, v):
    """array[i : i+count] = v; all of v where count is None."""
    def code(context, builder, signature, arguments):
        written, bytes_of_one = _as_stored(builder, array, arguments[3]), array.dtype.bitwidth // 8
        address = _address(context, builder, array, *arguments[:2], written.type)
        if count == types.none:
            builder.store(written, address, bytes_of_one)
        else:
            masked_store(builder, written, address, lanes_below(builder, arguments[2], LANES), bytes_of_one)
        return context.get_dummy_value()
    return types.void(array, types.intp, types.none if count == types.none else types.intp, v), code


@intrinsic
def stream(typingctx, array, i, v):
    """array[i : i+LANES] = v, past the caches: for what is not read again soon, in more memory than a cache holds.

    The address must be a multiple of ALIGN bytes, or of the vector's size where that is less.
    """
    def code(context, builder, signature, arguments):
        written = _as_stored(builder, array, arguments[2])
        address = _address(context, builder, array, *arguments[:2], written.type)
        instruction = builder.store(written, address, min(ALIGN, LANES * array.dtype.bitwidth // 8))
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()
    return types.void(array, types.intp, v), code


@intrinsic
def splat(typingctx, number):
    """The scalar in every lane."""
    def code(context, builder, signature, arguments):
        return llvm_code.splat(builder, *arguments, LANES)
    return Vector(number)(number), code


@intrinsic
def like(typingctx, v, number):
    """The scalar in as many lanes as v has."""
    def code(context, builder, signature, arguments):
        return llvm_code.splat(builder, arguments[1], v.lanes)
    return v(v, v.dtype), code


@intrinsic
def select(typingctx, mask, v, w):
    """v where the mask is set, w elsewhere."""
    return v(mask, v, w), lambda context, builder, signature, arguments: builder.select(*arguments)


def _function(name):
    """LLVM's function of this name, lane by lane."""
    def code(context, builder, signature, arguments):
        vector = arguments[0].type
        return llvm_code.call_function(builder, f"llvm.{name}.{llvm_code.suffix(vector)}", vector, *arguments)
    return code


@intrinsic
def sqrt(typingctx, v):
    """Square roots. 1 / sqrt(v) becomes an estimate and a Newton step where that is faster: 3e-7 off, in float32."""
    return v(v), _function("sqrt")


@intrinsic
def power(typingctx, v, w):
    """v to the power of w: sixteen calls of the scalar function."""
    return v(v, w), _function("pow")


def _prefetch(for_writing):
    def code(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments, ir.IntType(8))
        llvm_code.prefetch(builder, address, for_writing)
        return context.get_dummy_value()
    return code


@intrinsic
def fetch(typingctx, array, i):
    """Prefetch array[i] into the cache; i may be out of range."""
    return types.void(array, types.intp), _prefetch(False)


@intrinsic
def fetch_to_write(typingctx, array, i):
    """The same for memory that will be written: it is taken from the caches of other cores."""
    return types.void(array, types.intp), _prefetch(True)
