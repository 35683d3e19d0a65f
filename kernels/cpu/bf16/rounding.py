"""float32 to bf16, to the nearest even, in the orders that blocks read. Addresses are integers, in bytes.

    round_some     16 elements of a row -> 16 bf16                                              rows of a
    pair_rows      rows r and r + 1 -> (r[0], r+1[0], r[1], r+1[1], ...)                        rows of b
    turn_rows      32 rows of 16 bf16 -> 16 rows of 32 bf16: target[c] = source[:, c]           a, transposed
    turn_floats    16 rows of 16 floats -> 16 rows of 16 floats, likewise

A processor without the instruction rounds by integer arithmetic, with the same bits (denormals become zeros): tests of
these orders run everywhere.
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


def _operation(count: int, write):
    """What an intrinsic of `count` integers returns: its signature, and its code write(builder, *arguments)."""
    def code(context, builder, signature, arguments):
        write(builder, *arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * count), code


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


@intrinsic
def pair_rows(typingctx, first, second, target, count_first, count_second):
    """16 pairs of two rows of floats; only the first count_... of a row exist (0 to 16), the others are 0."""
    def write(builder, first, second, target, count_first, count_second):
        halves = [rounded(builder, masked_load(builder, pointer(builder, row, FLOATS),
                                               lanes_below(builder, count, LANES), 4))
                  for row, count in ((first, count_first), (second, count_second))]
        builder.store(_pairs(builder, *halves), pointer(builder, target, PAIRS), align=64)

    return _operation(5, write)


@intrinsic
def fetch_line(typingctx, address):
    """Prefetch the cache line; there need not be memory."""
    return _operation(1, lambda builder, address: prefetch(builder, builder.inttoptr(address, BYTE)))


@intrinsic
def turn_rows(typingctx, source, source_row, target, target_row):
    """32 rows of 16 bf16, source_row bytes apart -> 16 rows of 32 bf16, target_row apart."""
    def write(builder, source, source_row, target, target_row):
        rows = [builder.load(pointer(builder, builder.add(source, builder.mul(source_row, INT64(i))), HALVES), align=2)
                for i in range(2 * LANES)]
        pairs = [_pairs(builder, *rows[2 * i:2 * i + 2]) for i in range(LANES)]
        for i, row in enumerate(_transposed(builder, pairs)):
            to = pointer(builder, builder.add(target, builder.mul(target_row, INT64(i))), PAIRS)
            builder.store(row, to, align=2)

    return _operation(4, write)


@intrinsic
def turn_floats(typingctx, source, source_row, rows, columns, target, target_row):
    """16 rows of 16 floats, transposed; only `rows` and `columns` of the source are read, and as much is written."""
    def write(builder, source, source_row, rows, columns, target, target_row):
        mask, taken = lanes_below(builder, columns, LANES), []
        for i in range(LANES):
            exists = builder.icmp_signed("<", INT64(i), rows)
            at = builder.select(exists, builder.add(source, builder.mul(source_row, INT64(i))), source)
            taken.append(builder.bitcast(masked_load(builder, pointer(builder, at, FLOATS), mask, 4), PAIRS))
        mask = lanes_below(builder, rows, LANES)
        for i, row in enumerate(_transposed(builder, taken)):
            with builder.if_then(builder.icmp_signed("<", INT64(i), columns)):
                to = pointer(builder, builder.add(target, builder.mul(target_row, INT64(i))), PAIRS)
                masked_store(builder, row, to, mask, 4)

    return _operation(6, write)


@intrinsic
def fetch_rows(typingctx, addresses, shift):
    """Prefetch, to be written, 32 floats at each of 32 listed addresses + shift."""
    def write(builder, addresses, shift):
        for r in range(2 * LANES):
            listed = builder.inttoptr(builder.add(addresses, INT64(8 * r)), INT64.as_pointer())
            to = builder.add(builder.load(listed), shift)
            for v in range(2):
                prefetch(builder, builder.inttoptr(builder.add(to, INT64(64 * v)), BYTE), for_writing=True)

    return _operation(2, write)


@intrinsic
def finish_rows(typingctx, sums, row, addresses, count, shift, bias, columns, relu):
    """Row r < count of 32 sums + bias, with ReLU -> `columns` of them at addresses[r] + shift; address 0: nowhere.

    addresses: the address of a list.   bias: that of 32 floats.
    """
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
                    at = pointer(builder, builder.add(to, INT64(64 * v)), FLOATS)
                    masked_store(builder, value, at, masks[v], 4)

    return _operation(8, write)
