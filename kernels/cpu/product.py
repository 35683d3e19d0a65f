"""One tile of a matrix product, which reads its operands in place: the innermost loop of fully connected layers.

                          VECTORS * LANES columns
                         +-----------------------+     y[r, :]  = or +=  sum over i < steps of  a[r, i] * b[i, :]
                 b[i, :] |  one row of b, loaded |
                         +-----------------------+     a[r, i] is at a + r * a_row + i * a_step, so that a may be rows
      a[0, i] . . . . .  |  sums of row 0        |     or columns of an array; b[i, :] at b + i * b_step, y[r, :] at
      a[1, i] . . . . .  |  sums of row 1        |     y + r * y_row. All distances are in bytes.
         ...             |     ...               |
                         +-----------------------+

Each shape of the tile is compiled once, in a loop over any number of rows, and called by its address (tile.py).
The tile is 8 rows high with AVX-512 and not 12 as in convolution: batches are multiples of 8, so no row is idle, and
16 running sums keep the multipliers as busy as 24 do, within 4 % (183 and 187 GFLOP/s on two cores).
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import numpy as np
from numba import types
from numba.extending import intrinsic

from minicnn.kernels.cpu.compiling import callback
from minicnn.kernels.cpu.tile import Edge, tile_of, vector_bytes

ROWS = {64: 8, 32: 4, 16: 4}         # by the bytes of a vector: sums that fit the registers beside two vectors of b
VECTORS = 2


def product_width(itemsize: int) -> int:
    """Columns of the tile."""
    return VECTORS * (vector_bytes() // itemsize)


@intrinsic
def product_tile(typingctx, rows, vectors, lanes, number, a, a_row, a_step, b, b_step, steps, y, y_row, add, count,
                 columns):
    """y[r, :] = (add: +=) sum over i < steps of a[r, i] * b[i, :]; see above. steps must be at least 1.

    number: any scalar of the arrays' type.   count, columns: how much of the tile exists; nothing else is touched.
    """
    signature = types.void(rows, vectors, lanes, number, *[types.int64] * 11)

    def code(context, builder, signature, arguments):
        tile = tile_of(builder, signature)
        a, a_row, a_step, b, b_step, steps, y, y_row, add, count, columns = arguments[4:]

        def body(part, whole):
            """The loop, and the stores; `part` loads and stores rows of the tile, which may not be whole."""
            exists = [None if whole else builder.icmp_signed("<", tile.integer(r), count) for r in range(tile.rows)]
            a_rows = [builder.add(a, tile.times(a_row, r)) for r in range(tile.rows)]
            if not whole:
                a_rows = [builder.select(there, address, a) for there, address in zip(exists, a_rows, strict=True)]

            def one_step(_, sums, a_offset, b_here):
                return tile.add_products(sums, [builder.add(address, a_offset) for address in a_rows],
                                         part.load_row(b_here))

            sums = tile.loop(steps, tile.zeros(), one_step, (tile.integer(0), a_step), (b, b_step))

            def write(adding):
                for r, (row, there) in enumerate(zip(sums, exists, strict=True)):
                    address = builder.add(y, tile.times(y_row, r))
                    with nullcontext() if whole else builder.if_then(there):
                        old = part.load_row(address) if adding else None
                        part.store_row([builder.fadd(*pair) for pair in zip(old, row, strict=True)] if adding else row,
                                       address)

            with builder.if_else(builder.icmp_signed("!=", add, tile.integer(0))) as (adds, writes):
                with adds:
                    write(True)
                with writes:
                    write(False)

        with builder.if_else(tile.is_whole(count, columns)) as (then, otherwise):
            with then:
                body(tile, whole=True)
            with otherwise:
                body(Edge(tile, columns), whole=False)
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

    @callback(types.void(*[types.int64] * 11))
    def tiles(a, a_row, a_step, b, b_step, steps, y, y_row, add, count, columns):
        for r in range(0, count, height):
            product_tile(rows, vectors, lanes, number, a + r * a_row, a_row, a_step, b, b_step, steps, y + r * y_row,
                         y_row, add, count - r, columns)

    return tiles
