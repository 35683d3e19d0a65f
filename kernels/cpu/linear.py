"""Fully connected layer: matrix products whose cost is reading the weights.

With 32 images the 9216 x 4096 weights of AlexNet's fc6 are 150 MB, read (or, as dw, written) once in each of the three
passes; each thread has parts of them that no other touches. A tile of sums in the registers (product.py) multiplies; x
and dy, which are small, are copied into the order in which it reads them.

    forward            a block of columns of w (4 KB of each row), 64 rows at a time, copied into panels as wide as the
                       tile: all images are multiplied with these 256 KB while they are in the L2 cache, a panel at a
                       time in L1. Read in place, the rows of a panel, 16 KB apart, would share a few sets of L1. The
                       block's sums stay in L2 until the last row of w:

                               1024 columns
                             +--------------+
                       64 -> |  |  |  |  |  |    x[:, 64] x 64 rows of w   is added to  sums (images, 1024)
                       rows  +--------------+
                             |              |    ... and at the end bias and ReLU on the way into y
                             :              :

    forward, one image or few: nothing is used twice, so w is read as it lies, 8 rows at a time, and their multiples are
                       added to a row of sums. Ranges of rows have sums of their own, added in a fixed order

    backward, data     32 rows of w, 128 columns at a time, times that part of dy'. The 32 x images sums go into dx
                       after the last column
    backward, weights  48 rows of dw: x' of these rows (a few KB) times 32 columns of dy at a time, straight into dw.
                       With `add`, dw is read as well
    SGD                the same 48 rows, 1024 columns at a time, in the L2 cache; from there they update w and v, and dw
                       is never in memory
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu import sgd
from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.memory import ALIGN, arrays_in, bytes_of, flat
from minicnn.kernels.cpu.product import product_tiles, product_width
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, blocks, parallel_for, run, split, threads
from minicnn.kernels.cpu.tile import call
from minicnn.kernels.cpu.vectors import fetch

COLUMNS = 1024                   # of w, forward: 4 KB of a row, which the hardware prefetches
DEPTH = 64                       # rows of w, forward: a panel of them is 8 KB of the L1 cache, all of them 256 KB of L2
AHEAD = 4                        # rows from the prefetch of w, forward, to its use: its parts of rows are too far apart
                                 # for the hardware to see one stream
FEW, RANGES = 4, 16              # up to so many images, w is read in so many ranges of rows
ROWS, RUN = 32, 128              # of w, backward: 32 rows share 128 x 32 elements of dy', 16 KB of the L1 cache
WEIGHT_ROWS = 48                 # of dw: their part of x fits the L1 cache beside 32 columns of dy
UPDATE_COLUMNS = 1024            # of dw, for SGD: 192 KB of the L2 cache, beside 4 KB of a row of w and of v


def _column_blocks(columns: int, width: int) -> list[tuple[int, int]]:
    """The blocks of columns of the forward pass: whole panels, and one for each thread if there are enough."""
    share = -(-columns // (threads() * width)) * width
    return blocks(columns, min(COLUMNS, share))


@kernel
def _pack(c0, c1, k0, k1, w, flat_w, panels):
    """panels[panel, c] = w[c0 + c, columns of the panel], zeros behind k1."""
    width, line = panels.shape[2], ALIGN // w.itemsize
    for c in range(c0, c1):
        for panel in range((k1 - k0 + width - 1) // width):
            start = k0 + panel * width
            filled = min(width, k1 - start)
            for k in range(0, width, line):
                fetch(flat_w, (c + AHEAD) * w.shape[1] + start + k)
            for k in range(filled):
                panels[panel, c - c0, k] = w[c, index(start + k)]
            for k in range(filled, width):
                panels[panel, c - c0, index(k)] = 0


@kernel
def _forward(k0, k1, x, w, flat_w, y, part, panels, sums, bias, relu, tiles):
    """Columns k0..k1 of y. part: (images, DEPTH) of x.   panels: (panels, more than DEPTH, width) of w.

    sums: (panels, images, width).
    """
    width, size, zero = sums.shape[2], w.itemsize, w.dtype.type(0)
    (N, depth), C, has_bias = part.shape, len(w), bias.size > 0
    count = (k1 - k0 + width - 1) // width
    for c0 in range(0, C, depth):
        c1 = min(C, c0 + depth)
        for n in range(N):
            for c in range(c1 - c0):
                part[n, c] = x[n, index(c0 + c)]
        _pack(c0, c1, k0, k1, w, flat_w, panels)
        for panel in range(count):
            call(tiles, (part.ctypes.data, depth * size, size, panels.ctypes.data + panel * panels.strides[0],
                         width * size, c1 - c0, sums.ctypes.data + panel * N * width * size, width * size, c0, N,
                         width))
    for n in range(N):
        for panel in range(count):
            start = k0 + panel * width
            for k in range(min(width, k1 - start)):
                value = sums[panel, n, index(k)]
                if has_bias:
                    value += bias[index(start + k)]
                if relu and value < zero:                                      # NaN stays NaN
                    value = zero
                y[n, index(start + k)] = value


@kernel
def _few(first, last, x, w, sums):
    """sums (images, K) = x[:, first..last] times these rows of w."""
    N, K = sums.shape
    whole = first + (last - first) // 8 * 8
    for n in range(N):
        for k in range(K):
            sums[n, k] = 0
    for c in range(first, whole, 8):
        for n in range(N):
            x0, x1, x2, x3 = x[n, c], x[n, c + 1], x[n, c + 2], x[n, c + 3]
            x4, x5, x6, x7 = x[n, c + 4], x[n, c + 5], x[n, c + 6], x[n, c + 7]
            for k in range(K):
                sums[n, k] += x0 * w[c, k] + x1 * w[c + 1, k] + x2 * w[c + 2, k] + x3 * w[c + 3, k] \
                    + x4 * w[c + 4, k] + x5 * w[c + 5, k] + x6 * w[c + 6, k] + x7 * w[c + 7, k]
    for c in range(whole, last):
        for n in range(N):
            for k in range(K):
                sums[n, k] += x[n, c] * w[c, k]


@kernel
def _add_few(sums, y, bias, relu):
    """y = the ranges' sums (ranges, images, K), in their order, with bias and ReLU."""
    zero = y.dtype.type(0)
    for n in range(len(y)):
        for k in range(y.shape[1]):
            value = sums[0, n, k]
            for part in range(1, len(sums)):
                value += sums[part, n, k]
            if bias.size > 0:
                value += bias[k]
            y[n, k] = zero if relu and value < zero else value                 # NaN stays NaN


