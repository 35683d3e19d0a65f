"""The innermost loops of depthwise convolution: 16 channels, whose kernel stays in registers.

    correlate_windows    y[l, j] = start + sum over r, s of  x[l*u + r, j*v + s] * w[r, s]        forward and dx
    sum_windows          dw[r, s] += sum over l, j of  x[l*u + r, j*v + s] * dy[l, j]

    packed lines of x     [0][1][2] 3  4  5  .        each cell: 16 channels of a pixel, one register of AVX-512
                          [0][1][2] 3  4  5  .        nine multiply-adds with a cell from the L1 cache and a weight
                          [0][1][2] 3  4  5  .        (or a sum of dw) that is in its register for all of the windows

Each size of a kernel becomes two small compiled functions, called by their addresses (microkernel.py does the same).
Addresses and distances are in bytes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.kernels.cpu.llvm_code import lanes_below, masked_load, masked_store, prefetch
from minicnn.kernels.cpu.stored import computed_in, real, rounded, widened
from minicnn.kernels.cpu.tile import Tile
from minicnn.kernels.cpu.vectors import LANES


class Window:
    """Generates what both loops share: the loop over lines and outputs, and the cells of a window.

    The third argument is an element of the tensor that outputs are in.
    """

    def __init__(self, context, builder, signature, channels):
        down, across, self.element = signature.args[:3]
        self.builder, self.R, self.S = builder, down.count, across.count
        self.tile = Tile(builder, computed_in(self.element), 0, 1, LANES)
        self.tensor = ir.VectorType(context.get_value_type(self.element), LANES)
        self.cell = LANES * self.tile.size                                      # bytes
        self.mask = lanes_below(builder, channels, LANES)

    def zero(self):
        return ir.Constant(self.tile.vector, [0.0] * LANES)

    def pointer(self, address, *terms):
        """To the cell at address + terms."""
        for term in terms:
            address = self.builder.add(address, term)
        return self.builder.inttoptr(address, self.tile.vector.as_pointer())

    def load(self, address, *terms):
        return self.builder.load(self.pointer(address, *terms), align=self.tile.size)

    def load_channels(self, address):
        """Those channels that exist, of sums."""
        return masked_load(self.builder, self.pointer(address), self.mask, self.tile.size)

    def store_channels(self, value, address):
        masked_store(self.builder, value, self.pointer(address), self.mask, self.tile.size)

    def load_output(self, address):
        """The same of an output."""
        address = self.builder.inttoptr(address, self.tensor.as_pointer())
        value = masked_load(self.builder, address, self.mask, self.element.bitwidth // 8)
        return widened(self.builder, value) if self.element == types.uint16 else value

    def store_output(self, value, address):
        value = rounded(self.builder, value) if self.element == types.uint16 else value
        address = self.builder.inttoptr(address, self.tensor.as_pointer())
        masked_store(self.builder, value, address, self.mask, self.element.bitwidth // 8)

    def prefetch(self, address, for_writing: bool):
        prefetch(self.builder, self.builder.inttoptr(address, ir.IntType(8).as_pointer()), for_writing)

    def add_product(self, a, b, total=None):
        product = self.builder.fmul(a, b, flags=("contract",))
        return product if total is None else self.builder.fadd(product, total, flags=("contract",))

    def each(self, source, down, line, across, other, other_line, other_apart, lines, outputs, body):
        """body(load a tap (r, s) of the window, address in `other`), for all outputs of all lines."""
        builder = self.builder
        with cgutils.for_range(builder, lines) as at_line:
            start = builder.add(source, builder.mul(at_line.index, down))
            rows = [builder.add(start, self.tile.times(line, r)) for r in range(self.R)]
            there = builder.add(other, builder.mul(at_line.index, other_line))
            with cgutils.for_range(builder, outputs) as at_output:
                offset = builder.mul(at_output.index, across)

                def tap(r, s):
                    return self.load(rows[r], offset, self.tile.integer(s * self.cell))

                body(tap, builder.add(there, builder.mul(at_output.index, other_apart)))


@intrinsic
def _correlate(typingctx, down, across, element, floor, arguments, channels):
    def code(context, builder, signature, values):
        window = Window(context, builder, signature, values[5])
        source, line, u, v, kernel, target, *rest = cgutils.unpack_tuple(builder, values[4])
        target_line, target_apart, ahead, lines, outputs = rest
        low, R, S = window.tile.broadcast(values[3]), window.R, window.S
        start, *weights = [window.load(kernel, window.tile.integer(i * window.cell)) for i in range(1 + R * S)]

        def output(tap, address):
            total = start
            for r in range(R):                                                 # a row by itself: a shorter chain
                row = None
                for s in range(S):
                    row = window.add_product(tap(r, s), weights[r * S + s], row)
                total = builder.fadd(total, row)
            window.prefetch(builder.add(address, ahead), for_writing=True)
            window.store_output(builder.select(builder.fcmp_ordered("<", total, low), low, total), address)

        window.each(source, u, line, v, target, target_line, target_apart, lines, outputs, output)
        return context.get_dummy_value()

    return types.void(down, across, element, floor, arguments, types.int64), code


@intrinsic
def _sum(typingctx, down, across, element, arguments, channels):
    def code(context, builder, signature, values):
        window = Window(context, builder, signature, values[4])
        source, line, u, v, dy, dy_line, dy_apart, total, *rest = cgutils.unpack_tuple(builder, values[3])
        total_apart, ahead, lines, outputs = rest
        sums = [cgutils.alloca_once_value(builder, window.zero()) for _ in range(window.R * window.S)]

        def output(tap, address):
            window.prefetch(builder.add(address, ahead), for_writing=False)
            gradient = window.load_output(address)
            for i, held in enumerate(sums):
                product = window.add_product(tap(*divmod(i, window.S)), gradient, builder.load(held))
                builder.store(product, held)

        window.each(source, u, line, v, dy, dy_line, dy_apart, lines, outputs, output)
        for i, held in enumerate(sums):
            address = builder.add(total, window.tile.times(total_apart, i))
            window.store_channels(builder.fadd(window.load_channels(address), builder.load(held)), address)
        return context.get_dummy_value()

    return types.void(down, across, element, arguments, types.int64), code


@cache
def correlate_windows(R: int, S: int, dtype: str):
    """The compiled function for R x S kernels and a target of this dtype; `.address` is the argument of `tile.call`.

    source: the packed cell of the first window's first tap; lines are `line` apart, windows u and v.   kernel: cells,
    the start of the sums and R*S weights.   target: an element of a tensor; lines and outputs are target_line and
    target_apart apart, and the one that is `ahead` is prefetched.   channels: how many of the 16 exist.   relu: 0 or 1.
    """
    down, across = (0,) * R, (0,) * S
    element = np.dtype(dtype).type(0)
    zero, low = real(element).type(0), real(element).type(-np.inf)

    @cfunc(types.void(*[types.int64] * 13), cache=True)
    def windows(source, line, u, v, kernel, target, target_line, target_apart, ahead, lines, outputs, channels, relu):
        arguments = (source, line, u, v, kernel, target, target_line, target_apart, ahead, lines, outputs)
        floor = zero if relu else low
        if channels >= LANES:
            _correlate(down, across, element, floor, arguments, LANES)                  # a constant: no masks
        else:
            _correlate(down, across, element, floor, arguments, channels)

    return windows


@cache
def sum_windows(R: int, S: int, dtype: str):
    """The same for dw and a dy of this dtype: the R*S sums are added to rows that are total_apart apart, from `total`
    on."""
    down, across, element = (0,) * R, (0,) * S, np.dtype(dtype).type(0)

    @cfunc(types.void(*[types.int64] * 13), cache=True)
    def windows(source, line, u, v, dy, dy_line, dy_apart, total, total_apart, ahead, lines, outputs, channels):
        arguments = (source, line, u, v, dy, dy_line, dy_apart, total, total_apart, ahead, lines, outputs)
        if channels >= LANES:
            _sum(down, across, element, arguments, LANES)
        else:
            _sum(down, across, element, arguments, channels)

    return windows
