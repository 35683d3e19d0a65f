"""Correlation, the loop of convolution's forward pass and of its data gradient: a kernel slides over a source.

    target[n,i,j,k] = start[k] + sum over r,s,c of  source[n, i*step + shift + r, j*step + shift + s, c] * w[r,s,c,k]

The im2col matrix that would make this one matrix product is never written: the innermost loops (microkernel.py) read
each of its elements from the source itself. Where data is kept (32 is the width of a panel):

              panel of w, packed: 32 KB at a time    source: a chunk of 50 to 800 pixels and
              stay in the L1 cache                   their neighbours, in the L2 cache
                +--------+                             . . . . . . .
      taps x    | 32 out |                             . [pixel 0] .      6 to 14 pixels at a time,
      channels  |        |     x                       . [pixel 1] .      each with its taps
                |        |                             . . . . . . .
                +--------+
                    |  +------------------+
                    +->| pixels x 32 sums | -> bias and ReLU on the way out -> target, written once
                       |   in registers   |
                       +------------------+

Taps that fall on the padding are skipped: the output is cut into rectangles whose pixels have the same taps
(the middle, and strips along the border), so that a tile needs no zeros. For AlexNet's 13 x 13 maps this saves a tenth
of the work. Where all channels are read (one group), a kernel row is contiguous in x, and is treated as one long tap.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.llvm_code import next_index
from minicnn.kernels.cpu.microkernel import correlate_tiles
from minicnn.kernels.cpu.threads import blocks, run, threads
from minicnn.kernels.cpu.tile import call, tile_for

CHUNK_TILES = 8, 64              # tiles of pixels multiplied with a panel of w before the next panel is read:
CHUNK_BYTES = 192 << 10          # so many that their channels stay in the L2 cache beside the panels
BLOCK = 64                       # output channels of w that are transposed at a time, within the L1 cache
L1_BYTES = 32 << 10              # of a panel, that stay in the L1 cache for all tiles of a chunk


@lru_cache(maxsize=4096)
def spans(count, step, shift, taps, size):
    """range(count) as (first, last, tap0, tap1): output i reads the input at i*step + shift + tap, inside 0..size."""
    spans = []
    for i in range(count):
        start = i * step + shift
        tap0 = min(max(0, -start), taps)
        tap1 = max(tap0, min(taps, size - start))
        if tap0 == tap1:
            tap0 = tap1 = 0
        if spans and spans[-1][2:] == (tap0, tap1):
            spans[-1] = (spans[-1][0], i + 1, tap0, tap1)
        else:
            spans.append((i, i + 1, tap0, tap1))
    return spans


@lru_cache(maxsize=1024)
def _rectangles(N, rows, columns, chunk):
    """Tasks (first, last, *row span, *column span): up to `chunk` pixels of the N images' pixels in one rectangle."""
    tasks = []
    for i0, i1, r0, r1 in spans(*rows):
        for j0, j1, s0, s1 in spans(*columns):
            tasks += [(first, last, i0, i1, r0, r1, j0, j1, s0, s1)
                      for first, last in blocks(N * (i1 - i0) * (j1 - j0), chunk)]
    tasks.sort(key=lambda task: task[0] - task[1])                             # large ones first: cores finish together
    return np.array(tasks, np.int64)


