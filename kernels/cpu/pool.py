"""Pooling: one pass over memory, 16 channels of an output or of a pixel at a time, which are accumulated in registers.

Forward, an output line reads R input lines; those that it shares with the line before are still in the cache:

    line 0   .  .  .  .  .       for channels 0-15, then 16-31, ...:
    line 1   . [0  1  2] .           best = cell 0, then cell 1 where that is larger, ... cell 8        (3 x 3 window)
    line 2   . [3  4  5] .           winner = 0, then 1 where that was larger, ...                   one byte for each
    line 3   . [6  7  8] .

Backward, a pixel gathers from the windows that contain it, two by two. So it is written once, by one thread, in a fixed
order:

                 q   q+1
    window p     a    b          dx = dy(a) where a's winner is this pixel's cell in a, + the same for b, c and d;
    window p+1   c    d          3 x 3 every 2 pixels: there are at most four. For a missing window the cell is 255,
                                 which no winner equals: the instructions are the same for every pixel

The average has sums in place of maxima, and 1 / divisor in place of the cell. Numba compiles both from one source:
`average` is a compile-time constant of a kernel.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel, kernel_in_order
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.stored import real, stored, wide
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.kernels.cpu.vectors import AHEAD, LANES, fetch, fetch_to_write, load, part, select, splat, store

_NO_ARGMAX = np.empty(0, np.uint8)
_NO_AREA = (0, 0, 0, 0)
_NO_CELL = np.uint8(255)          # windows have at most 255 cells: 0 to 254


@part
def _cells(p, stride, pad, taps, size):
    """range(first, last) of the taps of window p that lie in an area of this size, `pad` behind window 0's start."""
    return max(0, pad - p * stride), min(taps, size + pad - p * stride)


