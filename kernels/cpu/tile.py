"""A tile of sums that stays in registers while products are added to it, written in LLVM IR.

                    VECTORS * LANES columns
                   +-----------+-----------+
      ROWS rows    | acc[0][0] | acc[0][1] |      one step of the reduction:  load VECTORS vectors of b,
                   | acc[1][0] | acc[1][1] |      and for each row broadcast one element of a and add
                   |    ...    |    ...    |      a * b to the row's sums
                   +-----------+-----------+

With AVX-512 there are 32 registers of 16 floats: 12 rows x 2 vectors of sums, 2 vectors of b and 1 of a. A step then
does 24 multiply-adds for 14 loads, so the multipliers are the limit and not the loads.

Numba vectorises its own loops, but never keeps such a tile in registers; so the loops around it (microkernel.py for
convolution, product.py for fully connected layers) are generated with `Tile`, in vectors of LANES elements that LLVM
maps to what the machine has. The shape of the tile travels in the types of three tuples (rows,
vectors, lanes: their lengths count), so that one source serves every width. Addresses are integers, in bytes.
"""

from __future__ import annotations

import os
from functools import cache

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.errors import DeviceError
from minicnn.kernels.cpu.llvm_code import INT64, lanes_below, masked_load, masked_store, prefetch, splat

# bytes of a vector -> rows of the tile by its width in vectors: as many sums as the registers hold beside a and b
ROWS = {64: {4: 6, 3: 8, 2: 12, 1: 14}, 32: {2: 6, 3: 4, 1: 10}, 16: {2: 6, 3: 4, 1: 10}}
AHEAD = 12          # steps between the prefetch of a row of b, which is in the L2 cache, and its use
VECTOR_VARIABLE = "MINICNN_VECTOR_BYTES"


