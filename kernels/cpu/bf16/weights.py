"""The weight gradient of convolution in bf16: dw = X' dy, sums over the pixels of all outputs.

     a: x, pixels innermost                         b: dy in pairs of pixels, zeros where there is no output
     +-----------------------------+                +------------------+
     | channel 0: . . . . . . . . .|                | m, m+1: 32 of k  |      one tap's 32 channels x 32 columns of dw
     | channel 1: . . . . . . . . .|       x        | m+2, m+3:        |  ->  are one block (block.py); every tap reads
     |   ...        ^ tap: a shift |                |   ...            |      the same dy and x, some pixels further on
     +-----------------------------+                +------------------+

Some lines of all images at a time, 8 MB of a and b, which all threads make together: a is the copy that forward reads
(source.py), transposed. Then each thread takes some channels, columns and all taps, 512 pixels at a time, whose a and b
stay in its L2 cache; the sums of a task are kept in memory until the last lines. Where there are few tasks, each is
cut into ranges of pixels with sums of their own, which are added in a fixed order.

The outputs between two lines are zeros of dy. An infinite x of a channel may thus make NaN of all taps of that
channel's part of dw, of which others are infinite or NaN in any case; other channels are not reached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minicnn.kernels.cpu.bf16.block import HALF_BYTES, SIDE, STEP, Block, apart, begin_blocks, end_blocks
from minicnn.kernels.cpu.bf16.rounding import fetch_line, pair_rows, transpose_rows
from minicnn.kernels.cpu.bf16.source import (
    Axis,
    Source,
    copy_shared,
    copy_windows,
    geometry,
    line_elements,
    source_of,
)
from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.memory import rows
from minicnn.kernels.cpu.threads import blocks, parallel_for, run, split, threads
from minicnn.kernels.cpu.tile import call
from minicnn.kernels.cpu.vectors import LANES

TOGETHER_BYTES = 8 << 20         # of a and b, in the L3 cache
COPY_BYTES = 256 << 10           # of the copy that is transposed, in a thread's L2 cache
CHUNK = 16                       # steps of 32 pixels: 32 KB of b for 32 columns
FETCH = 16                        # pixels of dy between the prefetch of one and its use
SUMS = 64                        # blocks of 4 KB of a task
PARTS_BYTES = 4 << 20            # of sums that ranges of pixels have of their own
WHOLE = np.stack([np.arange(CHUNK) * STEP * 2, np.full(CHUNK, STEP // 2)], 1).astype(np.int64)


class _Plan(NamedTuple):
    """height: rows of dw that each of the `taps` blocks' rows stand for; high, wide: blocks of rows and of columns."""

    source: Source
    lines: int                   # at a time
    pixels: int                  # of them, whole steps
    row: int                     # elements of a row of a: the pixels and what taps reach behind them
    taps: np.ndarray             # (T, 2): phase and pixel
    height: int
    high: int
    wide: int
    share: tuple[int, int]       # blocks of rows and of columns of a task
    parts: int
    piece: int                   # pixels that a thread copies and transposes at a time

    @property
    def length(self) -> int:
        """Pixels of a plane of the copy."""
        return (self.piece // self.source.LW + 2) * self.source.LW + SIDE


def _plan(block: Block, x_shape, E: int, down: Axis, across: Axis, groups: int) -> _Plan:
    N, _, _, C = x_shape
    source = source_of(N, C, groups, down, across, block.granule)
    height = down.taps * across.taps * (C // groups) if source.windows else C // groups
    high, wide, taps = -(-height // SIDE), -(-E // SIDE), np.array(source.taps, np.int64)
    of_pixel = (source.planes * high + groups * wide) * SIDE * 2
    lines = max(1, min(source.lines, TOGETHER_BYTES // (of_pixel * source.LW)))
    lines = -(-source.lines // -(-source.lines // lines))                       # of about equal size
    pixels = _up(lines * source.LW, STEP)
    count = -(-(pixels + source.reach) // STEP)
    row = (count + (count % 2 == 0)) * STEP                                    # an odd number of cache lines
    wide_share = min(wide, max(1, SUMS // len(taps)))
    high_share = max(1, min(high, SUMS // (len(taps) * wide_share), high * groups // (2 * threads())))
    tasks = groups * -(-high // high_share) * -(-wide // wide_share)
    size = groups * high * wide * len(taps) * SIDE * SIDE * 4
    parts = 1 if tasks >= threads() else min(-(-2 * threads() // tasks), -(-pixels // (CHUNK * STEP)),
                                             max(1, PARTS_BYTES // size))
    piece = max(STEP, min(_up(pixels, STEP), COPY_BYTES // (source.planes * source.depth * 2) // STEP * STEP))
    return _Plan(source, lines, pixels, row, taps, height, high, wide, (high_share, wide_share), parts, piece)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@kernel
def _transpose(first, last, line, x, copy, padded, length, shape, windows, planes, transposed):
    """transposed (planes, channels in 32s, row): pixels first..last (multiples of 32) after those of `line`."""
    LW, depth = shape[2], shape[4]
    high, row = transposed.shape[1:]
    above, below = first // LW, (last + LW - 1) // LW
    if windows:
        copy_windows(line + above, line + below, x, copy, length, shape, padded)
    else:
        copy_shared(line + above, line + below, x, copy, length, shape)
    for plane in range(planes):
        for m in range(first, last, STEP):
            source = copy.ctypes.data + (plane * length + m - above * LW) * depth * 2
            for c in range(0, high, LANES):
                to = transposed.ctypes.data + ((plane * high + c) * row + m) * 2
                transpose_rows(source + c * 2, depth * 2, to, row * 2)


@kernel
def _pair_pixels(first, last, line, lines, dy, pairs, LH, LW):
    """pairs (groups, halves, pixels / 2, 16, 2) of dy: pairs first..last after the pixels of `line`; zeros between."""
    N, P, Q, K = dy.shape
    groups, halves, count = pairs.shape[:3]
    E, m, size = K // groups, 2 * first, dy.itemsize
    n, i, j = (line + m // LW) // LH, (line + m // LW) % LH, m % LW
    for pair in range(first, last):
        at, other, there, also = dy.ctypes.data, dy.ctypes.data, 0, 0
        for part in range(2):
            if m < lines * LW and n < N and i < P and j < Q:
                row = dy.ctypes.data + ((n * P + i) * Q + j) * K * size
                if part == 0:
                    at, there = row, LANES
                else:
                    other, also = row, LANES
            m, j = m + 1, j + 1
            if j == LW:
                i, j = i + 1, 0
                if i == LH:
                    n, i = n + 1, 0
        for g in range(groups):
            for half in range(halves):
                filled, shift = max(0, min(LANES, E - half * LANES)), (g * E + half * LANES) * size
                fetch_line(at + shift + FETCH * K * size)
                fetch_line(other + shift + FETCH * K * size)
                pair_rows(dy, at + shift, other + shift,
                          pairs.ctypes.data + ((g * halves + half) * count + pair) * 64, min(there, filled),
                          min(also, filled))


@kernel
def _sum(first, last, g, c0, c1, k0, k1, addresses, transposed, pairs, taps, height, columns, sums, places, steps,
         begin):
    """sums (groups, high, wide, taps, 32, 32) of group g, blocks c0..c1 of rows and k0..k1 of columns.

    first, last: steps of 32 pixels.   begin: they are overwritten, not added to.
    """
    groups, high, wide, T = sums.shape[:4]
    rows_of, row = transposed.shape[1:]
    halves, count = pairs.shape[1:3]
    chunk = len(steps)
    begin_blocks(addresses)
    for step in range(first, last, chunk):
        for k in range(k0, k1):
            b = pairs.ctypes.data + ((g * halves + 2 * k) * count + step * 16) * 64
            for c in range(c0, c1):
                for t in range(T):
                    a = ((taps[t, 0] * groups + g) * rows_of + c * SIDE) * row + step * STEP + taps[t, 1]
                    to = (((g * high + c) * wide + k) * T + t) * SIDE * SIDE * 4
                    call(addresses[0], (transposed.ctypes.data + a * 2, row * 2, places.ctypes.data, steps.ctypes.data,
                                        min(chunk, last - step), b, HALF_BYTES, count * 64, sums.ctypes.data + to,
                                        SIDE * 4, begin and step == first, min(SIDE, height - c * SIDE),
                                        columns - k * SIDE, b + chunk * HALF_BYTES))
    end_blocks(addresses)


@kernel
def _write(first, last, sums, dw, height, add):
    """Rows first..last of dw (taps * height, K) from sums (parts, groups, high, wide, taps, 32, 32)."""
    parts, groups, _, wide = sums.shape[:4]
    E = dw.shape[1] // groups
    for row in range(first, last):
        t, c = row // height, row % height
        for g in range(groups):
            for block in range(wide):
                k0 = g * E + block * SIDE
                for part in range(parts):
                    source = sums[part, g, c // SIDE, block, t, c % SIDE]
                    if part == 0 and not add:
                        for k in range(min(SIDE, E - block * SIDE)):
                            dw[row, index(k0 + k)] = source[k]
                    else:
                        for k in range(min(SIDE, E - block * SIDE)):
                            dw[row, index(k0 + k)] += source[k]


def weights(block: Block, x, dy, dw, down: Axis, across: Axis, groups: int, add: bool, arrays: list) -> None:
    """dw (R, S, C/G, K) += from x and dy; without `add`, dw =.   arrays: work space."""
    E = dy.shape[3] // groups
    plan = _plan(block, x.shape, E, down, across, groups)
    source, (transposed, pairs, sums, *lanes) = plan.source, arrays
    shape, at, lanes = geometry(source), block.addresses, list(zip(*lanes, strict=True))
    places = apart(transposed.strides[1])
    for line in range(0, source.lines, plan.lines):
        lines = min(plan.lines, source.lines - line)
        steps = -(-lines * source.LW // STEP)

        def transpose(lane, first, last, line=line):
            _transpose(first, last, line, x, *lane, plan.length, shape, source.windows, source.planes, transposed)

        run(blocks(_up(steps * STEP + source.reach, STEP), plan.piece), transpose, lanes)
        parallel_for(steps * STEP // 2, 2 * dy.shape[3], _pair_pixels, line, lines, dy, pairs, source.LH, source.LW)

        def some(part, first, last, *where, line=line):
            _sum(first, last, *where, at, transposed, pairs, plan.taps, plan.height, E, sums[part], places, WHOLE,
                 line == 0)

        run([(part, *pixels, *where) for part, pixels in enumerate(_ranges(steps, plan.parts))
             for where in _tasks(plan, groups)], some)
    flat = rows(dw, dy.shape[3])
    parallel_for(len(flat), dy.shape[3] * plan.parts, _write, sums, flat, plan.height, add)


def _ranges(steps: int, parts: int) -> list[tuple[int, int]]:
    """The steps in whole chunks, as at most `parts` ranges."""
    return [(first * CHUNK, min(last * CHUNK, steps)) for first, last in split(-(-steps // CHUNK), parts)]


def _tasks(plan: _Plan, groups: int) -> list[tuple[int, int, int, int, int]]:
    """(group, blocks of rows from, to, blocks of columns from, to)."""
    return [(g, *c, *k) for g in range(groups) for c in blocks(plan.high, plan.share[0])
            for k in blocks(plan.wide, plan.share[1])]


def weight_arrays(block: Block, x_shape, K: int, down: Axis, across: Axis, groups: int) -> list:
    """The arrays of work space that `weights` needs."""
    plan, lanes = _plan(block, x_shape, K // groups, down, across, groups), threads()
    source = plan.source
    return [((source.planes, plan.high * SIDE, plan.row), "uint16"),
            ((groups, 2 * plan.wide, plan.pixels // 2, 16, 2), "uint16"),
            ((plan.parts, groups, plan.high, plan.wide, len(plan.taps), SIDE, SIDE), "float32"),
            ((lanes, source.planes * plan.length * source.depth + SIDE), "uint16"),
            ((lanes, line_elements(source, x_shape[3])), "uint16")]
