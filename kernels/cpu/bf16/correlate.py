"""Correlation in bf16: the loop of convolution's forward pass, and of its data gradient.

    target[n,i,j,k] = start[k] + sum over r,s,c of  source[n, i*step + shift + r, j*step + shift + s, c] * w[r,s,c,k]

              panels of w, in pairs of rows:         source, some lines, rounded and padded (source.py):
              32 columns, all of the reduction       384 KB, in a thread's L2 cache
                +--------+                             . . . . . . . .
      taps x    | 32 out |                             . [output 0] . .      32 outputs at a time,
      channels  |        |     x                       . [output 1] . .      a constant distance apart
                |        |                             . . . . . . . .
                +--------+
                    |  +-----------------------+
                    +->| 32 outputs x 32 sums  | -> bias and ReLU on the way out -> target, written once
                       |   block.py, sums in L1 |
                       +-----------------------+

A 1 x 1 kernel reads sources that are stored in bf16 where they lie, if the block can (source.is_read_in_place). Else a
thread copies its lines. Then it takes one panel after the other, each with all of its outputs; the next panel is
prefetched meanwhile. Outputs between two lines or images, which the copy's layout has and the target has not, are
computed and dropped.
"""

from __future__ import annotations

from minicnn.kernels.cpu.bf16.block import HALF_BYTES, SIDE, STEP_BYTES, Block, begin_blocks, end_blocks
from minicnn.kernels.cpu.bf16.rounding import fetch_rows, finish_rows, pair_rows, transpose_words
from minicnn.kernels.cpu.bf16.source import (
    Axis,
    Source,
    copy_shared,
    copy_windows,
    geometry,
    is_read_in_place,
    line_elements,
    lines_within,
    source_of,
    steps_of,
)
from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.stored import BF16
from minicnn.kernels.cpu.threads import blocks, run, split, threads
from minicnn.kernels.cpu.tile import call
from minicnn.kernels.cpu.vectors import LANES

COPY_BYTES = 384 << 10           # of a copy, in the L2 cache beside a panel
LEAST_OUTPUTS = 256              # of a task, where there would be too few tasks for all threads


