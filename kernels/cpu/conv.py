"""Convolution as a matrix product whose im2col matrix X (N*P*Q, R*S*C/G; see kernels/reference/conv.py) is never
written: the innermost loops (microkernel.py) read each number of X where it stands in x.

    forward            y = X w           a tile is 12 pixels x 32 output channels, summed over taps and input channels
    backward, data     the same loop: dx is dy correlated with the flipped, transposed kernel. With a stride, the
                       pixels of dx fall into stride x stride phases, and each tap belongs to exactly one of them
    backward, weights  dw = X' dy        a tile is 12 input channels x 32 output channels of one tap, summed over pixels

What is kept where (forward; 32 = the width of a panel, some vectors of output channels):

              panel of w, packed: stays in the       x: a chunk of some hundred pixels and their
              second-level cache for a chunk         neighbours stays in the second-level cache
                +--------+                             . . . . . . .
      taps x    | 32 out |                             . [pixel 0] .      12 pixels at a time,
      channels  |        |     x                       . [pixel 1] .      each with its taps
                |        |                             . . . . . . .
                +--------+
                    |  +-----------------+
                    +->| 12 x 32 sums in |  -> bias and ReLU on the way out -> y, written once
                       | the registers   |
                       +-----------------+

Taps that fall on the padding are not multiplied: the output is cut into rectangles whose pixels see the same taps
(the middle, and strips along the border), so that a tile needs no zeros. For AlexNet's 13 x 13 maps this saves a tenth
of the work. Where all channels are read (one group), a kernel row is one run of numbers in x, a single long tap.

dw: every thread goes over its pixels some lines at a time, packs these lines' dy into panels, and adds to the tiles.
If dw is small, threads share out the pixels and have a sum of their own each, which are added in their order; if it is
large, they share out the panels. A layer with few input channels (conv1: 3) writes the im2col lines of its chunk first.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minicnn.kernels.cpu.gemm import arrays_in, bytes_of, index, kernel, rows
from minicnn.kernels.cpu.microkernel import correlate_tile, outer_tile, tile_for
from minicnn.kernels.cpu.threads import blocks, parallel_for, run, split, threads

CHUNK_TILES = 64                 # tiles of pixels that meet a panel of w before the next panel is read
L1_STEPS = 112                   # rows of a panel that stay in the first-level cache, 28 KB, for all tiles of a chunk
CHUNK_PIXELS = 96                # pixels of dy that are packed at a time for dw: some lines; their panel stays in L1
PRIVATE_BYTES = 512 << 10        # a dw up to this size is summed by each thread for itself


# ---- forward, and the data gradient
@lru_cache(maxsize=4096)
def _spans(count, step, shift, taps, size):
    """range(count) as (first, last, tap0, tap1): output i sees the input at i*step + shift + tap, inside 0..size."""
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
    """Tasks (first, last, row span, column span): up to `chunk` pixels of the N images' pixels in one rectangle."""
    tasks = []
    for i0, i1, r0, r1 in _spans(*rows):
        for j0, j1, s0, s1 in _spans(*columns):
            tasks += [(first, last, (i0, i1, r0, r1), (j0, j1, s0, s1))
                      for first, last in blocks(N * (i1 - i0) * (j1 - j0), chunk)]
    return sorted(tasks, key=lambda task: task[0] - task[1])                   # large ones first: the cores end together


