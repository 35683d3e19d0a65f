"""The inner loop: a block of 32 x 32 sums of products of bf16, in one of two kinds of instructions.

           step i: 32 elements of the reduction           b: 16 rows of pairs, 32 columns as two halves
         a                                                  +--------+--------+
    row 0  [e0 e1 | e2 e3 | ...]  at a + offset i           | b0,b1  |        |   (row 2p, row 2p+1) of column 0,
    row 1  [  ...              ]  a_row bytes on            | b2,b3  |  half  |   of column 1, ... : 64 bytes
      ...                                                   |  ...   |   1    |
    row 31 [  ...              ]                            +--------+--------+

    tiles    Intel AMX: a and b are loaded as they are, 2 + 2 tiles; 4 tiles of 16 x 16 sums stay in the tiles
    dots     AVX512-BF16: 8 rows x 2 vectors of sums stay in the registers; vdpbf16ps multiplies a pair of a row,
             in all lanes, with 16 pairs of b. (8 x 2 is as fast as 12 x 2: 524 GFLOP/s of 525 on a core of a Zen 5,
             with b in the L1 or the L2 cache.)

Convolution is nothing but a list of steps, whose offsets differ. Both kinds read the same operands, so all else is
shared. A step may have fewer than 16 pairs, in fours, where `granule` is 8 (elements); tiles always read all 32.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.kernels.cpu.bf16 import available
from minicnn.kernels.cpu.bf16.rounding import FLOATS, PAIRS, pointer
from minicnn.kernels.cpu.compiling import callback
from minicnn.kernels.cpu.llvm_code import INT32, INT64, call_function, prefetch, splat
from minicnn.kernels.cpu.tile import call
from minicnn.kernels.cpu.vectors import LANES, part

SIDE = 32                        # rows and columns of a block
STEP = 32                        # elements of the reduction in a step
STEP_BYTES = 2 * STEP * SIDE     # of b
HALF_BYTES = STEP_BYTES // 2
TOGETHER = 4                     # pairs of a step of dots that follow each other without a branch
DOT_ROWS = {2: 8, 1: 16}         # rows of sums in registers, by their width in vectors
DOT, INT8 = "llvm.x86.avx512bf16.dpbf16ps.512", ir.IntType(8)
# The arguments of a block, all integers.   places: address of the distances of 32 rows from a, in bytes, which may be
# any for dots; tiles take a_row.   steps: address of `count` pairs (bytes from a, pairs of elements).   b_step,
# b_half: from a step to the next, and from the first 16 columns to the others.   c: 32 rows, c_row bytes apart; they
# are added to, or overwritten with `begin`.   rows, columns: how many are needed; others of c may be overwritten, and
# must be readable in a.   ahead: from here a cache line is prefetched in each step.
ARGUMENTS = ("a", "a_row", "places", "steps", "count", "b", "b_step", "b_half", "c", "c_row", "begin", "rows",
             "columns", "ahead")
BLOCK = types.void(*[types.int64] * len(ARGUMENTS))


def apart(row: int) -> np.ndarray:
    """The places of rows `row` bytes apart."""
    return np.arange(SIDE) * row


class Block(NamedTuple):
    """The addresses of a compiled inner loop.

    granule: the depth of a row of a is padded to a multiple of it.   any_places: rows of a may be at any distances.
    """

    kind: str
    granule: int
    any_places: bool
    block: int
    configure: int = 0
    release: int = 0
    configuration: int = 0

    @property
    def addresses(self) -> tuple[int, int, int, int]:
        """For `begin_blocks`, `block` and `end_blocks` in kernels."""
        return self[3:]


@part
def begin_blocks(addresses):
    """Before the first block of a task, in its thread; between this and end_blocks no other thread's work is begun."""
    if addresses[1]:
        call(addresses[1], (addresses[3],))


@part
def end_blocks(addresses):
    """After the last one: the tiles' registers are free, and cost nothing when threads are switched."""
    if addresses[2]:
        call(addresses[2], (0,))


