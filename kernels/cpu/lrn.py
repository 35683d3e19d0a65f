"""Local response normalisation in one pass over memory.

    y_i = x_i s_i^-beta        dx_i = dy_i s_i^-beta - 2 alpha beta x_i * sum over nbh(i) of dy_j x_j s_j^(-beta-1)

Across channels, a row is a pixel's channels, or its part of them in one group. ROWS rows are worked on at a time:

    x         row 0 ........  row 1 ........  row 2 ...      read once from memory
    squares   0 0  row 0 ........  0 0  row 1 ........  0 0  in the L1 cache, zeros between the rows:
              |----------|                                   16 windows at a time are n loads, each one further (n = 5),
                |----------|                                 and the ends of a row need no test

First the squares of all ROWS rows, then the sums: a load of what was stored a few instructions before would have to
wait for the store. The backward has a second such strip, for dy x s^(-beta-1), and a third for the first term of dx,
so that dx is rounded once; it recomputes s instead of reading it.

Within a map, an output line needs the n lines around it, which were used for the line before and are still in the L2
cache:

    line h-1   pixel, pixel, pixel ...
    line h     pixel, pixel, pixel ...      summed downwards into one strip (n loads), then along the strip (n loads,
    line h+1   pixel, pixel, pixel ...      each one pixel further), with zero pixels at its ends
               ----------------------
    strip    0 pixel, pixel, pixel ... 0

The backward keeps the last n lines of dy x s^(-beta-1), where line h takes the place of line h-n, and those lines of
the first term of dx that wait for them.

The paper's beta is 3/4, and with r = 1 / sqrt(s), s^(-3/4) = r r / sqrt(r): a reciprocal square root is a fast
instruction, a general power is not.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu import epilogue, pool
from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.stored import real
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.kernels.cpu.vectors import AHEAD, LANES, fetch, fetch_to_write, load, part, power, splat, sqrt, store

ROWS = 4


@part
def _whole(size):
    """size, rounded up to whole vectors."""
    return (size + LANES - 1) // LANES * LANES


@part
def _window(a, i, n, step):
    """a[i] + a[i + step] + ... (n of them), and so for the 15 behind."""
    if n == 5:                                              # the usual size, without a loop
        return (load(a, i, LANES) + load(a, i + step, LANES) + load(a, i + 2 * step, LANES)
                + load(a, i + 3 * step, LANES) + load(a, i + 4 * step, LANES))
    total = load(a, i, LANES)
    for j in range(1, n):
        total = total + load(a, i + j * step, LANES)
    return total


@part
def _powers(s, beta, one):
    """s^-beta and s^(-beta-1)."""
    if beta == 0.75:
        r = one / sqrt(s)
        p = r * r * (one / sqrt(r))
        return p, p * (r * r)
    p = power(s, splat(-beta))
    return p, p / s


@part
def _square(x, i, count, squares, o):
    fetch(x, i + AHEAD)
    v = load(x, i, count)
    store(squares, o, LANES, v * v)


@part
def _squares_of_rows(x, i, count, C, squares, left, step):
    """The squares of `count` rows of C channels from x[i] on, each behind `left` zeros and `step` after the last."""
    tail = C - C % LANES
    for row in range(count):
        o = row * step + left
        for c in range(0, tail, LANES):
            _square(x, i + row * C + c, LANES, squares, o + c)
        if tail < C:
            _square(x, i + row * C + tail, C - tail, squares, o + tail)


@part
def _normalise(x, y, i, count, squares, o, n, step, k, alpha, beta, one):
    fetch_to_write(y, i + AHEAD)
    p, _ = _powers(k + alpha * _window(squares, o, n, step), beta, one)
    store(y, i, count, load(x, i, count) * p)


@part
def _weigh(x, dy, dx, i, count, squares, o, n, step, k, alpha, beta, one, terms, t, ratios, q):
    """terms = the first term of dx, and ratios = what the sum of the second runs over."""
    fetch(dy, i + AHEAD)
    fetch_to_write(dx, i + AHEAD)
    p, ratio = _powers(k + alpha * _window(squares, o, n, step), beta, one)
    upstream = load(dy, i, count)
    store(terms, t, count, upstream * p)
    store(ratios, q, count, upstream * load(x, i, count) * ratio)


@part
def _add_cross(x, dx, i, count, terms, t, ratios, q, n, step, factor):
    store(dx, i, count, load(terms, t, count) + factor * load(x, i, count) * _window(ratios, q, n, step))


@kernel
def _forward(first, last, x, y, C, n, k, alpha, beta):
    left = _whole(n // 2)
    step, tail, before = left + _whole(C), C - C % LANES, left - n // 2
    squares = np.zeros(ROWS * step + left, real(x))
    one, k, alpha = splat(real(x).type(1)), splat(k), splat(alpha)
    for m in range(first, last, ROWS):
        count = min(ROWS, last - m)
        _squares_of_rows(x, m * C, count, C, squares, left, step)
        for row in range(count):
            i, o = (m + row) * C, row * step + before
            for c in range(0, tail, LANES):
                _normalise(x, y, i + c, LANES, squares, o + c, n, 1, k, alpha, beta, one)
            if tail < C:
                _normalise(x, y, i + tail, C - tail, squares, o + tail, n, 1, k, alpha, beta, one)


@kernel
def _backward(first, last, x, dy, dx, C, n, k, alpha, beta):
    left = _whole(n // 2)
    step, tail, before = left + _whole(C), C - C % LANES, left - n // 2
    squares, ratios = np.zeros(ROWS * step + left, real(x)), np.zeros(ROWS * step + left, real(x))
    terms = np.empty_like(ratios)
    factor = splat(real(x).type(-2) * alpha * beta)
    one, k, alpha = splat(real(x).type(1)), splat(k), splat(alpha)
    for m in range(first, last, ROWS):
        count = min(ROWS, last - m)
        _squares_of_rows(x, m * C, count, C, squares, left, step)
        for row in range(count):
            i, o = (m + row) * C, row * step
            for c in range(0, tail, LANES):
                _weigh(x, dy, dx, i + c, LANES, squares, o + before + c, n, 1, k, alpha, beta, one,
                       terms, o + left + c, ratios, o + left + c)
            if tail < C:
                _weigh(x, dy, dx, i + tail, C - tail, squares, o + before + tail, n, 1, k, alpha, beta, one,
                       terms, o + left + tail, ratios, o + left + tail)
        for row in range(count):
            i, o, t = (m + row) * C, row * step + before, row * step + left
            for c in range(0, tail, LANES):
                _add_cross(x, dx, i + c, LANES, terms, t + c, ratios, o + c, n, 1, factor)
            if tail < C:
                _add_cross(x, dx, i + tail, C - tail, terms, t + tail, ratios, o + tail, n, 1, factor)


def _scalars(x, *values):
    """The values as scalars of x's type, so that nothing is computed in a wider one."""
    return [real(x).type(value) for value in values]