@cache
def vector_bytes() -> int:
    """Bytes of a vector on this machine: 64 (AVX-512), 32 (AVX2) or 16; MINICNN_VECTOR_BYTES overrides it."""
    chosen = os.environ.get(VECTOR_VARIABLE)
    if chosen is not None:
        if chosen not in map(str, ROWS):
            raise DeviceError(f"{VECTOR_VARIABLE} must be one of {', '.join(map(str, ROWS))}, not {chosen!r}")
        return int(chosen)
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def tile_for(columns: int, itemsize: int) -> tuple[tuple, tuple, tuple]:
    """The tile (rows, vectors, lanes) that wastes least on `columns` columns; on a tie the first of ROWS."""
    lanes = vector_bytes() // itemsize
    rows = ROWS[vector_bytes()]
    vectors = min(rows, key=lambda count: -(-columns // (count * lanes)) * count)
    return (0,) * rows[vectors], (0,) * vectors, (0,) * lanes


class Tile:
    """Generates what the loops share: the registers, their loads, products and stores, and the loop itself.

    A row is `vectors` vectors side by side; values are lists of them, sums a list of rows.
    """

    def __init__(self, builder, number, rows: int, vectors: int, lanes: int):
        self.builder, self.rows, self.vectors, self.lanes = builder, rows, vectors, lanes
        self.number = ir.FloatType() if number == types.float32 else ir.DoubleType()
        self.size = number.bitwidth // 8
        self.vector = ir.VectorType(self.number, lanes)
        self.columns, self.width = vectors * lanes, vectors * lanes * self.size        # elements and bytes of a row

    def integer(self, value: int):
        return INT64(value)

    def times(self, value, factor: int):
        return self.builder.mul(value, self.integer(factor))

    def load(self, address, what):
        return self.builder.load(self.builder.inttoptr(address, what.as_pointer()), align=self.size)

    def load_integer(self, address):
        return self.builder.load(self.builder.inttoptr(address, INT64.as_pointer()))

    def pointers(self, address):
        """To the vectors of the row at this address."""
        step = self.lanes * self.size
        return [self.builder.inttoptr(self.builder.add(address, self.integer(v * step)), self.vector.as_pointer())
                for v in range(self.vectors)]

    def load_row(self, address):
        return [self.builder.load(pointer, align=self.size) for pointer in self.pointers(address)]

    def store_row(self, values, address):
        for value, pointer in zip(values, self.pointers(address), strict=True):
            self.builder.store(value, pointer, align=self.size)

    def prefetch_row(self, address):
        """Prefetch the row that is AHEAD rows further on; an address outside of the array does no harm."""
        for pointer in self.pointers(self.builder.add(address, self.integer(AHEAD * self.width))):
            prefetch(self.builder, self.builder.bitcast(pointer, ir.IntType(8).as_pointer()))

    def prefetch_line(self, address):
        """Prefetch the cache line of this address into L2."""
        prefetch(self.builder, self.builder.inttoptr(address, ir.IntType(8).as_pointer()), locality=2)

    def broadcast(self, value):
        return splat(self.builder, value, self.lanes)

    def zeros(self):
        """Sums of 0."""
        return [[ir.Constant(self.vector, [0.0] * self.lanes)] * self.vectors] * self.rows

    def registers(self, incoming, block):
        """Sums that enter the current block from `block` with these values; `feed` adds its other predecessors."""
        sums = [[self.builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        self.feed(sums, incoming, block)
        return sums

    def feed(self, sums, incoming, block):
        for row, values in zip(sums, incoming, strict=True):
            for phi, value in zip(row, values, strict=True):
                phi.add_incoming(value, block)

    def loop(self, steps, sums, body, *moving):
        """Sums after `steps` times sums = body(i, sums, *addresses), at least once.

        moving: pairs (address, distance): the first address, and how far it moves in each step.
        """
        builder, entry = self.builder, self.builder.block
        head, after = builder.append_basic_block("step"), builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        counters = [(builder.phi(INT64), begin, by) for begin, by in ((self.integer(0), self.integer(1)), *moving)]
        held = self.registers(sums, entry)
        new = body(counters[0][0], held, *(counter for counter, _, _ in counters[1:]))
        end = builder.block                                                    # body may have added loops of its own
        for counter, begin, by in counters:
            counter.add_incoming(begin, entry)
            counter.add_incoming(builder.add(counter, by), end)
        self.feed(held, new, end)
        builder.cbranch(builder.icmp_signed("<", counters[0][0].incomings[1][0], steps), head, after)
        builder.position_at_end(after)
        return new

    def add_products(self, sums, a_addresses, b):
        """sums[r][v] + a[r] * b[v]; one instruction where the machine multiplies and adds in one."""
        result = []
        for row, address in zip(sums, a_addresses, strict=True):
            a = self.broadcast(self.load(address, self.number))
            result.append([self.builder.fadd(self.builder.fmul(a, b[v], flags=("contract",)), row[v],
                                             flags=("contract",)) for v in range(self.vectors)])
        return result

    def is_whole(self, count, columns):
        """Whether a tile of which `count` rows and `columns` columns exist is whole."""
        return self.builder.and_(self.builder.icmp_signed(">=", count, self.integer(self.rows)),
                                 self.builder.icmp_signed(">=", columns, self.integer(self.columns)))


class Edge:
    """Rows of a tile of which only the first `columns` elements exist: the others are loaded as 0 and not stored."""

    def __init__(self, tile: Tile, columns):
        self.tile = tile
        self.masks = [lanes_below(tile.builder, columns, tile.lanes, v * tile.lanes) for v in range(tile.vectors)]

    def load_row(self, address):
        return [masked_load(self.tile.builder, pointer, mask, self.tile.size)
                for pointer, mask in zip(self.tile.pointers(address), self.masks, strict=True)]

    def store_row(self, values, address):
        for value, pointer, mask in zip(values, self.tile.pointers(address), self.masks, strict=True):
            masked_store(self.tile.builder, value, pointer, mask, self.tile.size)


def tile_of(builder, signature) -> Tile:
    """The tile whose shape and type are the signature's first four arguments: rows, vectors, lanes, a scalar."""
    rows, vectors, lanes, number = signature.args[:4]
    return Tile(builder, number, rows.count, vectors.count, lanes.count)


@intrinsic
def call(typingctx, address, arguments):
    """Call the function of integers at this address, which returns nothing."""
    def code(context, builder, signature, values):
        arguments = [context.cast(builder, value, kind, types.int64) for value, kind in
                     zip(cgutils.unpack_tuple(builder, values[1]), signature.args[1].types, strict=True)]
        function = ir.FunctionType(ir.VoidType(), [INT64] * len(arguments))
        builder.call(builder.inttoptr(values[0], function.as_pointer()), arguments)
        return context.get_dummy_value()

    return types.void(address, arguments), code
