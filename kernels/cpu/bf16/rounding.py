"""Rows of activations and parameters -> bf16 in the orders that blocks read; and sums -> rows.

    take_run       elements of a row -> bf16                                                    rows of a
    pair_rows      rows r and r + 1 -> (r[0], r+1[0], r[1], r+1[1], ...)                        rows of b
    transpose_rows      32 rows of 16 bf16 -> 16 rows of 32 bf16: target[c] = source[:, c]           a, transposed
    transpose_words     16 rows of 16 words of 32 bits (floats, or pairs of bf16) -> 16 rows of 16 words, likewise
    transpose_sums      the same of sums -> rows of dx
    finish_rows    sums -> rows of y or dx, with bias and ReLU

Addresses are integers, in bytes. The array to which an address belongs, the first argument, says whether there are
floats or bf16 (stored.py); of bf16, nothing is rounded on the way in, and sums are rounded once on the way out.

Rounding is to the nearest, ties to even, by vcvtneps2bf16, which makes zeros of denormals (stored.py keeps them). A
processor without the instruction rounds by integer arithmetic, with the same bits: tests of these run everywhere.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.kernels.cpu.bf16 import available
from minicnn.kernels.cpu.llvm_code import (
    INT32,
    INT64,
    call_function,
    lanes_below,
    masked_load,
    masked_store,
    prefetch,
)
from minicnn.kernels.cpu.vectors import LANES, part

FLOATS, PAIRS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(INT32, LANES)
HALVES, WIDE = (ir.VectorType(ir.IntType(16), lanes) for lanes in (LANES, 2 * LANES))
BYTE = ir.IntType(8).as_pointer()
ROUNDING = "llvm.x86.avx512bf16.cvtneps2bf16.512"


def pointer(builder, address, vector):
    return builder.inttoptr(address, vector.as_pointer())


def _constant(value: int):
    return ir.Constant(PAIRS, [value] * LANES)


def rounded(builder, floats):
    """16 x bf16, as integers."""
    if "avx512bf16" in available.compiled_for():
        return call_function(builder, ROUNDING, HALVES, floats)
    bits = builder.bitcast(floats, PAIRS)
    odd = builder.and_(builder.lshr(bits, _constant(16)), _constant(1))
    nearest = builder.add(bits, builder.add(odd, _constant(0x7FFF)))
    denormal = builder.icmp_unsigned("==", builder.and_(bits, _constant(0x7F800000)), _constant(0))
    nearest = builder.select(denormal, builder.and_(bits, _constant(0x80000000)), nearest)
    nearest = builder.select(builder.fcmp_unordered("uno", floats, floats), builder.or_(bits, _constant(0x400000)),
                             nearest)
    return builder.trunc(builder.lshr(nearest, _constant(16)), HALVES)


def _pairs(builder, low, high):
    """16 x (low, high), of 16 x bf16 each."""
    low, high = builder.zext(low, PAIRS), builder.zext(high, PAIRS)
    return builder.or_(low, builder.shl(high, _constant(16)))


def _transposed(builder, rows: list) -> list:
    """16 vectors of 16 lanes, transposed in four stages of exchanges."""
    for stage in (1, 2, 4, 8):
        low = ir.Constant(PAIRS, [j if not j & stage else LANES + j - stage for j in range(LANES)])
        high = ir.Constant(PAIRS, [j + stage if not j & stage else LANES + j for j in range(LANES)])
        new = list(rows)
        for i in (i for i in range(LANES) if not i & stage):
            new[i] = builder.shuffle_vector(rows[i], rows[i + stage], low)
            new[i + stage] = builder.shuffle_vector(rows[i], rows[i + stage], high)
        rows = new
    return rows


def _operation(count: int, write, array=None):
    """What an intrinsic of `count` integers returns: its signature, and its code write(builder, *arguments).

    array: the type of an array that is the first argument, and is not passed on.
    """
    def code(context, builder, signature, arguments):
        write(builder, *arguments[array is not None:])
        return context.get_dummy_value()

    return types.void(*[array] * (array is not None), *[types.int64] * count), code


def holds_bf16(array) -> bool:
    """Of Numba's type of an array."""
    return array.dtype == types.uint16


