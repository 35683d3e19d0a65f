"""Local response normalisation in one pass over memory.

    y_i = x_i s_i^-beta        dx_i = dy_i s_i^-beta - 2 alpha beta x_i * sum over nbh(i) of dy_j x_j s_j^(-beta-1)

Across channels, BATCH rows (pixels, or their parts in one group) are worked on at a time, laid behind one another with
n-1 zeros between: so the window sums of all of them are n shifted additions of one long row that stays in the
first-level cache, without a test for borders. The backward has such rows for both sums, and computes s again rather
than read it.

Within a map, the unit is an image: the window sum over n x n pixels is a sum of lines followed by a sum along the line.

The paper's beta is 3/4; s^(-3/4) = 1 / (sqrt(s) sqrt(sqrt(s))), and square roots are vector instructions, powers not.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import index, kernel, rows
from minicnn.kernels.cpu.threads import parallel_for

BATCH = 16


@kernel
def _powers(s, power, beta):
    """power = s^-beta."""
    one = s.dtype.type(1)
    if beta == 0.75:
        for i in range(s.size):
            root = np.sqrt(s[i])
            power[i] = one / (root * np.sqrt(root))
    else:
        for i in range(s.size):
            power[i] = s[i] ** -beta


@kernel
def _window_sums(padded, sums, n, k, alpha):
    """sums_i = k + alpha * (padded_i + ... + padded_(i+n-1))."""
    for i in range(sums.size):
        sums[i] = padded[i]
    for j in range(1, n):
        for i in range(sums.size):
            sums[i] += padded[index(i + j)]
    for i in range(sums.size):
        sums[i] = k + alpha * sums[i]


@kernel
def _forward(first, last, x, y, n, k, alpha, beta):
    C, half, step = x.shape[1], n // 2, x.shape[1] + n - 1
    squares = np.zeros(BATCH * step + n - 1, x.dtype)
    s, power = np.empty(BATCH * step, x.dtype), np.empty(BATCH * step, x.dtype)
    for m0 in range(first, last, BATCH):
        count = min(BATCH, last - m0)
        for i in range(count):
            inputs, here = x[m0 + i], squares[i * step + half : i * step + half + C]
            for c in range(C):
                here[c] = inputs[c] * inputs[c]
        _window_sums(squares, s, n, k, alpha)
        _powers(s, power, beta)
        for i in range(count):
            inputs, outputs, here = x[m0 + i], y[m0 + i], power[i * step : i * step + C]
            for c in range(C):
                outputs[c] = inputs[c] * here[c]


@kernel
def _backward(first, last, x, dy, dx, n, k, alpha, beta):
    C, half, step = x.shape[1], n // 2, x.shape[1] + n - 1
    zero, factor = x.dtype.type(0), x.dtype.type(-2) * alpha * beta
    squares, ratios = np.zeros(BATCH * step + n - 1, x.dtype), np.zeros(BATCH * step + n - 1, x.dtype)
    s, power, cross = np.empty(BATCH * step, x.dtype), np.empty(BATCH * step, x.dtype), np.empty(BATCH * step, x.dtype)
    for m0 in range(first, last, BATCH):
        count = min(BATCH, last - m0)
        for i in range(count):
            inputs, here = x[m0 + i], squares[i * step + half : i * step + half + C]
            for c in range(C):
                here[c] = inputs[c] * inputs[c]
        _window_sums(squares, s, n, k, alpha)
        _powers(s, power, beta)
        for i in range(count):
            inputs, upstream, here = x[m0 + i], dy[m0 + i], ratios[i * step + half : i * step + half + C]
            scale, slope = s[i * step : i * step + C], power[i * step : i * step + C]
            for c in range(C):
                here[c] = upstream[c] * inputs[c] * slope[c] / scale[c]
        _window_sums(ratios, cross, n, zero, factor)
        for i in range(count):
            inputs, upstream, outputs = x[m0 + i], dy[m0 + i], dx[m0 + i]
            sums, slope = cross[i * step : i * step + C], power[i * step : i * step + C]
            for c in range(C):
                outputs[c] = upstream[c] * slope[c] + inputs[c] * sums[c]


def lrn_forward(x, y, *, n, k, alpha, beta, groups=1):
    """y (N, H, W, C) from x, normalised over n channels inside each of `groups` parts of the C channels."""
    width, number = x.shape[-1] // groups, x.dtype.type
    X, Y = rows(x, width), rows(y, width)                                      # (N*H*W*G, C/G)
    parallel_for(len(X), width * 8, _forward, X, Y, n, number(k), number(alpha), number(beta))


def lrn_backward(x, dy, dx, *, n, k, alpha, beta, groups=1):
    """dx (N, H, W, C), overwritten, from x and dy; dx must not be dy."""
    width, number = x.shape[-1] // groups, x.dtype.type
    X, dY, dX = rows(x, width), rows(dy, width), rows(dx, width)               # (N*H*W*G, C/G)
    parallel_for(len(X), width * 16, _backward, X, dY, dX, n, number(k), number(alpha), number(beta))


@kernel
def _box_sums(a, sums, line, n, k, alpha):
    """sums (H, W, C) = k + alpha * sum of a (H, W, C) over n x n pixels, clipped at the border."""
    H, W, C = a.shape
    for h in range(H):
        for w in range(W):
            for c in range(C):
                line[w, c] = 0
        for i in range(max(0, h - n // 2), min(H, h + n // 2 + 1)):
            for w in range(W):
                for c in range(C):
                    line[w, c] += a[i, w, c]
        for w in range(W):
            for c in range(C):
                sums[h, w, c] = 0
            for j in range(max(0, w - n // 2), min(W, w + n // 2 + 1)):
                for c in range(C):
                    sums[h, w, c] += line[j, c]
            for c in range(C):
                sums[h, w, c] = k + alpha * sums[h, w, c]


@kernel
def _within_forward(first, last, x, y, n, k, alpha, beta):
    H, W, C = x.shape[1], x.shape[2], x.shape[3]
    squares, s, line = np.empty((H, W, C), x.dtype), np.empty((H, W, C), x.dtype), np.empty((W, C), x.dtype)
    power = np.empty(C, x.dtype)
    for image in range(first, last):
        for h in range(H):
            for w in range(W):
                for c in range(C):
                    squares[h, w, c] = x[image, h, w, c] * x[image, h, w, c]
        _box_sums(squares, s, line, n, k, alpha)
        for h in range(H):
            for w in range(W):
                _powers(s[h, w], power, beta)
                for c in range(C):
                    y[image, h, w, c] = x[image, h, w, c] * power[c]


@kernel
def _within_backward(first, last, x, dy, dx, n, k, alpha, beta):
    H, W, C = x.shape[1], x.shape[2], x.shape[3]
    zero, factor = x.dtype.type(0), x.dtype.type(-2) * alpha * beta
    ratios, s, cross = np.empty((H, W, C), x.dtype), np.empty((H, W, C), x.dtype), np.empty((H, W, C), x.dtype)
    line, power = np.empty((W, C), x.dtype), np.empty(C, x.dtype)
    for image in range(first, last):
        for h in range(H):
            for w in range(W):
                for c in range(C):
                    ratios[h, w, c] = x[image, h, w, c] * x[image, h, w, c]
        _box_sums(ratios, s, line, n, k, alpha)
        for h in range(H):
            for w in range(W):
                _powers(s[h, w], power, beta)
                for c in range(C):
                    dx[image, h, w, c] = dy[image, h, w, c] * power[c]
                    ratios[h, w, c] = dx[image, h, w, c] * x[image, h, w, c] / s[h, w, c]
        _box_sums(ratios, cross, line, n, zero, factor)
        for h in range(H):
            for w in range(W):
                for c in range(C):
                    dx[image, h, w, c] += x[image, h, w, c] * cross[h, w, c]


def lrn_within_forward(x, y, *, n, k, alpha, beta):
    """y (N, H, W, C) from x, normalised over n x n pixels of the same map."""
    number = x.dtype.type
    parallel_for(len(x), x[0].size * 16, _within_forward, x, y, n, number(k), number(alpha), number(beta))


def lrn_within_backward(x, dy, dx, *, n, k, alpha, beta):
    """dx (N, H, W, C), overwritten, from x and dy; dx must not be dy."""
    number = x.dtype.type
    parallel_for(len(x), x[0].size * 32, _within_backward, x, dy, dx, n, number(k), number(alpha), number(beta))
