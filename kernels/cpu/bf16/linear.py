"""Fully connected layer with products of bf16; the float32 weights are rounded block by block, on their way.

Reading the weights is the cost that remains, so w is read once in each pass and never copied as a whole.

    forward            a block of w, DEPTH rows x COLUMNS columns, is rounded into pairs of rows, for all images,
                       while it is in the L2 cache; the sums of its columns stay there until the last row of w:

                                 1024 columns
                              +-------------+
                       128 -> |  rounded    |   x[:, c0:c0+128] (rows of bf16)  x  this, added to sums (images, 1024)
                       rows   +-------------+
                              |             |   ... and at the end bias and ReLU on the way into y

    backward, data     32 rows of w are rounded, 512 columns at a time: rows of a. b is dy' in pairs, one panel for
                       each 32 images. The 32 x images sums are transposed into dx after the last column
    backward, weights  32 rows of dw: x' of these rows x dy in pairs of images, 1024 columns at a time, in the L2 cache;
                       from there they are written or added to dw
    SGD                the same, but from there they update w and v, and dw is never in memory
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu import linear as float32
from minicnn.kernels.cpu import sgd
from minicnn.kernels.cpu.bf16.block import (
    HALF_BYTES,
    SIDE,
    STEP,
    STEP_BYTES,
    apart,
    begin_blocks,
    chosen,
    end_blocks,
)
from minicnn.kernels.cpu.bf16.rounding import (
    fetch_line,
    finish_rows,
    pair_rows,
    round_run,
    take_run,
    transpose_rows,
    transpose_sums,
    transpose_words,
    zero_run,
)
from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.memory import arrays_in, bytes_of
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, blocks, parallel_for, run, split, threads
from minicnn.kernels.cpu.tile import call
from minicnn.kernels.cpu.vectors import LANES

COLUMNS, DEPTH = 1024, 128       # of w, forward: 256 KB of pairs
FETCH = 4                        # rows of w between the prefetch of a row and its use, forward
RUN = 512                        # columns of w, backward: 32 KB of rows of a
AHEAD = 1                        # row of w and v that is prefetched while one is updated
UPDATE_COLUMNS = 1024            # of dw: 128 KB of sums

_NO_BIAS = np.empty(0, np.float32)


def up(count: int, multiple: int) -> int:
    """count, rounded up."""
    return -(-count // multiple) * multiple


def row_of(columns: int) -> int:
    """Elements of a row of bf16 for `columns`: whole steps, an odd number of cache lines, so that rows of a block lie
    in different sets of the cache."""
    lines = -(-columns // STEP)
    return (lines + (lines % 2 == 0)) * STEP


@kernel
def _round_rows(first, last, x, copy):
    """copy (rows, columns) of x, zeros beyond it."""
    N, C = x.shape
    for n in range(first, last):
        to = copy.ctypes.data + n * copy.shape[1] * 2
        filled = C if n < N else 0
        take_run(x, x.ctypes.data + n * C * x.itemsize, to, filled)
        zero_run(to + filled * 2, copy.shape[1] - filled)


@kernel
def _forward(k0, k1, addresses, copy, w, y, sums, panels, rows, places, steps, bias, relu):
    """Columns k0..k1 of y. panels (COLUMNS / 32, DEPTH / 32, ...); sums (COLUMNS / 32, images in 32s, 32)."""
    (C, K), N, deep = w.shape, len(y), panels.shape[1]
    count, tiles, row = (k1 - k0 + SIDE - 1) // SIDE, len(copy) // SIDE, copy.shape[1] * 2
    sums_of, panels_of, listed = sums.ctypes.data, panels.ctypes.data, rows.ctypes.data
    begin_blocks(addresses)
    for c0 in range(0, C, deep * STEP):
        now = (min(deep * STEP, C - c0) + STEP - 1) // STEP
        for pair in range(now * 16):
            c = c0 + 2 * pair
            source, to = w.ctypes.data + (c * K + k0) * 4, panels_of + pair // 16 * STEP_BYTES + pair % 16 * 64
            for k in range(0, count * SIDE, LANES):
                filled = max(0, min(LANES, k1 - k0 - k))
                fetch_line(source + (k + FETCH * K) * 4)
                fetch_line(source + (k + (FETCH + 1) * K) * 4)
                pair_rows(w, source + k * 4, source + (k + K) * 4,
                          to + k // SIDE * deep * STEP_BYTES + k % SIDE // LANES * HALF_BYTES,
                          filled if c < C else 0, filled if c + 1 < C else 0)
        for panel in range(count):
            b = panels_of + panel * deep * STEP_BYTES
            for t in range(tiles):
                call(addresses[0], (copy.ctypes.data + t * SIDE * row + c0 * 2, row, places.ctypes.data,
                                    steps.ctypes.data, now, b,
                                    STEP_BYTES, HALF_BYTES, sums_of + (panel * tiles + t) * SIDE * SIDE * 4, SIDE * 4,
                                    c0 == 0, N - t * SIDE if N - t * SIDE < SIDE else SIDE, k1 - k0 - panel * SIDE,
                                    b + deep * STEP_BYTES))
    end_blocks(addresses)
    for n in range(len(copy)):
        rows[n] = y.ctypes.data + (n * K + k0) * y.itemsize if n < N else 0
    for panel in range(count):
        for t in range(tiles):
            finish_rows(y, sums_of + (panel * tiles + t) * SIDE * SIDE * 4, SIDE * 4, listed + t * SIDE * 8, SIDE,
                        panel * SIDE * y.itemsize, bias.ctypes.data + (k0 + panel * SIDE) * 4,
                        k1 - k0 - panel * SIDE, relu)


def _steps(count: int) -> np.ndarray:
    """Whole steps, one behind the other."""
    return np.stack([np.arange(count) * STEP * 2, np.full(count, STEP // 2)], 1).astype(np.int64)


WHOLE = _steps(max(DEPTH, RUN) // STEP)


def _share(columns: int) -> int:
    """Columns of a task of the forward pass: there is one for each thread if there are enough."""
    return min(COLUMNS, up(-(-columns // threads()), SIDE))


def linear_forward(x, w, y, *, epilogue=(None, False), work=None):
    """y (N, out) from x (N, in) and w (in, out); epilogue = (bias (out,) or None, apply ReLU)."""
    if w.dtype != np.float32:
        return float32.linear_forward(x, w, y, epilogue=epilogue, work=work)
    (bias, relu), K, at = epilogue, w.shape[1], chosen().addresses
    copy, starts, *lanes = arrays_in(work, _forward_arrays(x.shape, w.shape))
    parallel_for(len(copy), copy.shape[1], _round_rows, x, copy)
    starts[:] = 0
    if bias is not None:
        starts[:K] = bias

    def columns(lane, k0, k1):
        _forward(k0, k1, at, copy, w, y, *lane, apart(copy.strides[0]), WHOLE, starts, relu)

    run(blocks(K, _share(K)), columns, list(zip(*lanes, strict=True)))


@kernel
def _pair_columns(first, last, copy, panels):
    """panels (images / 32, steps, 2, 16, 16, 2) of dy' (out, N): steps first..last.   copy: dy in rows of bf16."""
    count, steps = panels.shape[:2]
    for panel in range(count):
        for step in range(first, last):
            for half in range(2):
                source = copy.ctypes.data + ((panel * SIDE + half * LANES) * copy.shape[1] + step * STEP) * 2
                to = panels.ctypes.data + (panel * steps + step) * STEP_BYTES + half * HALF_BYTES
                transpose_words(source, copy.shape[1] * 2, LANES, LANES, to, LANES * 4)