def linear_forward(x, w, y, *, epilogue=(None, False), work=None):
    """y (N, out) from x (N, in) and w (in, out); epilogue = (bias (out,) or None, apply ReLU)."""
    (bias, relu), tiles = epilogue, product_tiles(x.dtype)
    bias = flat(y)[:0] if bias is None else bias
    scratch = arrays_in(work, _forward_arrays(x.shape, w.shape, x.dtype))
    if len(x) <= FEW:
        (sums,) = scratch
        run([(*rows, x, w, part) for rows, part in zip(_ranges(len(w)), sums, strict=True)], _few)
        return _add_few(sums, y, bias, relu)

    def columns(lane, k0, k1):
        _forward(k0, k1, x, w, flat(w), y, *lane, bias, relu, tiles)

    run(_column_blocks(w.shape[1], scratch[2].shape[3]), columns, list(zip(*scratch, strict=True)))


def _ranges(rows: int) -> list[tuple[int, int]]:
    """The ranges of rows of w in `_few`, as many as there would be with any number of threads."""
    return [(8 * first, min(8 * last, rows)) for first, last in split(-(-rows // 8), RANGES)]


@kernel
def _panels_of(first, last, dy, panels):
    """panels[panel, k] = dy[images of the panel, k], then zeros; k from first to last."""
    count, _, width = panels.shape
    for panel in range(count):
        filled = min(width, len(dy) - panel * width)
        for k in range(first, last):
            for n in range(filled):
                panels[panel, k, n] = dy[panel * width + n, k]
            for n in range(filled, width):
                panels[panel, k, n] = 0


@kernel
def _backward_data(first, last, panels, w, dx, sums, tiles):
    """Columns first..last of dx. sums: (panels of images, ROWS, width)."""
    N, K, size, (count, _, width) = len(dx), w.shape[1], w.itemsize, panels.shape
    for c0 in range(first, last, ROWS):
        height = min(ROWS, last - c0)
        for k0 in range(0, K, RUN):
            for panel in range(count):
                call(tiles, (w.ctypes.data + (c0 * K + k0) * size, K * size, size,
                             panels.ctypes.data + (panel * K + k0) * width * size, width * size, min(RUN, K - k0),
                             sums.ctypes.data + panel * ROWS * width * size, width * size, k0, height, width))
        for n in range(N):
            for c in range(height):
                dx[n, c0 + c] = sums[n // width, c, n % width]


def linear_backward_data(dy, w, dx, *, work=None):
    """dx (N, in), overwritten, from dy (N, out) and w (in, out)."""
    tiles = product_tiles(dy.dtype)
    panels, sums = arrays_in(work, _data_arrays(dx.shape, w.shape, dy.dtype))
    parallel_for(dy.shape[1], len(dy), _panels_of, dy, panels)

    def rows(lane, first, last):
        _backward_data(first, last, panels, w, dx, lane, tiles)

    groups = split(-(-len(w) // ROWS), threads() * RANGES_PER_THREAD)
    run([(first * ROWS, min(last * ROWS, len(w))) for first, last in groups], rows, list(sums))


@kernel
def _columns_of(first, last, dy, panels):
    """panels[panel, n] = dy[n, columns of the panel], panels first..last."""
    _, N, width = panels.shape
    for panel in range(first, last):
        for n in range(N):
            for k in range(min(width, dy.shape[1] - panel * width)):
                panels[panel, n, k] = dy[n, index(panel * width + k)]


@kernel
def _backward_weights(first, last, x, panels, dw, part, add, tiles):
    """Rows first..last of dw. part (images, WEIGHT_ROWS): their columns of x."""
    K, size, (count, N, width) = dw.shape[1], dw.itemsize, panels.shape
    for c0 in range(first, last, WEIGHT_ROWS):
        height = min(WEIGHT_ROWS, last - c0)
        for n in range(N):
            for c in range(height):
                part[n, c] = x[n, index(c0 + c)]
        for panel in range(count):
            call(tiles, (part.ctypes.data, size, WEIGHT_ROWS * size, panels.ctypes.data + panel * N * width * size,
                         width * size, N, dw.ctypes.data + (c0 * K + panel * width) * size, K * size, add, height,
                         K - panel * width))


def linear_backward_weights(x, dy, dw, *, add=True, work=None):
    """dw (in, out) += from x (N, in) and dy (N, out); without `add`, dw = that, whatever it held."""
    tiles = product_tiles(dw.dtype)
    panels, parts = arrays_in(work, _weights_arrays(x.shape, dw.shape, dw.dtype))
    parallel_for(len(panels), panels[0].size, _columns_of, dy, panels)

    def rows(lane, first, last):
        _backward_weights(first, last, x, panels, dw, lane, add, tiles)

    _over_rows(dw, rows, list(parts))


@kernel
def _update(first, last, x, panels, w, v, part, sums, tiles, momentum, shrink, lr):
    """Rows first..last of w and v. part: as above.   sums (WEIGHT_ROWS, columns): their gradient."""
    K, size, (count, N, width) = w.shape[1], w.itemsize, panels.shape
    together = sums.shape[1] // width
    for c0 in range(first, last, WEIGHT_ROWS):
        height = min(WEIGHT_ROWS, last - c0)
        for n in range(N):
            for c in range(height):
                part[n, c] = x[n, index(c0 + c)]
        for start in range(0, count, together):
            k0 = start * width
            for panel in range(start, min(count, start + together)):
                call(tiles, (part.ctypes.data, size, WEIGHT_ROWS * size, panels.ctypes.data + panel * N * width * size,
                             width * size, N, sums.ctypes.data + (panel * width - k0) * size, sums.shape[1] * size,
                             False, height, K - panel * width))
            columns = min(sums.shape[1], K - k0)
            for c in range(height):
                sgd.paper_step(0, columns, w[c0 + c, k0:], sums[c], v[c0 + c, k0:], momentum, shrink, lr)


def linear_sgd_step(x, dy, w, v, *, lr, momentum, decay, work=None):
    """One step of SGD on w (in, out) and v by the gradient x' dy, which is not written."""
    tiles, scalar = product_tiles(w.dtype), w.dtype.type
    panels, parts, sums = arrays_in(work, _update_arrays(x.shape, w.shape, w.dtype))
    parallel_for(len(panels), panels[0].size, _columns_of, dy, panels)

    def rows(lane, first, last):
        _update(first, last, x, panels, w, v, *lane, tiles, scalar(momentum), scalar(decay * lr), scalar(lr))

    _over_rows(w, rows, list(zip(parts, sums, strict=True)))


def _over_rows(w, rows, lanes: list) -> None:
    """rows(lane, first, last) for all rows of w, in whole groups of WEIGHT_ROWS."""
    groups = split(-(-len(w) // WEIGHT_ROWS), threads() * RANGES_PER_THREAD)
    run([(first * WEIGHT_ROWS, min(last * WEIGHT_ROWS, len(w))) for first, last in groups], rows, lanes)


def _forward_arrays(x_shape, w_shape, dtype):
    width = product_width(np.dtype(dtype).itemsize)
    N, (C, K) = x_shape[0], w_shape
    if N <= FEW:
        return [((len(_ranges(C)), N, K), dtype)]
    panels = max(-(-(k1 - k0) // width) for k0, k1 in _column_blocks(K, width))
    return [((threads(), N, DEPTH), dtype), ((threads(), panels, DEPTH + 1, width), dtype),
            ((threads(), panels, N, width), dtype)]


def _data_arrays(x_shape, w_shape, dtype):
    width = product_width(np.dtype(dtype).itemsize)
    panels = -(-x_shape[0] // width)
    return [((panels, w_shape[1], width), dtype), ((threads(), panels, ROWS, width), dtype)]


def _weights_arrays(x_shape, w_shape, dtype):
    width = product_width(np.dtype(dtype).itemsize)
    return [((-(-w_shape[1] // width), x_shape[0], width), dtype), ((threads(), x_shape[0], WEIGHT_ROWS), dtype)]


def _update_arrays(x_shape, w_shape, dtype):
    width = product_width(np.dtype(dtype).itemsize)
    columns = min(UPDATE_COLUMNS, -(-w_shape[1] // width) * width)
    return [*_weights_arrays(x_shape, w_shape, dtype), ((threads(), WEIGHT_ROWS, columns), dtype)]


def linear_work(x_shape, w_shape, dtype):
    """Bytes of work space for the largest of the passes, with these or fewer images."""
    few = min(x_shape[0], FEW), x_shape[1]
    passes = [arrays(x_shape, w_shape, dtype) for arrays in (_forward_arrays, _data_arrays, _update_arrays)]
    return max(map(bytes_of, [_forward_arrays(few, w_shape, dtype), *passes]))
