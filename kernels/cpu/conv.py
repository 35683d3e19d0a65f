"""Convolution, without its im2col matrix X (N*P*Q, R*S*C/G; see kernels/reference/conv.py).

    forward            y = X w           correlate.py: a tile is 6 pixels x 64 output channels, summed over the taps and
                                         input channels; winograd.py for most 3 x 3 and 5 x 5 kernels
    backward, data     the same: dx is dy correlated with the flipped, transposed kernel. With a stride, the pixels of
                       dx fall into stride x stride phases, and each tap belongs to exactly one of them
    backward, weights  dw = X' dy        a tile is 6 input channels x 64 output channels of one tap, summed over pixels;
                                         winograd_weights.py where the forward pass runs by winograd.py

The direct weight gradient:
                         x: channels of a line          dy: the same pixels, packed,
                         . . [c0..c5] . .        x      96 of them stay in the      ->  6 x 64 sums in the registers,
                         . . [c0..c5] . .               L1 cache                        added to dw once per 96 pixels

Every thread goes over its pixels some lines at a time, packs these lines' dy into panels, and adds to the tiles. If dw
is small, the pixels are divided among the threads, each with a sum of its own, and these are added in a fixed order; if
it is large, the panels are divided. Pixels for which a tap falls on the padding are left out of the sum. A layer with
few input channels sums along a kernel row (conv1: 33 elements), or writes the im2col lines of its pixels first.

Where every channel has a kernel of its own there is no product of matrices: depthwise.py.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minicnn.kernels.cpu import depthwise, winograd, winograd_weights
from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.correlate import correlate, pack_backward, pack_bias, pack_forward, panel_space, spans
from minicnn.kernels.cpu.memory import arrays_in, bytes_of, rows
from minicnn.kernels.cpu.microkernel import outer_tiles
from minicnn.kernels.cpu.threads import parallel_for, run, split, threads
from minicnn.kernels.cpu.tile import call, tile_for

CHUNK_PIXELS = 96                # pixels of dy that are packed at a time for dw: some lines; a panel stays in L1
PRIVATE_BYTES = 512 << 10        # a dw up to this size is summed by each thread for itself
_NO_BIAS = np.empty(0, np.float32)


def conv_forward(x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
    """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
    (N, H, W, _), (_, P, Q, K), (R, S, D, _), (u, v), (top, left, _, _) = x.shape, y.shape, w.shape, stride, pads
    (bias, relu), E = epilogue, K // groups
    if depthwise.suits(D, K, groups):
        return depthwise.forward(x, w, y, stride=stride, pads=pads, epilogue=epilogue, work=work)
    fast = winograd.outputs_of_a_tile((R, S), stride, pads, D, E, N, P, Q, w.dtype)
    panels, *scratch = arrays_in(work, _correlation_space(fast, N, P, Q, groups, D, E, (R, S), w.dtype))
    parallel_for(R * S * D, K, pack_forward, rows(w, K), panels)
    if fast:
        return winograd.convolve(x, y, panels, *scratch, top, left, relu, bias)
    pack_bias(scratch[0], _NO_BIAS if bias is None else bias)
    correlate(x, y, panels, *scratch, (P, u, -top, R, H, 1, 0), (Q, v, -left, S, W, 1, 0), relu)


def conv_backward_data(dy, w, dx, *, stride, pads, groups=1, work=None):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
    (_, P, Q, K), (R, S, D, _), (N, H, W, _) = dy.shape, w.shape, dx.shape
    E, flipped = K // groups, [R - 1 - pad for pad in pads]
    if depthwise.suits(D, K, groups):
        return depthwise.backward_data(dy, w, dx, stride=stride, pads=pads, work=work)
    fast = winograd.outputs_of_a_tile((R, S), stride, flipped, E, D, N, H, W, w.dtype)
    for a, (r_first, r_taps, *down) in enumerate(_phases(stride[0], pads[0], R, H, P)):
        for b, (s_first, s_taps, *across) in enumerate(_phases(stride[1], pads[1], S, W, Q)):
            space = _correlation_space(fast, N, H, W, groups, E, D, (r_taps, s_taps), w.dtype)
            panels, *scratch = arrays_in(work, space)
            parallel_for(groups * panels.shape[1] * r_taps * s_taps, E * panels.shape[-1], pack_backward, w, panels,
                         r_first, stride[0], s_first, stride[1], r_taps, s_taps)
            if fast:                                                           # stride 1: a single phase
                return winograd.convolve(dy, dx, panels, *scratch, *flipped[:2], False)
            pack_bias(scratch[0], _NO_BIAS)
            correlate(dy, dx, panels, *scratch, (*down, stride[0], a), (*across, stride[1], b), False)