@kernel
def _backward_data(first, last, addresses, panels, w, dx, sums, part, places, steps):
    """Columns first..last of dx. part (32, RUN and a line): rows of w.   sums (images / 32, 32, 32)."""
    (C, K), N, (count, deep) = w.shape, len(dx), panels.shape[:2]
    row, run_of, size = part.shape[1] * 2, len(steps) * STEP, dx.itemsize
    for c0 in range(first, last, SIDE):
        height = min(SIDE, last - c0)
        for k0 in range(0, K, run_of):
            filled = min(run_of, K - k0)
            for c in range(height):
                to = part.ctypes.data + c * row
                round_run(w.ctypes.data + ((c0 + c) * K + k0) * 4, to, filled)
                zero_run(to + filled * 2, -filled % STEP)
            begin_blocks(addresses)
            for panel in range(count):
                call(addresses[0], (part.ctypes.data, row, places.ctypes.data, steps.ctypes.data,
                                    (filled + STEP - 1) // STEP,
                                    panels.ctypes.data + (panel * deep + k0 // STEP) * STEP_BYTES, STEP_BYTES,
                                    HALF_BYTES, sums.ctypes.data + panel * SIDE * SIDE * 4, SIDE * 4, k0 == 0, height,
                                    N - panel * SIDE, w.ctypes.data + ((c0 + SIDE) * K + k0) * 4))
            end_blocks(addresses)
        for n in range(0, N, LANES):
            for c in range(0, height, LANES):
                source = sums.ctypes.data + (n // SIDE * SIDE * SIDE + c * SIDE + n % SIDE) * 4
                to = dx.ctypes.data + (n * C + c0 + c) * size
                transpose_sums(dx, source, SIDE * 4, height - c, N - n, to, C * size)


def linear_backward_data(dy, w, dx, *, work=None):
    """dx (N, in), overwritten, from dy (N, out) and w (in, out)."""
    if w.dtype != np.float32:
        return float32.linear_backward_data(dy, w, dx, work=work)
    at = chosen().addresses
    copy, panels, *lanes = arrays_in(work, _data_arrays(dx.shape, w.shape))
    places = apart(lanes[1].strides[1])
    parallel_for(len(copy), copy.shape[1], _round_rows, dy, copy)
    parallel_for(panels.shape[1], panels[:, 0].size, _pair_columns, copy, panels)

    def rows(lane, first, last):
        _backward_data(first, last, at, panels, w, dx, *lane, places, WHOLE[:RUN // STEP])

    _over_rows(w, rows, list(zip(*lanes, strict=True)))


@kernel
def _pair_images(first, last, dy, panels):
    """panels (out / 32, steps of images, 2, 16, 16, 2) of dy (N, out): panels first..last, zeros beyond."""
    N, K = dy.shape
    for panel in range(first, last):
        for pair in range(panels.shape[1] * 16):
            for half in range(2):
                k, n = panel * SIDE + half * LANES, 2 * pair
                filled = max(0, min(LANES, K - k))
                pair_rows(dy, dy.ctypes.data + (n * K + k) * dy.itemsize,
                          dy.ctypes.data + ((n + 1) * K + k) * dy.itemsize,
                          panels.ctypes.data + (panel * panels.shape[1] + pair // 16) * STEP_BYTES + half * HALF_BYTES
                          + pair % 16 * 64, filled if n < N else 0, filled if n + 1 < N else 0)


@kernel
def _gradient_rows(c0, height, start, addresses, copy, panels, part, sums, places, steps):
    """sums (32, columns): the gradient of `height` rows from c0 on, columns from `start` (panels) on.

    copy: x in rows of bf16.   part (32, images): their columns of it, transposed when start is 0.
    """
    row, count = part.shape[1] * 2, panels.shape[1]
    if start == 0:
        for n in range(0, count * STEP, STEP):
            for c in range(0, height, LANES):
                transpose_rows(copy.ctypes.data + (n * copy.shape[1] + c0 + c) * 2, copy.shape[1] * 2,
                          part.ctypes.data + c * row + n * 2, row)
    begin_blocks(addresses)
    for panel in range(min(sums.shape[1] // SIDE, len(panels) - start)):
        b = panels.ctypes.data + (start + panel) * count * STEP_BYTES
        call(addresses[0], (part.ctypes.data, row, places.ctypes.data, steps.ctypes.data, count, b, STEP_BYTES,
                            HALF_BYTES, sums.ctypes.data + panel * SIDE * 4, sums.shape[1] * 4, True, height, SIDE,
                            b + count * STEP_BYTES))
    end_blocks(addresses)


@kernel
def _backward_weights(first, last, addresses, copy, panels, dw, part, sums, places, steps, add):
    """Rows first..last of dw."""
    K = dw.shape[1]
    for c0 in range(first, last, SIDE):
        height = min(SIDE, last - c0)
        for start in range(0, len(panels), sums.shape[1] // SIDE):
            _gradient_rows(c0, height, start, addresses, copy, panels, part, sums, places, steps)
            k0 = start * SIDE
            for c in range(height):
                if add:
                    for k in range(min(sums.shape[1], K - k0)):
                        dw[c0 + c, index(k0 + k)] += sums[c, k]
                else:
                    for k in range(min(sums.shape[1], K - k0)):
                        dw[c0 + c, index(k0 + k)] = sums[c, k]


def linear_backward_weights(x, dy, dw, *, add=True, work=None):
    """dw (in, out) += from x (N, in) and dy (N, out); without `add`, dw = that, whatever it held."""
    if dw.dtype != np.float32:
        return float32.linear_backward_weights(x, dy, dw, add=add, work=work)
    copy, panels, steps, lanes = _gradient_operands(x, dy, dw, work)
    at = chosen().addresses

    def rows(lane, first, last):
        _backward_weights(first, last, at, copy, panels, dw, *lane, *steps, add)

    _over_rows(dw, rows, lanes)


@kernel
def _update(first, last, addresses, copy, panels, w, v, part, sums, places, steps, momentum, shrink, lr):
    """Rows first..last of w and v."""
    K = w.shape[1]
    for c0 in range(first, last, SIDE):
        height = min(SIDE, last - c0)
        for start in range(0, len(panels), sums.shape[1] // SIDE):
            _gradient_rows(c0, height, start, addresses, copy, panels, part, sums, places, steps)
            k0 = start * SIDE
            for c in range(height):
                for k in range(0, sums.shape[1], LANES):
                    at = ((c0 + c + AHEAD) * K + k0 + k) * 4
                    fetch_line(w.ctypes.data + at)
                    fetch_line(v.ctypes.data + at)
                sgd.paper_step(0, min(sums.shape[1], K - k0), w[c0 + c, k0:], sums[c], v[c0 + c, k0:], momentum, shrink,
                               lr)


def linear_sgd_step(x, dy, w, v, *, lr, momentum, decay, work=None):
    """One step of SGD on w (in, out) and v by the gradient x' dy, which is not written."""
    if w.dtype != np.float32:
        return float32.linear_sgd_step(x, dy, w, v, lr=lr, momentum=momentum, decay=decay, work=work)
    copy, panels, steps, lanes = _gradient_operands(x, dy, w, work)
    at, scalars = chosen().addresses, [np.float32(value) for value in (momentum, decay * lr, lr)]

    def rows(lane, first, last):
        _update(first, last, at, copy, panels, w, v, *lane, *steps, *scalars)

    _over_rows(w, rows, lanes)


def _gradient_operands(x, dy, dw, work):
    """x in rows, dy in pairs of images, (places, steps) of a block, and the memory of each thread."""
    copy, panels, *lanes = arrays_in(work, _weights_arrays(x.shape, dw.shape))
    parallel_for(len(copy), copy.shape[1], _round_rows, x, copy)
    parallel_for(len(panels), panels[0].size, _pair_images, dy, panels)
    return copy, panels, (apart(lanes[0].strides[1]), _steps(panels.shape[1])), list(zip(*lanes, strict=True))


def _over_rows(w, rows, lanes: list) -> None:
    """rows(lane, first, last) for all rows of w, in whole blocks."""
    groups = split(-(-len(w) // SIDE), threads() * RANGES_PER_THREAD)
    run([(first * SIDE, min(last * SIDE, len(w))) for first, last in groups], rows, lanes)


def _panels(columns: int, depth: int) -> tuple[int, ...]:
    """The shape of b in panels of 32 columns."""
    return -(-columns // SIDE), -(-depth // STEP), 2, 16, 16, 2


def _forward_arrays(x_shape, w_shape):
    (N, C), K = x_shape, w_shape[1]
    share, images = _share(K), up(N, SIDE)
    return [((images, row_of(C)), "uint16"), ((up(K, SIDE),), "float32"),
            ((threads(), share // SIDE, images, SIDE), "float32"),
            ((threads(), *_panels(share, DEPTH)), "uint16"), ((threads(), images), "int64")]


def _data_arrays(x_shape, w_shape):
    N, K = x_shape[0], w_shape[1]
    panels = _panels(N, K)
    return [((up(N, SIDE), row_of(K)), "uint16"), (panels, "uint16"), ((threads(), panels[0], SIDE, SIDE), "float32"),
            ((threads(), SIDE, row_of(RUN)), "uint16")]


def _weights_arrays(x_shape, w_shape):
    (N, C), K = x_shape, w_shape[1]
    columns = min(UPDATE_COLUMNS, up(K, SIDE))
    return [((up(N, SIDE), row_of(C)), "uint16"), (_panels(K, N), "uint16"),
            ((threads(), SIDE, row_of(N)), "uint16"), ((threads(), SIDE, columns), "float32")]


def linear_work(x_shape, w_shape, dtype):
    """Bytes of work space for the largest of the passes."""
    if np.dtype(dtype) != np.float32:
        return float32.linear_work(x_shape, w_shape, dtype)
    return max(bytes_of(arrays(x_shape, w_shape)) for arrays in (_forward_arrays, _data_arrays, _weights_arrays))
