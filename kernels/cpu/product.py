"""One tile of a matrix product between operands that lie where they are: the innermost loop of fully connected layers.

                          VECTORS * LANES columns
                         +-----------------------+     y[r, :]  = or +=  sum over i < steps of  a[r, i] * b[i, :]
                 b[i, :] |  one row of b, loaded |
                         +-----------------------+     a[r, i] lies at a + r * a_row + i * a_step, so that a may be rows
      a[0, i] . . . . .  |  sums of row 0        |     or columns of an array; b[i, :] at b + i * b_step, y[r, :] at
      a[1, i] . . . . .  |  sums of row 1        |     y + r * y_row. All distances are in bytes.
         ...             |     ...               |
                         +-----------------------+

Each shape of the tile is compiled once, in a loop over any number of rows, and called by its address (microkernel.py).
The tile is 8 rows high with AVX-512 and not 12 as in microkernel.py: batches are multiples of 8, so no row is idle, and
16 running sums keep the multipliers as busy as 24 do, within 4 % (183 and 187 GFLOP/s on two cores).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.kernels.cpu.microkernel import _Tile, _tile_of, vector_bytes

ROWS = {64: 8, 32: 4, 16: 4}         # by the bytes of a vector: sums that fit the registers beside two vectors of b
VECTORS = 2


def product_width(itemsize: int) -> int:
    """Columns of the tile."""
    return VECTORS * (vector_bytes() // itemsize)


class _Edges:
    """Loads and stores of a tile of which only the first `columns` columns and `count` rows exist."""

    def __init__(self, tile: _Tile, count, columns):
        builder = tile.builder
        flag = ir.VectorType(ir.IntType(64), tile.lanes)
        spread = builder.shuffle_vector(
            builder.insert_element(ir.Constant(flag, ir.Undefined), columns, ir.Constant(ir.IntType(32), 0)),
            ir.Constant(flag, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), tile.lanes), [0] * tile.lanes))
        self.tile, self.count, self.columns = tile, count, columns
        self.masks = [builder.icmp_signed("<", ir.Constant(flag, [v * tile.lanes + lane for lane in range(tile.lanes)]),
                                          spread) for v in range(tile.vectors)]
        pointer, bits = tile.vector.as_pointer(), ir.VectorType(ir.IntType(1), tile.lanes)
        self.masked_load = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(tile.vector, [pointer, ir.IntType(32), bits, tile.vector]),
            f"llvm.masked.load.v{tile.lanes}f{8 * tile.size}.p0")

    def load_row(self, address):
        tile = self.tile
        zero = ir.Constant(tile.vector, [0.0] * tile.lanes)
        at = [tile.builder.add(address, tile.integer(v * tile.lanes * tile.size)) for v in range(tile.vectors)]
        return [tile.builder.call(self.masked_load, [tile.builder.inttoptr(where, tile.vector.as_pointer()),
                                                     ir.Constant(ir.IntType(32), tile.size), mask, zero])
                for where, mask in zip(at, self.masks, strict=True)]

    def store_row(self, values, address):
        self.tile.store_columns(values, address, self.columns)


@intrinsic
def product_tile(typingctx, rows, vectors, lanes, number, a, a_row, a_step, b, b_step, steps, y, y_row, add, count,
                 columns):
    """y[r, :] = (add: +=) sum over i < steps of a[r, i] * b[i, :]; see above. steps must be at least 1.

    number: any number of the arrays' type.   count, columns: how much of the tile exists; nothing else is touched.
    """
    signature = types.void(rows, vectors, lanes, number, *[types.int64] * 11)

    def code(context, builder, signature, arguments):
        tile = _tile_of(builder, signature)
        a, a_row, a_step, b, b_step, steps, y, y_row, add, count, columns = arguments[4:]

        def body(edges):
            """The loop, and the way out; with `edges` for a tile that is not whole."""
            part, a_rows = edges or tile, []
            for r in range(tile.rows):
                address = builder.add(a, tile.times(a_row, r))
                exists = builder.icmp_signed("<", tile.integer(r), count)
                a_rows.append(builder.select(exists, address, a) if edges else address)
            entry, loop, after = builder.block, builder.append_basic_block("step"), builder.append_basic_block("after")
            builder.branch(loop)

            builder.position_at_end(loop)
            names = i, a_offset, b_here = [builder.phi(ir.IntType(64)) for _ in range(3)]
            for phi, value in zip(names, (tile.integer(0), tile.integer(0), b), strict=True):
                phi.add_incoming(value, entry)
            sums = tile.registers([[ir.Constant(tile.vector, [0.0] * tile.lanes)] * tile.vectors] * tile.rows, entry)
            new = tile.add_products(sums, [builder.add(address, a_offset) for address in a_rows], part.load_row(b_here))
            tile.feed(sums, new, loop)
            for phi, step in zip(names, (tile.integer(1), a_step, b_step), strict=True):
                phi.add_incoming(builder.add(phi, step), loop)
            builder.cbranch(builder.icmp_signed("<", i.incomings[1][0], steps), loop, after)

            builder.position_at_end(after)

            def write(adding):
                for r, row in enumerate(new):
                    address = builder.add(y, tile.times(y_row, r))

                    def write_row(row=row, address=address):
                        old = part.load_row(address) if adding else []
                        part.store_row([builder.fadd(*pair) for pair in zip(old, row, strict=True)] if adding else row,
                                       address)

                    if edges:
                        with builder.if_then(builder.icmp_signed("<", tile.integer(r), count)):
                            write_row()
                    else:
                        write_row()

            with builder.if_else(builder.icmp_signed("!=", add, tile.integer(0))) as (adds, writes):
                with adds:
                    write(True)
                with writes:
                    write(False)

        whole = builder.and_(builder.icmp_signed(">=", count, tile.integer(tile.rows)),
                             builder.icmp_signed(">=", columns, tile.integer(tile.vectors * tile.lanes)))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                body(None)
            with otherwise:
                body(_Edges(tile, count, columns))
        return context.get_dummy_value()

    return signature, code


def product_tiles(dtype) -> int:
    """The address of the compiled loop: call(address, (a, a_row, a_step, b, b_step, steps, y, y_row, add, count,
    columns)) as in product_tile, for any count; columns at most product_width."""
    return _compiled(vector_bytes(), np.dtype(dtype).str).address


@cache
def _compiled(vector: int, dtype: str):
    number = np.dtype(dtype).type(0)
    rows, vectors, lanes = (0,) * ROWS[vector], (0,) * VECTORS, (0,) * (vector // number.itemsize)
    height = len(rows)

    @cfunc(types.void(*[types.int64] * 11), cache=True)
    def tiles(a, a_row, a_step, b, b_step, steps, y, y_row, add, count, columns):
        for r in range(0, count, height):
            product_tile(rows, vectors, lanes, number, a + r * a_row, a_row, a_step, b, b_step, steps, y + r * y_row,
                         y_row, add, count - r, columns)

    return tiles