@kernel
def _correlate_chunk(first, last, down, across, source, target, panels, starts, addresses, steps, sums, down_map,
                     across_map, taps_across, relu, rows, vectors, lanes):
    """Pixels first..last of one rectangle of the target (N, H', W', K), from the source (N, H, W, C).

    panels (G, panels of a group, taps, C/G, width): the kernel.   starts (G, panels of a group, width): the bias.
    down, across: the rectangle's span of lines and columns.   down_map, across_map: (step, shift) in the source and
    (step, first) in the target.   addresses (2, pixels of a chunk), steps (2, taps), sums (pixels, width): scratch.
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
    for m in range(last - first, last - first + len(rows)):                    # the last tile may have empty rows
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
    floor = source.dtype.type(0 if relu else -np.inf)
    a, y, a_steps, b_steps = addresses[0].ctypes.data, addresses[1].ctypes.data, steps[0].ctypes.data, steps[1].ctypes.data
    kept = sums.ctypes.data
    # L1_STEPS rows of a panel at a time stay in the first-level cache while all tiles of the chunk meet them
    taps_at_once, pieces = max(1, L1_STEPS // max(1, length)), max(1, (length + L1_STEPS - 1) // L1_STEPS)
    part = max(1, (length + pieces - 1) // pieces)
    for g in range(groups):
        for panel in range(count):
            b = panels.ctypes.data + (g * count + panel) * panels.strides[1]
            start = starts.ctypes.data + (g * count + panel) * width * size
            for t in range(0, max(1, taps), taps_at_once):
                for i in range(0, max(1, length), part):
                    for m in range(0, last - first, len(rows)):
                        correlate_tile(rows, vectors, lanes, floor, a + m * 8, (g * D + i) * size, a_steps + t * 8,
                                       b + i * width * size, b_steps + t * 8, min(taps_at_once, taps - t),
                                       min(part, length - i), start, kept + m * width * size, t == 0 and i == 0,
                                       t + taps_at_once >= taps and i + part >= length, y + m * 8,
                                       (g * E + panel * width) * size, last - first - m, E - panel * width)


def _correlate(source, target, panels, starts, addresses, steps, sums, down, across, relu, tile):
    """The target, or every (step)th pixel of it, from the source; see _correlate_chunk.

    down, across: (number of outputs, step, shift, taps, size of the source, step in the target, first in the target).
    """
    tiles = -(-len(source) * down[0] * across[0] // len(tile[0]))
    chunk = len(tile[0]) * min(CHUNK_TILES, -(-tiles // (2 * threads())))
    tasks = _rectangles(len(source), down[:5], across[:5], chunk)
    maps = [(axis[1], axis[2], axis[5], axis[6]) for axis in (down, across)]

    def chunk_of(lane, first, last, rows_span, columns_span):
        _correlate_chunk(first, last, rows_span, columns_span, source, target, panels, starts, addresses[lane],
                         steps[lane], sums[lane], *maps, across[3], relu, *tile)

    run(tasks, chunk_of, list(range(threads())))


def _panels(groups, columns, taps, depth, dtype, tile):
    """What a correlation needs besides its arrays: the kernel and the bias in panels, and each thread's lists."""
    width = len(tile[1]) * len(tile[2])
    count = -(-columns // width)
    pixels = len(tile[0]) * (CHUNK_TILES + 1)
    return [((groups, count, taps, depth, width), dtype), ((groups, count, width), dtype),
            ((threads(), 2, pixels), np.int64), ((threads(), 2, taps), np.int64), ((threads(), pixels, width), dtype)]


@kernel
def _pack_forward(first, last, w, panels):
    """panels[g, panel, tap, d, :] = w[tap, d, columns of this panel], rows first..last of w (R*S*C/G, K)."""
    groups, count, taps, D, width = panels.shape
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
def _pack_backward(first, last, w, panels, r_first, r_step, s_first, s_step, down, across):
    """panels[g, panel, tap, k, :] = w[r, s, input channels of this panel, k], the taps of one phase in reverse."""
    groups, count, taps, E, width = panels.shape
    D = w.shape[2]
    for i in range(first, last):
        g, panel, t = i // (count * taps), i // taps % count, i % taps
        r, s = r_first + (down - 1 - t // across) * r_step, s_first + (across - 1 - t % across) * s_step
        filled = min(width, D - panel * width)
        for k in range(E):
            for d in range(filled):
                panels[g, panel, t, k, index(d)] = w[r, s, index(panel * width + d), g * E + k]
            for d in range(filled, width):
                panels[g, panel, t, k, index(d)] = 0


@kernel
def _pack_bias(starts, bias):
    """The bias in panels; what is beyond it is 0."""
    groups, count, width = starts.shape
    E = bias.size // groups
    for g in range(groups):
        for panel in range(count):
            for k in range(width):
                starts[g, panel, k] = bias[g * E + panel * width + k] if panel * width + k < E else 0


def conv_forward(x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
    """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
    (_, H, W, _), (_, P, Q, K), (R, S, D, _), (u, v), (top, left, _, _) = x.shape, y.shape, w.shape, stride, pads
    bias, relu = epilogue
    tile = tile_for(K // groups, x.itemsize)
    panels, starts, *lists = arrays_in(work, _panels(groups, K // groups, R * S, D, x.dtype, tile))
    parallel_for(R * S * D, K, _pack_forward, rows(w, K), panels)
    if bias is None:
        starts.fill(0)
    else:
        _pack_bias(starts, bias)
    _correlate(x, y, panels, starts, *lists, (P, u, -top, R, H, 1, 0), (Q, v, -left, S, W, 1, 0), relu, tile)


def conv_backward_data(dy, w, dx, *, stride, pads, groups=1, work=None):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
    (_, P, Q, K), (R, S, D, _), (top, left, _, _) = dy.shape, w.shape, pads
    tile = tile_for(D, dy.itemsize)
    for a, (r_first, r_taps, *down) in enumerate(_phases(stride[0], top, R, dx.shape[1], P)):
        for b, (s_first, s_taps, *across) in enumerate(_phases(stride[1], left, S, dx.shape[2], Q)):
            panels, starts, *lists = arrays_in(work, _panels(groups, D, r_taps * s_taps, K // groups, dy.dtype, tile))
            starts.fill(0)
            parallel_for(groups * panels.shape[1] * r_taps * s_taps, panels[0, 0, 0].size if panels.size else 1, _pack_backward, w, panels,
                         r_first, stride[0], s_first, stride[1], r_taps, s_taps)
            _correlate(dy, dx, panels, starts, *lists, (*down, stride[0], a), (*across, stride[1], b), False, tile)


def _phases(stride, pad, taps, size, outputs):
    """For each phase a of dx along one axis, its pixels a, a + stride, ...:

    (first tap, taps, number of pixels, step 1 in dy, shift in dy, taps, size of dy). Pixel a + i*stride is reached by
    the taps r = r_first, r_first + stride, ... from output i + (a + pad - r) / stride; read in reverse, outputs ascend.
    """
    phases = []
    for a in range(min(stride, size)):
        r_first = (a + pad) % stride
        count = len(range(r_first, taps, stride))
        phases.append((r_first, count, len(range(a, size, stride)), 1, (a + pad) // stride - (count - 1), count, outputs))
    return phases


# ---- the weight gradient
def _weights_rows(length, tile):
    """The tile with as many rows as divide a run of `length` channels best."""
    rows, vectors, lanes = tile
    most, fewer = len(rows), len(rows) * 2 // 3
    return ((0,) * (fewer if -(-length // fewer) * fewer < 0.95 * (-(-length // most) * most) else most), vectors, lanes)


@lru_cache(maxsize=1024)
def _weights_plan(N, P, Q, W, R, S, v, left, D, groups, E, dtype):
    """How dw is computed: (tile, runs or None for im2col, lines at a time, arrays of work space).

    A run is (first output column, last, tap, length): for these columns `length` numbers of a kernel row, from this tap
    on, are contiguous in x and not padding. One tap is a run if its channels fill a tile, else a whole kernel row.
    """
    dtype = np.dtype(dtype)
    widest = tile_for(E, dtype.itemsize)
    taps = [(max(0, -((s - left) // v)), min(Q, (W - 1 + left - s) // v + 1), s, D) for s in range(S)]
    rows = [(j0, j1, s0, (s1 - s0) * D) for j0, j1, s0, s1 in _spans(Q, v, -left, S, W)] if groups == 1 else []
    for runs in (taps, rows):
        runs = [run for run in runs if run[0] < run[1] and run[3] > 0]
        tile = _weights_rows(max((run[3] for run in runs), default=0), widest)
        if runs and min(run[3] for run in runs) >= len(tile[0]):
            depth = R * S * D
            break
    else:
        runs, tile = None, _weights_rows(R * S * D, widest)
        depth = -(-R * S * D // len(tile[0])) * len(tile[0])
    width = len(tile[1]) * len(tile[2])
    count, lines = groups * -(-E // width), min(P, max(1, CHUNK_PIXELS // Q))
    private = count * depth * width * dtype.itemsize <= PRIVATE_BYTES or count < threads()
    parts = min(N * -(-P // lines), threads()) if private else 1
    requests = [((parts, count, depth, width), dtype), ((threads(), lines * Q, width), dtype),
                ((threads(), 0 if runs else lines * Q, depth), dtype)]
    return tile, np.array(runs or np.empty((0, 4)), np.int64), lines, requests


@kernel
def _im2col(cells, x, n, p0, p1, Q, R, S, u, v, top, left, c0, D):
    """cells[i] = the window of output pixel (n, p0 + i // Q, i % Q): R*S taps of D channels from c0 on, then zeros."""
    H, W = x.shape[1], x.shape[2]
    for i in range((p1 - p0) * Q):
        p, q = p0 + i // Q, i % Q
        for r in range(R):
            h = p * u + r - top
            for s in range(S):
                w, to = q * v + s - left, (r * S + s) * D
                if h < 0 or h >= H or w < 0 or w >= W:
                    for d in range(D):
                        cells[i, index(to + d)] = 0
                else:
                    for d in range(D):
                        cells[i, index(to + d)] = x[n, h, w, index(c0 + d)]
        for d in range(R * S * D, cells.shape[1]):
            cells[i, index(d)] = 0


@kernel
def _weights_part(first, last, panel0, panel1, x, dy, total, packed, cells, lines, window, runs, groups, rows, vectors,
                  lanes):
    """total[panel] (taps*C/G, width) = X' dy for units first..last of `lines` output lines each, panels panel0..panel1.

    window: (R, S, *stride, top, left).   runs: (first output, last, tap, numbers): where x is contiguous, _weights_runs.
    """
    N, P, Q, K = dy.shape
    H, W, C, size = x.shape[1], x.shape[2], x.shape[3], x.itemsize
    R, S, u, v, top, left = window
    D, E, width, depth = C // groups, K // groups, total.shape[2], total.shape[1]
    count, units = total.shape[0] // groups, (P + lines - 1) // lines
    number, tile_rows = x.dtype.type(0), len(rows)
    for panel in range(panel0, panel1):
        for i in range(depth):
            for k in range(width):
                total[panel, i, k] = 0
    for unit in range(first, last):
        n, p0 = unit // units, unit % units * lines
        p1 = min(P, p0 + lines)
        for panel in range(panel0, panel1):
            g, k0 = panel // count, panel % count * width
            filled = min(width, E - k0)
            for i in range((p1 - p0) * Q):
                for k in range(filled):
                    packed[i, index(k)] = dy[n, p0 + i // Q, i % Q, index(g * E + k0 + k)]
                for k in range(filled, width):
                    packed[i, index(k)] = 0
            sums, b = total.ctypes.data + panel * depth * width * size, packed.ctypes.data
            if cells.size > 0:
                if panel == panel0 or k0 == 0:
                    _im2col(cells, x, n, p0, p1, Q, R, S, u, v, top, left, g * D, D)
                for d in range(0, depth, tile_rows):
                    outer_tile(rows, vectors, lanes, number, cells.ctypes.data + d * size, 0, depth * size, b, 0, 1,
                               (p1 - p0) * Q, sums + d * width * size, 0)
                continue
            for r in range(R):
                low, high = max(p0, -((r - top) // u)), min(p1, (H - 1 + top - r) // u + 1)
                for i in range(len(runs) if low < high else 0):
                    q0, q1, s, length = runs[i]
                    pixel = ((n * H + low * u + r - top) * W + q0 * v + s - left) * C + g * D
                    line = b + ((low - p0) * Q + q0) * width * size
                    for d in range(0, length, tile_rows):
                        d0 = min(d, length - tile_rows)                        # the last tile may overlap the one before
                        outer_tile(rows, vectors, lanes, number, x.ctypes.data + (pixel + d0) * size, u * W * C * size,
                                   v * C * size, line, Q * width * size, high - low, q1 - q0,
                                   sums + ((r * S + s) * D + d0) * width * size, d - d0)


@kernel
def _add_panels(first, last, dw, totals, groups):
    """dw (R*S*C/G, K) += the parts' totals (parts, panels, R*S*C/G or more, width), rows first..last."""
    parts, count, _, width = totals.shape
    E = dw.shape[1] // groups
    per_group = count // groups
    for row in range(first, last):
        for part in range(parts):
            for panel in range(count):
                g, k0 = panel // per_group, panel % per_group * width
                for k in range(min(width, E - k0)):
                    dw[row, index(g * E + k0 + k)] += totals[part, panel, row, index(k)]


def conv_backward_weights(x, dy, dw, *, stride, pads, groups=1, work=None):
    """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K)."""
    (N, P, Q, K), (R, S, D, _) = dy.shape, dw.shape
    tile, runs, lines, requests = _weights_plan(N, P, Q, x.shape[2], R, S, stride[1], pads[1], D, groups, K // groups,
                                                x.dtype.str)
    totals, packed, cells = arrays_in(work, requests)
    window, units = (R, S, *stride, *pads[:2]), N * -(-P // lines)
    parts, count = totals.shape[:2]
    if parts > 1:
        tasks = [(part, *units_of, 0, count) for part, units_of in enumerate(split(units, parts))]
    else:
        tasks = [(0, 0, units, panel, panel + 1) for panel in range(count)]

    def part_of(lane, part, first, last, panel0, panel1):
        _weights_part(first, last, panel0, panel1, x, dy, totals[part], packed[lane], cells[lane], lines, window,
                      runs, groups, *tile)

    run(tasks, part_of, list(range(threads())))
    parallel_for(R * S * D, K * len(totals), _add_panels, rows(dw, K), totals, groups)


def conv_work(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """Bytes of work space for the largest of the three passes."""
    (N, H, W, C), (R, S, D, K), (u, v), (top, left, bottom, right) = x_shape, w_shape, stride, pads
    P, Q = (top + H + bottom - R) // u + 1, (left + W + right - S) // v + 1
    itemsize, E = np.dtype(dtype).itemsize, K // groups
    phase = -(-R // u) * -(-S // v)                                            # taps of the largest phase
    passes = [_panels(groups, E, R * S, D, dtype, tile_for(E, itemsize)),
              _panels(groups, D, phase, E, dtype, tile_for(D, itemsize)),
              _weights_plan(N, P, Q, W, R, S, v, left, D, groups, E, np.dtype(dtype).str)[-1]]
    return max(map(bytes_of, passes))