@kernel
def correlate_chunk(first, last, down, across, source, target, panels, starts, addresses, steps, sums, down_map,
                     across_map, taps_across, relu, tile_rows, tiles):
    """Pixels first..last of one rectangle of the target (N, H', W', K), from the source (N, H, W, C).

    panels (G, panels of a group, taps, C/G, width): the kernel.   starts (G, panels of a group, width): the bias.
    down, across: the rectangle's span of lines and columns.   down_map, across_map: (step, shift) in the source and
    (step, first) in the target.   addresses (2, pixels of a chunk), steps (2, taps), sums (pixels, width): scratch.
    tiles: address of microkernel.correlate_tiles, tile_rows: the rows of its tile.
    """
    H, W, C, size = source.shape[1], source.shape[2], source.shape[3], source.itemsize
    groups, count, _, D, width = panels.shape
    E = target.shape[3] // groups
    i0, i1, r0, r1 = down
    j0, j1, s0, s1 = across
    height, breadth = i1 - i0, j1 - j0
    for m in range(first, last):
        n, i, j = m // (height * breadth), i0 + m // breadth % height, j0 + m % breadth
        h, w = i * down_map[0] + down_map[1] + r0, j * across_map[0] + across_map[1] + s0
        addresses[0, m - first] = source.ctypes.data + ((n * H + h) * W + w) * C * size
        h, w = i * down_map[2] + down_map[3], j * across_map[2] + across_map[3]
        addresses[1, m - first] = target.ctypes.data \
            + ((n * target.shape[1] + h) * target.shape[2] + w) * target.shape[3] * size
    for m in range(last - first, last - first + tile_rows):                    # the last tile may have empty rows
        addresses[0, m] = addresses[0, last - first - 1]
    taps, length = 0, D
    if groups == 1:
        length = (s1 - s0) * D
    for r in range(r0, r1):
        for s in range(s0, s1):
            if groups > 1 or s == s0:
                steps[0, taps] = ((r - r0) * W + s - s0) * C * size
                steps[1, taps] = (r * taps_across + s) * D * width * size
                taps += 1
    a, y, kept = addresses[0].ctypes.data, addresses[1].ctypes.data, sums.ctypes.data
    a_steps, b_steps = steps[0].ctypes.data, steps[1].ctypes.data
    most = L1_BYTES // (width * size)                                          # rows of a panel at a time
    taps_at_once, pieces = max(1, most // max(1, length)), max(1, (length + most - 1) // most)
    part = max(1, (length + pieces - 1) // pieces)
    for g in range(groups):
        for panel in range(count):
            b = panels.ctypes.data + (g * count + panel) * panels.strides[1]
            start = starts.ctypes.data + (g * count + panel) * width * size
            for t in range(0, max(1, taps), taps_at_once):
                for i in range(0, max(1, length), part):
                    call(tiles, (a, (g * D + i) * size, a_steps + t * 8, b + i * width * size, b_steps + t * 8,
                                 min(taps_at_once, taps - t), min(part, length - i), start, kept, t == 0 and i == 0,
                                 t + taps_at_once >= taps and i + part >= length, y, (g * E + panel * width) * size,
                                 last - first, E - panel * width, relu))


@kernel
def _correlate_all(queue, tasks, source, target, panels, starts, addresses, steps, sums, down_map, across_map,
                   taps_across, relu, tile_rows, tiles):
    """Task after task, until the queue, a counter from which every thread takes the next index, is past the last one.

    The loop is here and not in threads.run so that a thread takes the GIL once and not for each of its tasks.
    """
    i = next_index(queue.ctypes.data)
    while i < len(tasks):
        task = tasks[i]
        correlate_chunk(task[0], task[1], (task[2], task[3], task[4], task[5]), (task[6], task[7], task[8], task[9]),
                        source, target, panels, starts, addresses, steps, sums, down_map, across_map, taps_across, relu,
                        tile_rows, tiles)
        i = next_index(queue.ctypes.data)


def correlate(source, target, panels, starts, addresses, steps, sums, down, across, relu):
    """The target, or every (step)th pixel of it, from the source; the arrays from panels on are those of panel_space.

    down, across: (number of outputs, step, shift, taps, size of the source, step in the target, first in the target).
    """
    tile = tile_for(target.shape[3] // panels.shape[0], source.itemsize)
    tiles = -(-len(source) * down[0] * across[0] // len(tile[0]))
    least, most = CHUNK_TILES
    fitting = CHUNK_BYTES // (len(tile[0]) * panels.shape[3] * source.itemsize)
    chunk = len(tile[0]) * min(max(least, fitting), most, -(-tiles // (2 * threads())))
    function = correlate_tiles(tile, source.dtype.str).address
    maps = [(axis[1], axis[2], axis[5], axis[6]) for axis in (down, across)]
    tasks, queue = _rectangles(len(source), down[:5], across[:5], chunk), np.zeros(1, np.int64)

    def until_none_is_left(lane):
        _correlate_all(queue, tasks, source, target, panels, starts, addresses[lane], steps[lane], sums[lane], *maps,
                       across[3], relu, len(tile[0]), function)

    run([(lane,) for lane in range(min(threads(), len(tasks)))], until_none_is_left)


def panel_space(groups, columns, taps, depth, dtype):
    """What a correlation needs besides its arrays: the kernel and the bias in panels, and each thread's lists."""
    rows, vectors, lanes = tile_for(columns, np.dtype(dtype).itemsize)
    width, pixels = len(vectors) * len(lanes), len(rows) * (CHUNK_TILES[1] + 1)
    count = -(-columns // width)
    return [((groups, count, taps, depth, width), dtype), ((groups, count, width), dtype),
            ((threads(), 2, pixels), np.int64), ((threads(), 2, taps), np.int64), ((threads(), pixels, width), dtype)]


@kernel
def pack_forward(first, last, w, panels):
    """panels[g, panel, tap, d, :] = w[tap, d, columns of this panel], rows first..last of w (R*S*C/G, K)."""
    groups, count, _, D, width = panels.shape
    E = w.shape[1] // groups
    for row in range(first, last):
        t, d = row // D, row % D
        for g in range(groups):
            for panel in range(count):
                filled = min(width, E - panel * width)
                for k in range(filled):
                    panels[g, panel, t, d, index(k)] = w[row, index(g * E + panel * width + k)]
                for k in range(filled, width):
                    panels[g, panel, t, d, index(k)] = 0


@kernel
def pack_backward(first, last, w, panels, r_first, r_step, s_first, s_step, down, across):
    """panels[g, panel, tap, k, :] = w[r, s, input channels of this panel, k], the taps of one phase in reverse."""
    _, count, taps, E, width = panels.shape
    D = w.shape[2]
    for i in range(first, last):
        g, panel, t = i // (count * taps), i // taps % count, i % taps
        r, s = r_first + (down - 1 - t // across) * r_step, s_first + (across - 1 - t % across) * s_step
        filled = min(width, D - panel * width)
        for k0 in range(0, E, BLOCK):
            k1 = min(E, k0 + BLOCK)
            for d in range(filled):
                for k in range(k0, k1):
                    panels[g, panel, t, index(k), d] = w[r, s, panel * width + d, index(g * E + k)]
            for d in range(filled, width):
                for k in range(k0, k1):
                    panels[g, panel, t, index(k), d] = 0


@kernel
def pack_bias(starts, bias):
    """The bias in panels; what is beyond it is 0."""
    groups, count, width = starts.shape
    E = bias.size // groups
    for g in range(groups):
        for panel in range(count):
            for k in range(width):
                starts[g, panel, k] = bias[g * E + panel * width + k] if panel * width + k < E else 0