@kernel
def pack_panels(first, last, w, taps, elements, panels, tap_step, row_step, group_step,
                columns):
    """panels (groups, count, steps, 2, 16, 16, 2) of w, flat, for steps first..last.

    elements (steps, 32, 2): of each element of a step, the tap and the row in it, or -1.   taps: where in w a tap is.
    The columns of row i of tap t of group g begin at element taps[t]*tap_step + g*group_step + i*row_step.
    """
    groups, count, steps = panels.shape[:3]
    for step in range(first, last):
        for pair in range(16):
            (t0, i0), (t1, i1) = elements[step, 2 * pair], elements[step, 2 * pair + 1]
            at0 = w.ctypes.data + (taps[max(t0, 0)] * tap_step + max(i0, 0) * row_step) * 4
            at1 = w.ctypes.data + (taps[max(t1, 0)] * tap_step + max(i1, 0) * row_step) * 4
            for g in range(groups):
                for k in range(0, count * SIDE, LANES):
                    filled, shift = max(0, min(LANES, columns - k)), (g * group_step + k) * 4
                    to = ((g * count + k // SIDE) * steps + step) * STEP_BYTES + k % SIDE // LANES * HALF_BYTES
                    pair_rows(w, at0 + shift, at1 + shift, panels.ctypes.data + to + pair * 64,
                              filled if t0 >= 0 else 0, filled if t1 >= 0 else 0)


@kernel
def transpose_kernel(first, last, w, transposed):
    """transposed (taps, K, D) of w (taps, D, K): 16 columns K at a time, first..last of all taps."""
    D, K = w.shape[1:]
    parts = (K + LANES - 1) // LANES
    for i in range(first, last):
        t, k = i // parts, i % parts * LANES
        for d in range(0, D, LANES):
            transpose_words(w.ctypes.data + ((t * D + d) * K + k) * 4, K * 4, D - d, K - k,
                       transposed.ctypes.data + ((t * K + k) * D + d) * 4, D * 4)


@kernel
def _correlate(first, last, p0, p1, addresses, source, copy, line, length, shape, windows, halo, steps, panels, bias,
               target, maps, any_places, in_place, places, listed, sums, relu):
    """Lines first..last of outputs, panels p0..p1 of each group.

    maps: lines and columns of outputs that the target has, and of both axes how far apart they are and the first.
    any_places: of the block.   in_place: the source is not copied.   places, listed: memory for where each output reads
    and is written.   sums (32, 32).
    """
    N, LH, LW, groups, depth = shape[:5]
    count, (_, TH, TW, K) = panels.shape[1], target.shape
    P, Q, down, top, across, left = maps
    E, outputs, pixel, size = K // groups, (last - first) * LW, depth * 2, target.itemsize
    if windows:
        copy_windows(first, last, source, copy, length, shape, line)
    elif not in_place:
        copy_shared(first, last + halo, source, copy, length, shape)
    found, (_, H, W, C) = 0, source.shape
    for m in range(outputs):
        at, j = first + m // LW, m % LW
        n, i = at // LH, at % LH
        there = i < P and j < Q
        if there or not any_places:
            if in_place:
                places[found] = (((n * H + i * shape[5] + shape[6]) * W + j * shape[9] + shape[10]) * C) * 2
            else:
                places[found] = m * pixel
            listed[found] = (target.ctypes.data + (((n * TH + i * down + top) * TW + j * across + left) * K) * size
                             if there else 0)
            found += 1
    for m in range(found, (found + SIDE - 1) // SIDE * SIDE):
        places[m], listed[m] = places[found - 1], 0
    begin_blocks(addresses)
    reduction = len(steps) * STEP_BYTES
    for g in range(groups):
        for panel in range(p0, p1):
            b, shift = panels.ctypes.data + (g * count + panel) * reduction, (g * E + panel * SIDE) * size
            for m in range(0, found, SIDE):
                a = (source.ctypes.data + g * pixel if in_place
                     else copy.ctypes.data + (g * length + (0 if any_places else m)) * pixel)
                fetch_rows(target, listed.ctypes.data + m * 8, shift)
                call(addresses[0], (a, pixel, places.ctypes.data + m * 8, steps.ctypes.data, len(steps), b, STEP_BYTES,
                                    HALF_BYTES, sums.ctypes.data, SIDE * 4, True, min(SIDE, found - m),
                                    E - panel * SIDE, b + reduction + m // SIDE * len(steps) * 64))
                finish_rows(target, sums.ctypes.data, SIDE * 4, listed.ctypes.data + m * 8, SIDE, shift,
                            bias.ctypes.data + (g * count + panel) * SIDE * 4, E - panel * SIDE, relu)
    end_blocks(addresses)


def correlate(block: Block, x, target, down: Axis, across: Axis, groups: int, packed, arrays, bias=None, relu=False):
    """Fill one phase of the target from x. packed(elements, panels): packs the kernel.   arrays: work space."""
    source, lines = _plan(block, x.shape, target.shape[3] // groups, down, across, groups)
    length, D, E = source.length(lines), x.shape[3] // groups, target.shape[3] // groups
    steps, elements = steps_of(source, length, D)
    panels, starts, *lanes = arrays
    packed(elements, panels)
    starts[:] = 0
    if bias is not None:
        starts.reshape(groups, -1)[:, :E] = bias.reshape(groups, E)
    shape, at = geometry(source), block.addresses
    in_place = block.any_places and x.dtype == BF16 and is_read_in_place(source, D)
    maps = (down.count, across.count, down.apart, down.first, across.apart, across.first)

    def some(lane, first, last, p0, p1):
        copy, line, listed, sums = lane
        _correlate(first, last, p0, p1, at, x, copy, line, length, shape, source.windows, source.halo, steps, panels,
                   starts, target, maps, block.any_places, in_place, *listed, sums, relu)

    run(_tasks(source, lines, panels.shape[1]), some, list(zip(*lanes, strict=True)))


def _plan(block: Block, x_shape, E: int, down: Axis, across: Axis, groups: int) -> tuple[Source, int]:
    """The layout, and how many lines a thread copies at a time."""
    N, _, _, C = x_shape
    source = source_of(N, C, groups, down, across, block.granule)
    share = -(-source.lines // (2 * threads()))                                 # lines, so that no thread is idle
    least = min(source.lines, -(-LEAST_OUTPUTS // source.LW))
    return source, min(lines_within(source, COPY_BYTES), max(least, share))


def _tasks(source: Source, lines: int, panels: int) -> list[tuple[int, int, int, int]]:
    """Some lines each; where they are too few for all threads, some of the panels each."""
    chunks = blocks(source.lines, lines)
    parts = split(panels, 1 if len(chunks) >= threads() else -(-2 * threads() // len(chunks)))
    return [(*chunk, *part) for chunk in chunks for part in parts]


def correlation_arrays(block: Block, x_shape, K: int, down: Axis, across: Axis, groups: int) -> list:
    """The arrays of work space that `correlate` needs."""
    source, lines = _plan(block, x_shape, K // groups, down, across, groups)
    length, count = source.length(lines), -(-(K // groups) // SIDE)
    steps = len(steps_of(source, length, x_shape[3] // groups)[0])
    return [((groups, count, steps, 2, 16, 16, 2), "uint16"), ((groups * count, SIDE), "float32"),
            ((threads(), source.planes * length * source.depth), "uint16"),
            ((threads(), line_elements(source, x_shape[3])), "uint16"), ((threads(), 2, length), "int64"),
            ((threads(), SIDE, SIDE), "float32")]