def _correlation_space(fast, N, P, Q, groups, depth, columns, taps, dtype):
    """The arrays of work space of a forward pass, or of a data gradient computed as one; the first is the kernel's."""
    if fast:
        return winograd.space(fast, taps[0], N, P, Q, groups, depth, columns, dtype)
    return panel_space(groups, columns, taps[0] * taps[1], depth, dtype)


def _phases(stride, pad, taps, size, outputs):
    """For each phase a of dx along one axis, its pixels a, a + stride, ...:

    (first tap, taps, number of pixels, step 1 in dy, shift in dy, taps, size of dy). Pixel a + i*stride is reached by
    the taps r = r_first, r_first + stride, ... from output i + (a + pad - r) / stride; read in reverse, outputs ascend.
    """
    phases = []
    for a in range(min(stride, size)):
        r_first = (a + pad) % stride
        count, pixels = len(range(r_first, taps, stride)), len(range(a, size, stride))
        phases.append((r_first, count, pixels, 1, (a + pad) // stride - (count - 1), count, outputs))
    return phases


def _weights_rows(length, tile):
    """The tile with as many rows as divide a run of `length` channels best."""
    rows, vectors, lanes = tile
    most, fewer = len(rows), len(rows) * 2 // 3
    wins = -(-length // fewer) * fewer < 0.95 * (-(-length // most) * most)
    return (0,) * (fewer if wins else most), vectors, lanes


@lru_cache(maxsize=1024)
def _weights_plan(N, P, Q, W, R, S, v, left, D, groups, E, dtype, workers):
    """How dw is computed: (tile, runs or None for im2col, lines at a time, arrays of work space).

    A run is (first output column, last, tap, length): for these columns, `length` elements of a kernel row, from
    this tap on, are contiguous in x and not padding. One tap is a run if its channels fill a tile, else a kernel row.
    """
    dtype = np.dtype(dtype)
    widest = tile_for(E, dtype.itemsize)
    taps = [(max(0, -((s - left) // v)), min(Q, (W - 1 + left - s) // v + 1), s, D) for s in range(S)]
    rows = [(j0, j1, s0, (s1 - s0) * D) for j0, j1, s0, s1 in spans(Q, v, -left, S, W)] if groups == 1 else []
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
    private = count * depth * width * dtype.itemsize <= PRIVATE_BYTES or count < workers
    parts = min(N * -(-P // lines), workers) if private else 1
    requests = [((parts, count, depth, width), dtype), ((workers, lines * Q, width), dtype),
                ((workers, 0 if runs else lines * Q, depth), dtype)]
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
def _weights_part(first, last, panel0, panel1, x, dy, total, packed, cells, lines, window, runs, groups, tiles):
    """total[panel] (taps*C/G, width) = X' dy for units first..last of `lines` output lines, panels panel0..panel1.

    window: (R, S, *stride, top, left).   runs: see _weights_plan.   tiles: address of microkernel.outer_tiles.
    """
    _, P, Q, K = dy.shape
    H, W, C, size = x.shape[1], x.shape[2], x.shape[3], x.itemsize
    R, S, u, v, top, left = window
    D, E, width, depth = C // groups, K // groups, total.shape[2], total.shape[1]
    count, units = total.shape[0] // groups, (P + lines - 1) // lines
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
                call(tiles, (cells.ctypes.data, 0, depth * size, b, 0, 1, (p1 - p0) * Q, sums, depth))
                continue
            for r in range(R):
                low, high = max(p0, -((r - top) // u)), min(p1, (H - 1 + top - r) // u + 1)
                for i in range(len(runs) if low < high else 0):
                    q0, q1, s, length = runs[i]
                    pixel = ((n * H + low * u + r - top) * W + q0 * v + s - left) * C + g * D
                    line = b + ((low - p0) * Q + q0) * width * size
                    call(tiles, (x.ctypes.data + pixel * size, u * W * C * size, v * C * size, line, Q * width * size,
                                 high - low, q1 - q0, sums + (r * S + s) * D * width * size, length))


@kernel
def _add_panels(first, last, dw, totals, groups, add):
    """dw (R*S*C/G, K) += the parts' totals (parts, panels, R*S*C/G or more, width), rows first..last; = without add."""
    parts, count, _, width = totals.shape
    E = dw.shape[1] // groups
    per_group = count // groups
    for row in range(first, last):
        if not add:
            for k in range(dw.shape[1]):
                dw[row, k] = 0
        for part in range(parts):
            for panel in range(count):
                g, k0 = panel // per_group, panel % per_group * width
                for k in range(min(width, E - k0)):
                    dw[row, index(g * E + k0 + k)] += totals[part, panel, row, index(k)]


def conv_backward_weights(x, dy, dw, *, stride, pads, groups=1, add=True, work=None):
    """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); without `add`, dw =, whatever it held."""
    (N, P, Q, K), (R, S, D, _) = dy.shape, dw.shape
    if depthwise.suits(D, K, groups):
        return depthwise.backward_weights(x, dy, dw, stride=stride, pads=pads, add=add, work=work)
    if fast := winograd.outputs_of_a_tile((R, S), stride, pads, D, K // groups, N, P, Q, dw.dtype):
        space = winograd_weights.space(fast, R, N, P, Q, groups, D, K // groups, dw.dtype)
        return winograd_weights.weights(x, dy, dw, *arrays_in(work, space), top=pads[0], left=pads[1], add=add)
    tile, runs, lines, requests = _weights_plan(N, P, Q, x.shape[2], R, S, stride[1], pads[1], D, groups, K // groups,
                                                x.dtype.str, threads())
    totals, packed, cells = arrays_in(work, requests)
    window, units = (R, S, *stride, *pads[:2]), N * -(-P // lines)
    parts, count = totals.shape[:2]
    tiles = outer_tiles(tile, x.dtype.str).address
    if parts > 1:
        tasks = [(part, *units_of, 0, count) for part, units_of in enumerate(split(units, parts))]
    else:
        tasks = [(0, 0, units, panel, panel + 1) for panel in range(count)]

    def part_of(lane, part, first, last, panel0, panel1):
        _weights_part(first, last, panel0, panel1, x, dy, totals[part], packed[lane], cells[lane], lines, window,
                      runs, groups, tiles)

    run(tasks, part_of, list(range(threads())))
    parallel_for(R * S * D, K * len(totals), _add_panels, rows(dw, K), totals, groups, add)


def conv_work(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """Bytes of work space for the largest of the three passes."""
    (N, H, W, _), (R, S, D, K), (u, v) = x_shape, w_shape, stride
    (P, Q), (fast, fast_data), E = *_choice(x_shape, w_shape, dtype, stride, pads, groups), K // groups
    if depthwise.suits(D, K, groups):
        return max(map(bytes_of, depthwise.spaces(x_shape, (N, P, Q, K), w_shape, stride, pads, dtype)))
    phase = -(-R // u), -(-S // v)                                             # taps of the largest phase
    passes = [_correlation_space(fast, N, P, Q, groups, D, E, (R, S), dtype),
              _correlation_space(fast_data, N, H, W, groups, E, D, phase, dtype),
              winograd_weights.space(fast, R, N, P, Q, groups, D, E, dtype) if fast else
              _weights_plan(N, P, Q, W, R, S, v, pads[1], D, groups, E, np.dtype(dtype).str, threads())[-1]]
    return max(map(bytes_of, passes))


def conv_algorithm(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """The name of the algorithm: that of the forward pass and dw, and that of dx where it differs."""
    if depthwise.suits(*w_shape[2:], groups):
        return "depthwise"
    names = ["Winograd" if fast else "direct"
             for fast in _choice(x_shape, w_shape, dtype, stride, pads, groups)[1]]
    return names[0] if names[0] == names[1] else f"{names[0]}, dx {names[1]}"


def _choice(x_shape, w_shape, dtype, stride, pads, groups):
    """Size of the output (P, Q), and whether Winograd's algorithm computes (y, dx)."""
    (N, H, W, _), (R, S, D, K), (top, left, bottom, right) = x_shape, w_shape, pads
    P, Q = (top + H + bottom - R) // stride[0] + 1, (left + W + right - S) // stride[1] + 1
    flipped, E = [R - 1 - pad for pad in pads], K // groups
    return (P, Q), (winograd.outputs_of_a_tile((R, S), stride, pads, D, E, N, P, Q, dtype),
                    winograd.outputs_of_a_tile((R, S), stride, flipped, E, D, N, H, W, dtype))