class _Operands:
    """Addresses of a block's operands, computed by both kinds in the same way."""

    def __init__(self, builder, arguments):
        self.builder = builder
        for name, value in zip(ARGUMENTS, arguments, strict=True):
            setattr(self, name, value)

    def at(self, base, *moves):
        """base + the sum of the products (value, factor)."""
        for value, factor in moves:
            base = self.builder.add(base, self.builder.mul(value, INT64(factor)))
        return base

    def step(self, i):
        """Of step i: a's first row, the number of pairs, and b's first row; a line of what is `ahead` is prefetched."""
        builder = self.builder
        entry = self.at(self.steps, (i, 16))
        offset, pairs = (builder.load(builder.inttoptr(self.at(entry, (INT64(8), word)), INT64.as_pointer()))
                         for word in range(2))
        prefetch(builder, builder.inttoptr(self.at(self.ahead, (i, 64)), INT8.as_pointer()))
        return builder.add(self.a, offset), pairs, builder.add(self.b, builder.mul(i, self.b_step))


def _counted(builder, count, carried: list, body) -> list:
    """Values after body(i, values) for each i < count, at least once."""
    entry, head, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    i, held = builder.phi(INT64), [builder.phi(value.type) for value in carried]
    new, following = body(i, held), builder.add(i, INT64(1))
    for phi, first, again in zip([i, *held], [INT64(0), *carried], [following, *new], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(again, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), head, after)
    builder.position_at_end(after)
    return new


def dots_code(builder, arguments, vectors: int) -> None:
    """Code for DOT_ROWS[vectors] rows x `vectors` vectors of sums, by vdpbf16ps."""
    on, rows = _Operands(builder, arguments), DOT_ROWS[vectors]
    kept = [pointer(builder, on.at(on.c, (on.c_row, r), (INT64(64), v)), FLOATS)
            for r in range(rows) for v in range(vectors)]
    places = [builder.load(builder.inttoptr(on.at(on.places, (INT64(8), r)), INT64.as_pointer())) for r in range(rows)]
    begins = builder.icmp_signed("!=", on.begin, INT64(0))
    sums = [builder.select(begins, ir.Constant(FLOATS, None), builder.load(at, align=4)) for at in kept]

    def one_step(i, sums):
        a, pairs, b = on.step(i)
        starts = [builder.add(a, place) for place in places]

        def some_pairs(p, sums):
            for more in range(TOGETHER):
                q = on.at(INT64(more), (p, TOGETHER))
                b_row = [builder.load(pointer(builder, on.at(b, (q, 64), (on.b_half, v)), PAIRS), align=64)
                         for v in range(vectors)]
                new = []
                for r, start in enumerate(starts):
                    pair = splat(builder, builder.load(builder.inttoptr(on.at(start, (q, 4)), INT32.as_pointer()),
                                                       align=2), LANES)
                    new += [call_function(builder, DOT, FLOATS, sums[r * vectors + v], pair, b_row[v])
                            for v in range(vectors)]
                sums = new
            return sums

        return _counted(builder, builder.lshr(pairs, INT64(2)), sums, some_pairs)

    for value, at in zip(_counted(builder, on.count, sums, one_step), kept, strict=True):
        builder.store(value, at, align=4)


def _tile_call(builder, name: str, *arguments) -> None:
    """A tile instruction; plain integers are tile numbers."""
    call_function(builder, f"llvm.x86.{name}", ir.VoidType(),
                  *[INT8(value) if isinstance(value, int) else value for value in arguments])


