"""The innermost loops of convolution: a tile of sums that stays in the registers while products are added to it.

                    VECTORS * LANES columns (output channels)
                   +-----------+-----------+
      ROWS rows    | acc[0][0] | acc[0][1] |      one step of the reduction:  load VECTORS vectors of b,
      (pixels, or  | acc[1][0] | acc[1][1] |      and for each row broadcast one number of a and add
      channels)    |    ...    |    ...    |      a * b to the row's sums
                   +-----------+-----------+

With AVX-512 there are 32 registers of 16 floats: 12 rows x 2 vectors of sums, 2 vectors of b and 1 of a. A step then
does 24 multiply-adds for 14 loads, so the processor waits for its multipliers and not for memory.

Numba turns its own loops into vectors as it sees fit, but never keeps such a tile in registers; so these two loops are
written as LLVM's intermediate code, with vectors of LANES numbers that LLVM maps to what the machine has. The shape of
the tile travels in the types of three tuples (rows, vectors, lanes: their lengths count), so that one source serves
every width. Each shape becomes one small compiled function, which kernels call by its address: compiling a tile takes
0.3 s, and a kernel around it is compiled once for all shapes. Addresses are integers, in bytes.
"""

from __future__ import annotations

import os
from functools import cache

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.errors import ConfigError

# bytes of a vector -> rows of the tile by its width in vectors: as many sums as the registers hold beside a and b
ROWS = {64: {4: 6, 3: 8, 2: 12, 1: 14}, 32: {2: 6, 3: 4, 1: 10}, 16: {2: 6, 3: 4, 1: 10}}
AHEAD = 12          # steps between asking for a row of b, which lies in the second-level cache, and using it
VECTOR_VARIABLE = "MINICNN_VECTOR_BYTES"