@intrinsic
def is_bf16(typingctx, array):
    """Whether the array holds bf16: a constant, so what is not done for it is not compiled into a kernel."""
    return types.boolean(array), lambda context, builder, signature, arguments: ir.IntType(1)(holds_bf16(array))


def _vector(array):
    """The type of 16 elements of an array, and the bytes of one."""
    return (HALVES, 2) if holds_bf16(array) else (FLOATS, 4)


@intrinsic
def round_all(typingctx, source, target):
    """16 floats at source -> 16 bf16 at target."""
    def write(builder, source, target):
        floats = builder.load(pointer(builder, source, FLOATS), align=4)
        builder.store(rounded(builder, floats), pointer(builder, target, HALVES), align=2)

    return _operation(2, write)


@intrinsic
def round_some(typingctx, source, target, count):
    """The same for the first `count` of 16; nothing else is touched."""
    def write(builder, source, target, count):
        mask = lanes_below(builder, count, LANES)
        floats = masked_load(builder, pointer(builder, source, FLOATS), mask, 4)
        masked_store(builder, rounded(builder, floats), pointer(builder, target, HALVES), mask, 2)

    return _operation(3, write)


@part
def round_run(source, target, count):
    """`count` floats at source -> as many bf16 at target."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        round_all(source + i * 4, target + i * 2)
    if whole < count:
        round_some(source + whole * 4, target + whole * 2, count - whole)


@intrinsic
def zero_some(typingctx, target, count):
    """Zeros in place of the first `count` of 16 bf16."""
    def write(builder, target, count):
        mask = lanes_below(builder, count, LANES)
        masked_store(builder, ir.Constant(HALVES, None), pointer(builder, target, HALVES), mask, 2)

    return _operation(2, write)


@part
def zero_run(target, count):
    """Zeros in place of `count` bf16."""
    for i in range(0, count, LANES):
        zero_some(target + i * 2, count - i)


@intrinsic
def _copy_all(typingctx, source, target):
    """32 bf16."""
    def write(builder, source, target):
        builder.store(builder.load(pointer(builder, source, WIDE), align=2), pointer(builder, target, WIDE), align=2)

    return _operation(2, write)


@intrinsic
def _copy_some(typingctx, source, target, count):
    """The first `count` of 32 bf16."""
    def write(builder, source, target, count):
        mask = lanes_below(builder, count, 2 * LANES)
        masked_store(builder, masked_load(builder, pointer(builder, source, WIDE), mask, 2),
                     pointer(builder, target, WIDE), mask, 2)

    return _operation(3, write)


@part
def copy_run(source, target, count):
    """`count` bf16; from 32 on, the last 32 may be copied twice."""
    if count < 2 * LANES:
        _copy_some(source, target, count)
    else:
        for i in range(0, count - 2 * LANES, 2 * LANES):
            _copy_all(source + i * 2, target + i * 2)
        _copy_all(source + (count - 2 * LANES) * 2, target + (count - 2 * LANES) * 2)


@part
def take_run(x, source, target, count):
    """`count` elements of x at source -> as many bf16 at target."""
    if is_bf16(x):
        copy_run(source, target, count)
    else:
        round_run(source, target, count)


@intrinsic
def pair_rows(typingctx, x, first, second, target, count_first, count_second):
    """16 pairs of two rows of x; only the first count_... of a row exist (0 to 16), the others are 0."""
    vector, size = _vector(x)

    def write(builder, first, second, target, count_first, count_second):
        halves = [masked_load(builder, pointer(builder, row, vector), lanes_below(builder, count, LANES), size)
                  for row, count in ((first, count_first), (second, count_second))]
        if not holds_bf16(x):
            halves = [rounded(builder, half) for half in halves]
        builder.store(_pairs(builder, *halves), pointer(builder, target, PAIRS), align=64)

    return _operation(5, write, x)


@intrinsic
def fetch_line(typingctx, address):
    """Prefetch the cache line; there need not be memory."""
    return _operation(1, lambda builder, address: prefetch(builder, builder.inttoptr(address, BYTE)))


@intrinsic
def transpose_rows(typingctx, source, source_row, target, target_row):
    """32 rows of 16 bf16, source_row bytes apart -> 16 rows of 32 bf16, target_row apart."""
    def write(builder, source, source_row, target, target_row):
        rows = [builder.load(pointer(builder, builder.add(source, builder.mul(source_row, INT64(i))), HALVES), align=2)
                for i in range(2 * LANES)]
        pairs = [_pairs(builder, *rows[2 * i:2 * i + 2]) for i in range(LANES)]
        for i, row in enumerate(_transposed(builder, pairs)):
            to = pointer(builder, builder.add(target, builder.mul(target_row, INT64(i))), PAIRS)
            builder.store(row, to, align=2)

    return _operation(4, write)


def _transposing(vector, size: int):
    """The code of the two below: what is written is rounded to `vector` where that is of bf16."""
    def write(builder, source, source_row, rows, columns, target, target_row):
        mask, taken = lanes_below(builder, columns, LANES), []
        for i in range(LANES):
            exists = builder.icmp_signed("<", INT64(i), rows)
            at = builder.select(exists, builder.add(source, builder.mul(source_row, INT64(i))), source)
            taken.append(builder.bitcast(masked_load(builder, pointer(builder, at, FLOATS), mask, 4), PAIRS))
        mask = lanes_below(builder, rows, LANES)
        for i, row in enumerate(_transposed(builder, taken)):
            with builder.if_then(builder.icmp_signed("<", INT64(i), columns)):
                to = pointer(builder, builder.add(target, builder.mul(target_row, INT64(i))), vector)
                floats = builder.bitcast(row, FLOATS)
                masked_store(builder, rounded(builder, floats) if vector == HALVES else floats, to, mask, size)

    return write


@intrinsic
def transpose_words(typingctx, source, source_row, rows, columns, target, target_row):
    """16 rows of 16 words, transposed; only `rows` and `columns` of the source are read, and as much is written."""
    return _operation(6, _transposing(FLOATS, 4))


@intrinsic
def transpose_sums(typingctx, y, source, source_row, rows, columns, target, target_row):
    """The same of floats, into y."""
    return _operation(6, _transposing(*_vector(y)), y)


@intrinsic
def fetch_rows(typingctx, y, addresses, shift):
    """Prefetch, to be written, 32 elements of y at each of 32 listed addresses + shift."""
    size = _vector(y)[1]

    def write(builder, addresses, shift):
        for r in range(2 * LANES):
            listed = builder.inttoptr(builder.add(addresses, INT64(8 * r)), INT64.as_pointer())
            to = builder.add(builder.load(listed), shift)
            for v in range(size // 2):
                prefetch(builder, builder.inttoptr(builder.add(to, INT64(64 * v)), BYTE), for_writing=True)

    return _operation(2, write, y)


@intrinsic
def finish_rows(typingctx, y, sums, row, addresses, count, shift, bias, columns, relu):
    """Row r < count of 32 sums + bias, with ReLU -> `columns` of them at addresses[r] + shift; address 0: nowhere.

    addresses: the address of a list, in y.   bias: that of 32 floats.
    """
    size = _vector(y)[1]

    def write(builder, sums, row, addresses, count, shift, bias, columns, relu):
        masks = [lanes_below(builder, columns, LANES, v * LANES) for v in range(2)]

        def floats(address, v):
            return builder.load(pointer(builder, builder.add(address, INT64(64 * v)), FLOATS), align=4)

        start = [floats(bias, v) for v in range(2)]
        low = builder.select(builder.icmp_signed("!=", relu, INT64(0)), ir.Constant(FLOATS, [0.0] * LANES),
                             ir.Constant(FLOATS, [float("-inf")] * LANES))
        with cgutils.for_range(builder, count) as loop:
            listed = builder.add(addresses, builder.shl(loop.index, INT64(3)))
            to = builder.load(builder.inttoptr(listed, INT64.as_pointer()))
            with builder.if_then(builder.icmp_signed("!=", to, INT64(0))):
                here, to = builder.add(sums, builder.mul(loop.index, row)), builder.add(to, shift)
                for v in range(2):
                    value = builder.fadd(floats(here, v), start[v])
                    value = builder.select(builder.fcmp_ordered("<", value, low), low, value)    # NaN stays NaN
                    value = rounded(builder, value) if holds_bf16(y) else value
                    at = pointer(builder, builder.add(to, INT64(LANES * size * v)), value.type)
                    masked_store(builder, value, at, masks[v], size)

    return _operation(8, write, y)
