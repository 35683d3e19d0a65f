"""The innermost loops of convolution, as tiles of sums that stay in registers (tile.py).

    correlate_tile    forward and dx: rows are pixels, columns output channels; sums over taps and channels
    outer_tile        dw: rows are input channels, columns output channels; sums over pixels
    combine_rows      Winograd's transforms: sums of a few rows with constant factors

Each shape of a tile becomes one small compiled function, which kernels call by its address: compiling a tile takes
0.3 s, and a kernel around it is compiled once for all shapes.

The rows of b that a call reads stay in L1 for all its tiles of pixels. The rows behind them are needed by the next call
and may be in memory (Winograd's 36 transformed kernels of conv3 are 14 MB): the second tile prefetches the first cache
line of each into L2, the third tile the second line, and so on, so that memory can follow.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.kernels.cpu.compiling import callback
from minicnn.kernels.cpu.memory import ALIGN as LINE
from minicnn.kernels.cpu.stored import computed_in, widened
from minicnn.kernels.cpu.tile import Edge, Tile, tile_of


@intrinsic
def correlate_tile(typingctx, rows, vectors, lanes, floor, a, a_offset, a_steps, b, b_steps, ahead, taps, run, start,
                   sums, begin, end, y, y_offset, count, columns):
    """A tile of pixels:  y[r, :] = max(floor, start[:] + sum over taps t and i < run of  a[r][t, i] * b[t, i, :]).

    a, y: address of a list with an address for each row (the pixel's first tap; its first output), to which the
    offset is added.   a_steps, b_steps: address of a list with the distance of each tap from there.
    start: address of one row of sums.
    begin, end: where a sum is made in pieces, only the first begins with `start` and only the last writes y; between
    them the tile is kept at the address `sums`.
    count, columns: how many rows and columns of the tile are written; a must have an address for all rows.
    ahead: while a row of b is used, the cache line this many bytes further on is prefetched into L2.
    """
    signature = types.void(rows, vectors, lanes, floor, *[types.int64] * 16)

    def code(context, builder, signature, arguments):
        tile = tile_of(builder, signature)
        (floor, a, a_offset, a_steps, b, b_steps, ahead, taps, run, start, kept, begin, end, y, y_offset, count,
         columns) = arguments[3:]
        at = [tile.load_integer(builder.add(a, tile.integer(8 * r))) for r in range(tile.rows)]
        begins = builder.icmp_signed("!=", begin, tile.integer(0))
        source = builder.select(begins, start, kept)
        step = builder.select(begins, tile.integer(0), tile.integer(tile.width))       # one start for all rows
        first = [tile.load_row(builder.add(source, tile.times(step, r))) for r in range(tile.rows)]

        def one_tap(t, sums):
            a_step = builder.add(a_offset, tile.load_integer(builder.add(a_steps, tile.times(t, 8))))
            b_tap = builder.add(b, tile.load_integer(builder.add(b_steps, tile.times(t, 8))))
            a_tap = [builder.add(address, a_step) for address in at]

            def one_channel(i, sums):
                b_here = builder.add(b_tap, tile.times(i, tile.width))
                tile.prefetch_row(b_here)
                tile.prefetch_line(builder.add(b_here, ahead))
                b_row = tile.load_row(b_here)
                offset = tile.times(i, tile.size)
                return tile.add_products(sums, [builder.add(address, offset) for address in a_tap], b_row)

            return tile.loop(run, sums, one_channel)

        entry, some, done = builder.block, builder.append_basic_block("taps"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", taps, tile.integer(0)), some, done)
        builder.position_at_end(some)
        sums, some = tile.loop(taps, first, one_tap), builder.block
        builder.branch(done)
        builder.position_at_end(done)
        final = tile.registers(first, entry)
        tile.feed(final, sums, some)

        with builder.if_else(builder.icmp_signed("!=", end, tile.integer(0))) as (write, keep):
            with keep:
                for r, values in enumerate(final):
                    tile.store_row(values, builder.add(kept, tile.integer(r * tile.width)))
            with write:
                low = tile.broadcast(floor)
                final = [[builder.select(builder.fcmp_ordered("<", value, low), low, value) for value in row]
                         for row in final]
                to = [builder.add(y_offset, tile.load_integer(builder.add(y, tile.integer(8 * r))))
                      for r in range(tile.rows)]
                with builder.if_else(tile.is_whole(count, columns)) as (whole, cut):
                    with whole:
                        for row, address in zip(final, to, strict=True):
                            tile.store_row(row, address)
                    with cut:
                        edge = Edge(tile, columns)
                        for r, (row, address) in enumerate(zip(final, to, strict=True)):
                            with builder.if_then(builder.icmp_signed(">", count, tile.integer(r))):
                                edge.store_row(row, address)
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
        tile = tile_of(builder, signature)
        a, a_line, a_step, b, b_line, lines, steps, total, skip = arguments[4:]
        for line in range(0, tile.rows * tile.width, LINE):                    # may be in memory; needed at the end
            tile.prefetch_line(builder.add(total, tile.integer(line)))

        def one_line(_, sums, a_start, b_start):
            def one_pixel(i, sums, a_here):
                b_row = tile.load_row(builder.add(b_start, tile.times(i, tile.width)))
                return tile.add_products(sums, [builder.add(a_here, tile.integer(r * tile.size))
                                                for r in range(tile.rows)], b_row)

            return tile.loop(steps, sums, one_pixel, (a_start, a_step))

        for r, row in enumerate(tile.loop(lines, tile.zeros(), one_line, (a, a_line), (b, b_line))):
            with builder.if_then(builder.icmp_signed("<=", skip, tile.integer(r))):
                address = builder.add(total, tile.integer(r * tile.width))
                old = tile.load_row(address)
                tile.store_row([builder.fadd(was, value) for was, value in zip(old, row, strict=True)], address)
        return context.get_dummy_value()

    return signature, code


@cache
def correlate_tiles(tile: tuple[tuple, tuple, tuple], dtype: str):
    """The compiled loop of correlate_tile over `pixels` rows; `.address` is the argument of `call`. relu: 0 or 1."""
    rows, vectors, lanes = tile
    zero, low = np.dtype(dtype).type(0), np.dtype(dtype).type(-np.inf)
    count, width = len(rows), len(vectors) * len(lanes) * np.dtype(dtype).itemsize
    lines = width // LINE

    @callback(types.void(*[types.int64] * 16))
    def tiles(a, a_offset, a_steps, b, b_steps, taps, run, start, sums, begin, end, y, y_offset, pixels, columns, relu):
        floor = zero if relu else low
        for m in range(0, pixels, count):
            turn = m // count - 1                                              # the first has its own rows to wait for
            ahead = taps * run * width + turn * LINE if 0 <= turn < lines else 0
            correlate_tile(rows, vectors, lanes, floor, a + m * 8, a_offset, a_steps, b, b_steps, ahead, taps, run,
                           start, sums + m * width, begin, end, y + m * 8, y_offset, pixels - m, columns)

    return tiles


@cache
def outer_tiles(tile: tuple[tuple, tuple, tuple], dtype: str):
    """The compiled loop of outer_tile over `channels` rows, at least a tile of them; the last tile may overlap."""
    rows, vectors, lanes = tile
    number, size = np.dtype(dtype).type(0), np.dtype(dtype).itemsize
    count, width = len(rows), len(vectors) * len(lanes) * size

    @callback(types.void(*[types.int64] * 9))
    def tiles(a, a_line, a_step, b, b_line, lines, steps, total, channels):
        for d in range(0, channels, count):
            d0 = min(d, channels - count)
            outer_tile(rows, vectors, lanes, number, a + d0 * size, a_line, a_step, b, b_line, lines, steps,
                       total + d0 * width, d - d0)

    return tiles


def combine_rows(builder, matrix, number, lanes, sources, target, step, count) -> None:
    """Code for  target[i, :] = sum over j of  matrix[i][j] * source[j, :],  all rows `count` elements long.

    number: the type of the source's elements; of bf16 (stored.py), the target's are float32.   sources: the address of
    a list with the address of each source row.   step: the distance of the target's rows.   count: a multiple of the
    lanes. Source and target must not overlap.
    """
    tile = Tile(builder, computed_in(number), 0, 1, lanes)

    def load(address, offset):
        if number != types.uint16:
            return tile.load(builder.add(address, offset), tile.vector)
        at = builder.add(address, builder.lshr(offset, tile.integer(1)))
        pointer = builder.inttoptr(at, ir.VectorType(ir.IntType(16), lanes).as_pointer())
        return widened(builder, builder.load(pointer, align=2))

    at = [tile.load_integer(builder.add(sources, tile.integer(8 * j))) for j in range(len(matrix[0]))]
    to = [builder.add(target, tile.times(step, i)) for i in range(len(matrix))]
    with cgutils.for_range_slice(builder, tile.integer(0), tile.times(count, tile.size),
                                 tile.integer(tile.lanes * tile.size)) as (offset, _):
        x = [load(address, offset) for address in at]
        for row, address in zip(matrix, to, strict=True):
            total = None
            for factor, value in zip(row, x, strict=True):
                if factor:
                    scaled = value if factor == 1 else builder.fmul(
                        value, ir.Constant(tile.vector, [float(factor)] * tile.lanes), flags=("contract",))
                    total = scaled if total is None else builder.fadd(total, scaled, flags=("contract",))
            tile.store_row([total], builder.add(address, offset))