@cache
def vector_bytes() -> int:
    """Bytes of a vector on this machine: 64 (AVX-512), 32 (AVX2) or 16; MINICNN_VECTOR_BYTES overrules."""
    asked = os.environ.get(VECTOR_VARIABLE)
    if asked is not None:
        if asked not in map(str, ROWS):
            raise ConfigError(f"{VECTOR_VARIABLE} must be one of {', '.join(map(str, ROWS))}, not {asked!r}")
        return int(asked)
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def tile_for(columns: int, itemsize: int) -> tuple[tuple, tuple, tuple]:
    """The tile (rows, vectors, lanes) that wastes least on `columns` numbers; on a tie the first of ROWS."""
    lanes = vector_bytes() // itemsize
    rows = ROWS[vector_bytes()]
    vectors = min(rows, key=lambda count: -(-columns // (count * lanes)) * count)
    return (0,) * rows[vectors], (0,) * vectors, (0,) * lanes


class _Tile:
    """Writes the parts that both loops share: the registers, their loads, products and stores."""

    def __init__(self, builder, number, rows: int, vectors: int, lanes: int):
        self.builder, self.rows, self.vectors, self.lanes = builder, rows, vectors, lanes
        self.number = ir.FloatType() if number == types.float32 else ir.DoubleType()
        self.size = number.bitwidth // 8
        self.vector = ir.VectorType(self.number, lanes)

    def integer(self, value: int):
        return ir.Constant(ir.IntType(64), value)

    def times(self, value, factor: int):
        return self.builder.mul(value, self.integer(factor))

    def load(self, address, what):
        loaded = self.builder.load(self.builder.inttoptr(address, what.as_pointer()), align=self.size)
        return loaded

    def load_integer(self, address):
        return self.builder.load(self.builder.inttoptr(address, ir.IntType(64).as_pointer()))

    def load_row(self, address):
        """`vectors` vectors that lie side by side."""
        step = self.lanes * self.size
        return [self.load(self.builder.add(address, self.integer(v * step)), self.vector) for v in range(self.vectors)]

    def prefetch_row(self, address):
        """Ask for the row that lies AHEAD rows further on; asking for what is not there does no harm."""
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        prefetch = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0")
        step = self.lanes * self.size
        for v in range(self.vectors):
            where = self.builder.add(address, self.integer((AHEAD * self.vectors + v) * step))
            how = [ir.Constant(flag, n) for n in (0, 3, 1)]                    # to read, keep close, data
            self.builder.call(prefetch, [self.builder.inttoptr(where, byte), *how])

    def broadcast(self, value):
        undefined = ir.Constant(self.vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, undefined, zeros)

    def registers(self, incoming, block):
        """The sums at the head of a loop, which enter it from `block`."""
        sums = [[self.builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        self.feed(sums, incoming, block)
        return sums

    def feed(self, sums, incoming, block):
        for row, values in zip(sums, incoming, strict=True):
            for phi, value in zip(row, values, strict=True):
                phi.add_incoming(value, block)

    def add_products(self, sums, a_addresses, b):
        """sums[r][v] + a[r] * b[v]; one instruction where the machine multiplies and adds in one."""
        result = []
        for row, address in zip(sums, a_addresses, strict=True):
            a = self.broadcast(self.load(address, self.number))
            result.append([self.builder.fadd(self.builder.fmul(a, b[v], flags=("contract",)), row[v],
                                             flags=("contract",)) for v in range(self.vectors)])
        return result

    def store_row(self, values, address):
        for v, value in enumerate(values):
            where = self.builder.add(address, self.integer(v * self.lanes * self.size))
            self.builder.store(value, self.builder.inttoptr(where, self.vector.as_pointer()), align=self.size)

    def store_columns(self, values, address, columns):
        """Only the first `columns` numbers of a row."""
        integers = ir.VectorType(ir.IntType(64), self.lanes)
        lane = ir.Constant(integers, list(range(self.lanes)))
        undefined = ir.Constant(integers, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        pointer = self.vector.as_pointer()
        store = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [self.vector, pointer, ir.IntType(32),
                                            ir.VectorType(ir.IntType(1), self.lanes)]),
            f"llvm.masked.store.v{self.lanes}f{8 * self.size}.p0")
        for v, value in enumerate(values):
            left = self.builder.sub(columns, self.integer(v * self.lanes))
            spread = self.builder.shuffle_vector(
                self.builder.insert_element(undefined, left, ir.Constant(ir.IntType(32), 0)), undefined, zeros)
            mask = self.builder.icmp_signed("<", lane, spread)
            where = self.builder.add(address, self.integer(v * self.lanes * self.size))
            self.builder.call(store, [value, self.builder.inttoptr(where, pointer),
                                      ir.Constant(ir.IntType(32), self.size), mask])


def _tile_of(builder, signature) -> _Tile:
    """The tile whose shape and type stand in the signature's first four arguments: rows, vectors, lanes, a number."""
    rows, vectors, lanes, number = signature.args[:4]
    return _Tile(builder, number, rows.count, vectors.count, lanes.count)


@intrinsic
def correlate_tile(typingctx, rows, vectors, lanes, floor, a, a_offset, a_steps, b, b_steps, taps, run, start, sums,
                   begin, end, y, y_offset, count, columns):
    """A tile of pixels:  y[r, :] = max(floor, start[:] + sum over taps t and i < run of  a[r][t, i] * b[t, i, :]).

    a, y: address of a list with an address for each row (the pixel's first tap; its first output), to which the
    offset is added.   a_steps, b_steps: address of a list with the distance of each tap from there.
    start: address of one row of sums.
    begin, end: where a sum is made in pieces, only the first begins with `start` and only the last writes y; between
    them the tile is kept at the address `sums`.
    count, columns: how many rows and columns of the tile are written; a must have an address for all rows.
    """
    signature = types.void(rows, vectors, lanes, floor, *[types.int64] * 15)

    def code(context, builder, signature, arguments):
        tile = _tile_of(builder, signature)
        (floor, a, a_offset, a_steps, b, b_steps, taps, run, start, kept, begin, end, y, y_offset, count,
         columns) = arguments[3:]
        width = tile.vectors * tile.lanes * tile.size
        at = [tile.load_integer(builder.add(a, tile.integer(8 * r))) for r in range(tile.rows)]
        tap_block, step_block, tap_end, done, write, keep, after_write = (
            builder.append_basic_block(name) for name in ("tap", "step", "tap_end", "done", "write", "keep", "after"))
        begins = builder.icmp_signed("!=", begin, tile.integer(0))
        source = builder.select(begins, start, kept)
        step = builder.select(begins, tile.integer(0), tile.integer(width))    # all rows begin with the same sums
        first = [tile.load_row(builder.add(source, tile.times(step, r))) for r in range(tile.rows)]
        entry = builder.block
        builder.cbranch(builder.icmp_signed(">", taps, tile.integer(0)), tap_block, done)

        builder.position_at_end(tap_block)
        t = builder.phi(ir.IntType(64))
        t.add_incoming(tile.integer(0), entry)
        outer = tile.registers(first, entry)
        a_step = builder.add(a_offset, tile.load_integer(builder.add(a_steps, tile.times(t, 8))))
        b_tap = builder.add(b, tile.load_integer(builder.add(b_steps, tile.times(t, 8))))
        a_tap = [builder.add(address, a_step) for address in at]
        builder.branch(step_block)

        builder.position_at_end(step_block)
        i = builder.phi(ir.IntType(64))
        i.add_incoming(tile.integer(0), tap_block)
        inner = tile.registers(outer, tap_block)
        b_here = builder.add(b_tap, tile.times(i, tile.vectors * tile.lanes * tile.size))
        tile.prefetch_row(b_here)
        b_row = tile.load_row(b_here)
        offset = tile.times(i, tile.size)
        sums = tile.add_products(inner, [builder.add(address, offset) for address in a_tap], b_row)
        after = builder.add(i, tile.integer(1))
        i.add_incoming(after, step_block)
        tile.feed(inner, sums, step_block)
        builder.cbranch(builder.icmp_signed("<", after, run), step_block, tap_end)

        builder.position_at_end(tap_end)
        after = builder.add(t, tile.integer(1))
        t.add_incoming(after, tap_end)
        tile.feed(outer, sums, tap_end)
        builder.cbranch(builder.icmp_signed("<", after, taps), tap_block, done)

        builder.position_at_end(done)
        final = tile.registers(first, entry)
        tile.feed(final, sums, tap_end)
        builder.cbranch(builder.icmp_signed("!=", end, tile.integer(0)), write, keep)

        builder.position_at_end(keep)
        for r, values in enumerate(final):
            tile.store_row(values, builder.add(kept, tile.integer(r * width)))
        builder.branch(after_write)

        builder.position_at_end(write)
        low = tile.broadcast(floor)
        final = [[builder.select(builder.fcmp_ordered("<", value, low), low, value) for value in row] for row in final]
        to = [builder.add(y_offset, tile.load_integer(builder.add(y, tile.integer(8 * r)))) for r in range(tile.rows)]
        whole = builder.and_(builder.icmp_signed(">=", count, tile.integer(tile.rows)),
                             builder.icmp_signed(">=", columns, tile.integer(tile.vectors * tile.lanes)))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                for row, address in zip(final, to, strict=True):
                    tile.store_row(row, address)
            with otherwise:
                for r, (row, address) in enumerate(zip(final, to, strict=True)):
                    with builder.if_then(builder.icmp_signed(">", count, tile.integer(r))):
                        tile.store_columns(row, address, columns)
        builder.branch(after_write)
        builder.position_at_end(after_write)
        return context.get_dummy_value()

    return signature, code


@intrinsic
def outer_tile(typingctx, rows, vectors, lanes, number, a, a_line, a_step, b, b_line, lines, steps, total, skip):
    """A tile of channels:  total[r, :] += sum over lines l and i < steps of  a[l, i][r] * b[l, i, :],  for r >= skip.

    a: address of the first pixel's channels; lines are a_line bytes apart, pixels a_step.   b: rows of the tile's width
    without a gap; lines are b_line bytes apart.   total: rows of the tile's width without a gap.
    """
    signature = types.void(rows, vectors, lanes, number, *[types.int64] * 9)

    def code(context, builder, signature, arguments):
        tile = _tile_of(builder, signature)
        a, a_line, a_step, b, b_line, lines, steps, total, skip = arguments[4:]
        width = tile.vectors * tile.lanes * tile.size
        zero = [ir.Constant(tile.vector, [0.0] * tile.lanes)] * tile.vectors
        entry = builder.block
        line_block, step_block, line_end, done = (builder.append_basic_block(name)
                                                  for name in ("line", "step", "line_end", "done"))
        builder.branch(line_block)

        builder.position_at_end(line_block)
        line = builder.phi(ir.IntType(64))
        line.add_incoming(tile.integer(0), entry)
        outer = tile.registers([zero] * tile.rows, entry)
        a_start, b_start = builder.add(a, builder.mul(line, a_line)), builder.add(b, builder.mul(line, b_line))
        builder.branch(step_block)

        builder.position_at_end(step_block)
        i, a_here = builder.phi(ir.IntType(64)), builder.phi(ir.IntType(64))
        i.add_incoming(tile.integer(0), line_block)
        a_here.add_incoming(a_start, line_block)
        inner = tile.registers(outer, line_block)
        b_row = tile.load_row(builder.add(b_start, tile.times(i, width)))
        sums = tile.add_products(inner, [builder.add(a_here, tile.integer(r * tile.size)) for r in range(tile.rows)],
                                 b_row)
        after = builder.add(i, tile.integer(1))
        i.add_incoming(after, step_block)
        a_here.add_incoming(builder.add(a_here, a_step), step_block)
        tile.feed(inner, sums, step_block)
        builder.cbranch(builder.icmp_signed("<", after, steps), step_block, line_end)

        builder.position_at_end(line_end)
        after = builder.add(line, tile.integer(1))
        line.add_incoming(after, line_end)
        tile.feed(outer, sums, line_end)
        builder.cbranch(builder.icmp_signed("<", after, lines), line_block, done)

        builder.position_at_end(done)
        for r, row in enumerate(sums):
            with builder.if_then(builder.icmp_signed("<=", skip, tile.integer(r))):
                address = builder.add(total, tile.integer(r * width))
                old = tile.load_row(address)
                tile.store_row([builder.fadd(was, value) for was, value in zip(old, row, strict=True)], address)
        return context.get_dummy_value()

    return signature, code


@intrinsic
def call(typingctx, address, arguments):
    """Call the function of integers at this address, which returns nothing."""
    def code(context, builder, signature, values):
        whole = ir.IntType(64)
        arguments = [context.cast(builder, value, kind, types.int64) for value, kind in
                     zip(cgutils.unpack_tuple(builder, values[1]), signature.args[1].types, strict=True)]
        function = ir.FunctionType(ir.VoidType(), [whole] * len(arguments))
        builder.call(builder.inttoptr(values[0], function.as_pointer()), arguments)
        return context.get_dummy_value()

    return types.void(address, arguments), code


@cache
def correlate_tiles(tile: tuple[tuple, tuple, tuple], dtype: str):
    """The compiled loop of correlate_tile over `pixels` rows; `.address` is what `call` wants. relu: 0 or 1."""
    rows, vectors, lanes = tile
    zero, low = np.dtype(dtype).type(0), np.dtype(dtype).type(-np.inf)
    count, width = len(rows), len(vectors) * len(lanes) * np.dtype(dtype).itemsize

    @cfunc(types.void(*[types.int64] * 16), cache=True)
    def tiles(a, a_offset, a_steps, b, b_steps, taps, run, start, sums, begin, end, y, y_offset, pixels, columns, relu):
        floor = zero if relu else low
        for m in range(0, pixels, count):
            correlate_tile(rows, vectors, lanes, floor, a + m * 8, a_offset, a_steps, b, b_steps, taps, run, start,
                           sums + m * width, begin, end, y + m * 8, y_offset, pixels - m, columns)

    return tiles


@cache
def outer_tiles(tile: tuple[tuple, tuple, tuple], dtype: str):
    """The compiled loop of outer_tile over `channels` rows, at least a tile of them; the last tile may overlap."""
    rows, vectors, lanes = tile
    number, size = np.dtype(dtype).type(0), np.dtype(dtype).itemsize
    count, width = len(rows), len(vectors) * len(lanes) * size

    @cfunc(types.void(*[types.int64] * 9), cache=True)
    def tiles(a, a_line, a_step, b, b_line, lines, steps, total, channels):
        for d in range(0, channels, count):
            d0 = min(d, channels - count)
            outer_tile(rows, vectors, lanes, number, a + d0 * size, a_line, a_step, b, b_line, lines, steps,
                       total + d0 * width, d - d0)

    return tiles


def combination(matrix: list[list[float]]):
    """An intrinsic for  target[i, :] = sum over j of  matrix[i][j] * source[j, :],  all rows `count` numbers long.

    Its arguments: lanes, a number of the type, the address of a list with the address of each source row, the target's
    address, the distance of its rows, and count, a multiple of the lanes. Source and target must not overlap.
    """
    @intrinsic
    def combine(typingctx, lanes, number, sources, target, step, count):
        signature = types.void(lanes, number, *[types.int64] * 4)

        def code(context, builder, signature, arguments):
            tile = _Tile(builder, signature.args[1], 0, 1, signature.args[0].count)
            sources, target, step, count = arguments[2:]
            at = [tile.load_integer(builder.add(sources, tile.integer(8 * j))) for j in range(len(matrix[0]))]
            to = [builder.add(target, tile.times(step, i)) for i in range(len(matrix))]
            with cgutils.for_range_slice(builder, tile.integer(0), tile.times(count, tile.size),
                                         tile.integer(tile.lanes * tile.size)) as (offset, _):
                x = [tile.load(builder.add(address, offset), tile.vector) for address in at]
                for row, address in zip(matrix, to, strict=True):
                    total = None
                    for factor, value in zip(row, x, strict=True):
                        if factor:
                            scaled = value if factor == 1 else builder.fmul(
                                value, ir.Constant(tile.vector, [float(factor)] * tile.lanes), flags=("contract",))
                            total = scaled if total is None else builder.fadd(total, scaled, flags=("contract",))
                    tile.store_row([total], builder.add(address, offset))
            return context.get_dummy_value()

        return signature, code

    return combine