def lrn_forward(x, y, *, n, k, alpha, beta, groups=1):
    """y (N, H, W, C) from x, normalised over n channels inside each of `groups` parts of the C channels."""
    C = x.shape[-1] // groups
    parallel_for(x.size // C, C * 8, _forward, flat(x), flat(y), C, n, *_scalars(x, k, alpha, beta))


def lrn_backward(x, dy, dx, db=None, *, n, k, alpha, beta, groups=1, relu=False, add=True):
    """dx (N, H, W, C), overwritten, from x and dy; dx must not be dy. Then relu, db, add: as epilogue_backward, y=x."""
    C = x.shape[-1] // groups
    parallel_for(x.size // C, C * 16, _backward, flat(x), flat(dy), flat(dx), C, n, *_scalars(x, k, alpha, beta))
    if relu or db is not None:
        epilogue.epilogue_backward(dx, db, y=x if relu else None, add=add)


# Two passes each: plans of this backend do not fuse them (Ops.fusions).
def lrn_maxpool_forward(x, y, argmax, *, n, k, alpha, beta, groups=1, kernel, stride, pads):
    """y (N, P, Q, C) and argmax of maxpool_forward, from x (N, H, W, C) normalised as by lrn_forward."""
    normalised = np.empty_like(x)
    lrn_forward(x, normalised, n=n, k=k, alpha=alpha, beta=beta, groups=groups)
    pool.maxpool_forward(normalised, y, argmax, kernel=kernel, stride=stride, pads=pads)


def lrn_maxpool_backward(x, dy, argmax, dx, db=None, *, n, k, alpha, beta, groups=1, kernel, stride, pads, relu=False,
                         add=True):
    """dx (N, H, W, C), overwritten, from x, dy and argmax (N, P, Q, C). relu, db, add: as in lrn_backward."""
    gradient = np.empty_like(x)
    pool.maxpool_backward(dy, argmax, gradient, kernel=kernel, stride=stride, pads=pads)
    lrn_backward(x, gradient, dx, db, n=n, k=k, alpha=alpha, beta=beta, groups=groups, relu=relu, add=add)


@part
def _squares_downwards(x, i, lines, size, count, strip, o):
    """strip = the sum of x^2 over this many lines."""
    fetch(x, i + (lines - 1) * size + AHEAD)
    v = load(x, i, count)
    total = v * v
    for line in range(1, lines):
        v = load(x, i + line * size, count)
        total = total + v * v
    store(strip, o, LANES, total)


@part
def _squares_around(x, line, H, size, n, strip, left):
    """strip = the sum of x^2 over the n lines around this line of all images, those outside its image left out."""
    tail, h = size - size % LANES, line % H
    above, below = min(h, n // 2), min(H - 1 - h, n // 2)
    i, lines = (line - above) * size, above + below + 1
    for c in range(0, tail, LANES):
        _squares_downwards(x, i + c, lines, size, LANES, strip, left + c)
    if tail < size:
        _squares_downwards(x, i + tail, lines, size, size - tail, strip, left + tail)


@kernel
def _within_forward(first, last, x, y, H, size, C, n, k, alpha, beta):
    left, tail = n // 2 * C, size - size % LANES
    strip = np.zeros(size + 2 * left + LANES, real(x))
    one, k, alpha = splat(real(x).type(1)), splat(k), splat(alpha)
    for line in range(first, last):
        _squares_around(x, line, H, size, n, strip, left)
        i = line * size
        for c in range(0, tail, LANES):
            _normalise(x, y, i + c, LANES, strip, c, n, C, k, alpha, beta, one)
        if tail < size:
            _normalise(x, y, i + tail, size - tail, strip, tail, n, C, k, alpha, beta, one)


@kernel
def _within_backward(first, last, x, dy, dx, H, size, C, n, k, alpha, beta):
    left, tail, step = n // 2 * C, size - size % LANES, _whole(size)
    strip, ratios = np.zeros(size + 2 * left + LANES, real(x)), np.zeros(n * step, real(x))
    kept = n // 2 + 1                                       # lines of terms
    terms = np.empty(kept * step, real(x))
    factor = splat(real(x).type(-2) * alpha * beta)
    one, k, alpha = splat(real(x).type(1)), splat(k), splat(alpha)
    for image in range(first, last):
        ratios[:] = 0                                       # lines above the image
        for h in range(H + n // 2):
            i, q, t = (image * H + h) * size, h % n * step, h % kept * step
            if h < H:
                _squares_around(x, image * H + h, H, size, n, strip, left)
                for c in range(0, tail, LANES):
                    _weigh(x, dy, dx, i + c, LANES, strip, c, n, C, k, alpha, beta, one, terms, t + c,
                           ratios, q + c)
                if tail < size:
                    _weigh(x, dy, dx, i + tail, size - tail, strip, tail, n, C, k, alpha, beta, one, terms,
                           t + tail, ratios, q + tail)
            else:
                ratios[q : q + step] = 0                    # lines below the image
            if h >= n // 2:                                 # all lines around line h - n // 2 are computed now
                for c in range(0, size, LANES):
                    store(strip, left + c, LANES, _window(ratios, c, n, step))
                i, t = i - n // 2 * size, (h - n // 2) % kept * step
                for c in range(0, tail, LANES):
                    _add_cross(x, dx, i + c, LANES, terms, t + c, strip, c, n, C, factor)
                if tail < size:
                    _add_cross(x, dx, i + tail, size - tail, terms, t + tail, strip, tail, n, C, factor)


def lrn_within_forward(x, y, *, n, k, alpha, beta):
    """y (N, H, W, C) from x, normalised over n x n pixels of the same map."""
    N, H, W, C = x.shape
    parallel_for(N * H, W * C * 16, _within_forward, flat(x), flat(y), H, W * C, C, n, *_scalars(x, k, alpha, beta))


def lrn_within_backward(x, dy, dx, *, n, k, alpha, beta):
    """dx (N, H, W, C), overwritten, from x and dy; dx must not be dy."""
    N, H, W, C = x.shape
    parallel_for(N, H * W * C * 32, _within_backward, flat(x), flat(dy), flat(dx), H, W * C, C, n,
                 *_scalars(x, k, alpha, beta))