@part
def _windows(h, stride, pad, taps, count):
    """range(first, last) of those windows, of `count`, that contain pixel h."""
    return max(0, (h + pad - taps + stride) // stride), min(count, (h + pad) // stride + 1)


@part
def _share(a, rows, columns):
    """1 / divisor, in a's type, of a window of which these ranges of taps count."""
    return splat(real(a).type(1 / max(1, (rows[1] - rows[0]) * (columns[1] - columns[0]))))


@part
def _fetch_ahead(x, i, line, C, y, o):
    """Prefetch two pixels of the window's last two lines, some outputs ahead: the lines above were used before."""
    fetch_to_write(y, o + AHEAD)
    fetch(x, i + AHEAD)
    fetch(x, i + C + AHEAD)
    fetch(x, i + line + AHEAD)
    fetch(x, i + line + C + AHEAD)


@part
def _output(average, x, i, count, y, argmax, o, keep, line, C, r0, r1, s0, s1, S, share):
    """Output o from the taps r0..r1, s0..s1 of the window whose cell (0, 0) is x[i]."""
    result, winner = splat(real(x).type(0 if average else -np.inf)), splat(np.uint8(0))
    for r in range(r0, r1):
        for s in range(s0, s1):
            cell = load(x, i + r * line + s * C, count)
            if average:
                result = result + cell
            else:
                larger = (cell > result) | (cell != cell)                      # NaN wins, and stays
                result = select(larger, cell, result)
                winner = select(larger, splat(np.uint8(r * S + s)), winner)
    store(y, o, count, result * share if average else result)
    if keep:
        store(argmax, o, count, winner)


def _forward(average: bool):
    """The kernel over output lines first..last of the whole batch."""

    @kernel
    def forward(first, last, x, y, argmax, keep, area, H, W, P, Q, C, R, S, u, v, top, left):
        line, tail = W * C, C - C % LANES
        for m in range(first, last):
            n, p = m // P, m % P
            r0, r1 = _cells(p, u, top, R, H)
            for q in range(Q):
                s0, s1 = _cells(q, v, left, S, W)
                share = _share(x, _cells(p, u, area[0], R, area[2]), _cells(q, v, area[1], S, area[3]))
                i, o = ((n * H + p * u - top) * W + q * v - left) * C, (m * Q + q) * C
                if R == 3 and S == 3 and r1 - r0 == 3 and s1 - s0 == 3:         # constants: no loops over the taps
                    for c in range(0, tail, LANES):
                        _fetch_ahead(x, i + c + line, line, C, y, o + c)
                        _output(average, x, i + c, LANES, y, argmax, o + c, keep, line, C, 0, 3, 0, 3, 3, share)
                else:
                    for c in range(0, tail, LANES):
                        _fetch_ahead(x, i + c + (r1 - 2) * line, line, C, y, o + c)
                        _output(average, x, i + c, LANES, y, argmax, o + c, keep, line, C, r0, r1, s0, s1, S, share)
                if tail < C:
                    _output(average, x, i + tail, C - tail, y, argmax, o + tail, keep, line, C, r0, r1, s0, s1, S,
                            share)

    return forward


@part
def _term(average, dy, argmax, o, count, cell, share):
    """The gradient of a pixel from a window in which it is this cell."""
    zero = splat(real(dy).type(0))
    if average:
        return select(cell == splat(_NO_CELL), zero, load(dy, o, count) * share)
    return select(load(argmax, o, count) == cell, load(dy, o, count), zero)


@part
def _gather(average, dy, argmax, i, right, below, count, sums, c, dx, o, is_first, is_last, cells, shares):
    """dx = the gradients from the windows at i, `right` of it, `below` it, and both, and from those before, in sums."""
    fetch_to_write(dx, o + AHEAD)
    total = _term(average, dy, argmax, i, count, cells[0], shares[0])
    total = total + _term(average, dy, argmax, i + right, count, cells[1], shares[1])
    total = total + _term(average, dy, argmax, i + below, count, cells[2], shares[2])
    total = total + _term(average, dy, argmax, i + below + right, count, cells[3], shares[3])
    if not is_first:
        total = total + load(sums, c, count)
    if is_last:
        store(dx, o, count, total)
    else:
        store(sums, c, count, total)


def _backward(average: bool):
    """The kernel over input lines first..last of the whole batch."""

    @kernel
    def backward(first, last, dy, argmax, dx, area, H, W, P, Q, C, R, S, u, v, top, left):
        tail, sums = C - C % LANES, np.empty(C, real(dx))
        for m in range(first, last):
            n, h = m // H, m % H
            p0, p1 = _windows(h, u, top, R, P)
            for w in range(W):
                q0, q1 = _windows(w, v, left, S, Q)
                o = (m * W + w) * C
                if p0 >= p1 or q0 >= q1:
                    for c in range(C):
                        dx[o + c] = 0
                for p in range(p0, p1, 2):
                    for q in range(q0, q1, 2):
                        two_rows, two_columns = p + 1 < p1, q + 1 < q1
                        is_first, is_last = p == p0 and q == q0, p + 2 >= p1 and q + 2 >= q1
                        i, cell = ((n * P + p) * Q + q) * C, (h + top - p * u) * S + w + left - q * v
                        right, below = C if two_columns else 0, Q * C if two_rows else 0
                        cells = (splat(np.uint8(cell)),
                                 splat(np.uint8(cell - v) if two_columns else _NO_CELL),
                                 splat(np.uint8(cell - u * S) if two_rows else _NO_CELL),
                                 splat(np.uint8(cell - u * S - v) if two_rows and two_columns else _NO_CELL))
                        row, next_row = _cells(p, u, area[0], R, area[2]), _cells(p + 1, u, area[0], R, area[2])
                        column, next_column = _cells(q, v, area[1], S, area[3]), _cells(q + 1, v, area[1], S, area[3])
                        shares = (_share(dy, row, column), _share(dy, row, next_column), _share(dy, next_row, column),
                                  _share(dy, next_row, next_column))
                        for c in range(0, tail, LANES):
                            _gather(average, dy, argmax, i + c, right, below, LANES, sums, c, dx, o + c, is_first,
                                    is_last, cells, shares)
                        if tail < C:
                            _gather(average, dy, argmax, i + tail, right, below, C - tail, sums, tail, dx, o + tail,
                                    is_first, is_last, cells, shares)

    return backward


_maxpool, _avgpool = _forward(average=False), _forward(average=True)
_maxpool_backward, _avgpool_backward = _backward(average=False), _backward(average=True)


def _over_lines(function, lines, image, output, *arguments, kernel, stride, pads):
    """Run the Numba function over the lines of the array `lines`, one of x (N, H, W, C) and y (N, P, Q, C)."""
    N, height, width, C = lines.shape
    parallel_for(N * height, width * C * kernel[0] * kernel[1], function, *arguments, *image.shape[1:3],
                 *output.shape[1:3], C, *kernel, *stride, *pads[:2])


def maxpool_forward(x, y, argmax, *, kernel, stride, pads):
    """y (N, P, Q, C), argmax (uint8, like y; or None): r*S + s of the first largest cell of each window of x."""
    keep = argmax is not None
    _over_lines(_maxpool, y, x, y, flat(x), flat(y), flat(argmax) if keep else _NO_ARGMAX, keep, _NO_AREA,
                kernel=kernel, stride=stride, pads=pads)


def maxpool_backward(dy, argmax, dx, *, kernel, stride, pads):
    """dx (N, H, W, C), overwritten, from dy and argmax (N, P, Q, C)."""
    _over_lines(_maxpool_backward, dx, dx, dy, flat(dy), flat(argmax), flat(dx), _NO_AREA,
                kernel=kernel, stride=stride, pads=pads)


def _area(image, pads, counted):
    """The cells that count in the divisor: (rows, columns) from window 0's start to theirs, (rows, columns) of them."""
    (_, H, W, _), (top, left, bottom, right) = image.shape, counted
    return pads[0] - top, pads[1] - left, top + H + bottom, left + W + right


def avgpool_forward(x, y, *, kernel, stride, pads, counted):
    """y (N, P, Q, C): the sum of each window of x over the number of its cells in the image or the border `counted`."""
    _over_lines(_avgpool, y, x, y, flat(x), flat(y), _NO_ARGMAX, False, _area(x, pads, counted),
                kernel=kernel, stride=stride, pads=pads)


def avgpool_backward(dy, dx, *, kernel, stride, pads, counted):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
    _over_lines(_avgpool_backward, dx, dx, dy, flat(dy), _NO_ARGMAX, flat(dx), _area(dx, pads, counted),
                kernel=kernel, stride=stride, pads=pads)


@kernel_in_order
def _global_avgpool(first, last, x, y):
    """y (N, C) from x (N, pixels, C), images first..last: two pixels at a time, so that memory is read in its order."""
    _, pixels, C = x.shape
    sums = np.empty(C, real(y))
    for n in range(first, last):
        for c in range(C):
            sums[c] = wide(x[n, 0, c]) if pixels % 2 else 0
        for i in range(pixels % 2, pixels, 2):
            for c in range(C):
                sums[c] += wide(x[n, i, c]) + wide(x[n, i + 1, c])
        for c in range(C):
            y[n, c] = stored(sums[c] / sums.dtype.type(pixels), y)


@kernel
def _global_avgpool_backward(first, last, dy, dx):
    """dx (N, pixels, C) from dy (N, C), images first..last."""
    _, pixels, C = dx.shape
    share = real(dx).type(1 / pixels)
    for n in range(first, last):
        for i in range(pixels):
            for c in range(C):
                dx[n, i, c] = stored(wide(dy[n, c]) * share, dx)


def _pixels(images):
    """(N, H, W, C) as (N, H*W, C)."""
    N, H, W, C = images.shape
    return images.reshape(N, H * W, C)


def global_avgpool_forward(x, y):
    """y (N, C), the mean over the pixels of x (N, H, W, C)."""
    parallel_for(len(x), x[0].size, _global_avgpool, _pixels(x), y)


def global_avgpool_backward(dy, dx):
    """dx (N, H, W, C), overwritten, from dy (N, C): dy / (H*W) at every pixel."""
    parallel_for(len(dx), dx[0].size, _global_avgpool_backward, dy, _pixels(dx))


@kernel
def _adaptive_avgpool(first, last, x, y):
    """Lines first..last of y (N, P, Q, C) from x (N, H, W, C)."""
    _, H, W, C = x.shape
    _, P, Q, _ = y.shape
    sums = np.empty(C, real(y))
    for line in range(first, last):
        n, p = line // P, line % P
        top, bottom = p * H // P, -(-(p + 1) * H // P)
        for q in range(Q):
            left, right = q * W // Q, -(-(q + 1) * W // Q)
            for c in range(C):
                sums[c] = 0
            for h in range(top, bottom):
                for w in range(left, right):
                    for c in range(C):
                        sums[c] += wide(x[n, h, w, c])
            for c in range(C):
                y[n, p, q, c] = stored(sums[c] / sums.dtype.type((bottom - top) * (right - left)), y)


@kernel
def _adaptive_avgpool_backward(first, last, dy, dx):
    """Lines first..last of dx (N, H, W, C) from dy (N, P, Q, C): row h is in windows floor(h P / H) to
    ceil((h+1) P / H) - 1, and columns likewise."""
    _, H, W, C = dx.shape
    _, P, Q, _ = dy.shape
    sums = np.empty(C, real(dx))
    for line in range(first, last):
        n, h = line // H, line % H
        for w in range(W):
            for c in range(C):
                sums[c] = 0
            for p in range(h * P // H, -(-(h + 1) * P // H)):
                for q in range(w * Q // W, -(-(w + 1) * Q // W)):
                    pixels = (-(-(p + 1) * H // P) - p * H // P) * (-(-(q + 1) * W // Q) - q * W // Q)
                    share = sums.dtype.type(1 / pixels)
                    for c in range(C):
                        sums[c] += wide(dy[n, p, q, c]) * share
            for c in range(C):
                dx[n, h, w, c] = stored(sums[c], dx)


def adaptive_avgpool_forward(x, y):
    """y[n,p,q,c] = mean of x[n,h,w,c] over rows floor(p H / P) <= h < ceil((p+1) H / P), and columns likewise."""
    parallel_for(len(y) * y.shape[1], x[0].size // y.shape[1], _adaptive_avgpool, x, y)


def adaptive_avgpool_backward(dy, dx):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
    parallel_for(len(dx) * dx.shape[1], dx[0, 0].size, _adaptive_avgpool_backward, dy, dx)