def tiles_code(builder, arguments, high: int, wide: int) -> None:
    """Code for high x wide tiles of sums, by AMX: tiles 0 to 3 are sums, 4 and 5 of a, 6 and 7 of b."""
    on = _Operands(builder, arguments)
    cells = [(m, n) for m in range(high) for n in range(wide)]

    def kept(m, n):
        return builder.inttoptr(on.at(on.c, (on.c_row, LANES * m), (INT64(64), n)), INT8.as_pointer())

    with builder.if_else(builder.icmp_signed("!=", on.begin, INT64(0))) as (new, old):
        with new:
            for m, n in cells:
                _tile_call(builder, "tilezero", 2 * m + n)
        with old:
            for m, n in cells:
                _tile_call(builder, "tileloadd64", 2 * m + n, kept(m, n), on.c_row)
    with cgutils.for_range(builder, on.count) as loop:
        a, _, b = on.step(loop.index)
        for n in range(wide):
            half = builder.inttoptr(on.at(b, (on.b_half, n)), INT8.as_pointer())
            _tile_call(builder, "tileloadd64", 6 + n, half, INT64(64))
        for m in range(high):
            rows = builder.inttoptr(on.at(a, (on.a_row, LANES * m)), INT8.as_pointer())
            _tile_call(builder, "tileloadd64", 4 + m, rows, on.a_row)
            for n in range(wide):
                _tile_call(builder, "tdpbf16ps", 2 * m + n, 4 + m, 6 + n)
    for m, n in cells:
        _tile_call(builder, "tilestored64", 2 * m + n, kept(m, n), on.c_row)


def tile_configuration() -> np.ndarray:
    """The 64 bytes of ldtilecfg: palette 1, eight tiles of 16 rows of 64 bytes."""
    tiles = np.zeros(64, np.uint8)
    tiles[0] = 1
    tiles[16:32].view(np.uint16)[:] = 64
    tiles[48:56] = 16
    return tiles


def _intrinsic(write, count: int = len(ARGUMENTS)):
    def code(context, builder, signature, arguments):
        write(builder, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * count), code


@intrinsic
def _dots_8x2(typingctx, a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
    return _intrinsic(lambda builder, arguments: dots_code(builder, arguments, 2))


@intrinsic
def _dots_16x1(typingctx, a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
    return _intrinsic(lambda builder, arguments: dots_code(builder, arguments, 1))


@intrinsic
def _tiles(typingctx, a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
    def write(builder, arguments):
        rows, columns = arguments[11:13]
        few = [builder.icmp_signed("<=", value, INT64(LANES)) for value in (rows, columns)]
        with builder.if_else(few[0]) as (low, high):
            for branch, tall in ((low, 1), (high, 2)):
                with branch, builder.if_else(few[1]) as (narrow, broad):
                    with narrow:
                        tiles_code(builder, arguments, tall, 1)
                    with broad:
                        tiles_code(builder, arguments, tall, 2)

    return _intrinsic(write)


@intrinsic
def _configure(typingctx, address):
    return _intrinsic(lambda builder, arguments: _tile_call(
        builder, "ldtilecfg", builder.inttoptr(arguments[0], INT8.as_pointer())), 1)


@intrinsic
def _release(typingctx, nothing):
    return _intrinsic(lambda builder, arguments: _tile_call(builder, "tilerelease"), 1)


@cache
def _dots_callback():
    @callback(BLOCK)
    def dots(a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
        if columns > LANES:
            for r in range(0, rows, 8):
                _dots_8x2(a, a_row, places + r * 8, steps, count, b, b_step, b_half, c + r * c_row, c_row, begin, rows,
                          columns, ahead)
        else:
            for r in range(0, rows, 16):
                _dots_16x1(a, a_row, places + r * 8, steps, count, b, b_step, b_half, c + r * c_row, c_row, begin, rows,
                           columns, ahead)

    return dots


@cache
def _tiles_callbacks():
    @callback(BLOCK)
    def tiles(a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
        _tiles(a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead)

    @callback(types.void(types.int64))
    def configure(address):
        _configure(address)

    @callback(types.void(types.int64))
    def release(nothing):
        _release(nothing)

    return tiles, configure, release, tile_configuration()


@cache
def block_of(kind: str) -> Block:
    """The compiled inner loop; ask available.why_not first."""
    if kind == available.DOTS:
        return Block(kind, 2 * TOGETHER, True, _dots_callback().address)
    *functions, configuration = _tiles_callbacks()
    return Block(kind, STEP, False, *[function.address for function in functions], configuration.ctypes.data)


@cache
def chosen() -> Block:
    """The inner loop of the operations: the best that can be used here. DeviceError where there is none."""
    return block_of(available.needed())
