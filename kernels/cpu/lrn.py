"""Local response normalisation in one pass over memory.

    y_i = x_i s_i^-beta        dx_i = dy_i s_i^-beta - 2 alpha beta x_i * sum over nbh(i) of dy_j x_j s_j^(-beta-1)

Across channels, a pixel (or the part of it that is one group) is worked on at a time in rows of C numbers that stay in the
first-level cache: the squares with n//2 zeros on either side, so that the window sum is n shifted additions without a test
for the borders. The backward has the same rows once more for the second sum, and computes s again rather than read it.

Within a map, the unit is an image: the window sum over n x n pixels is a sum of lines followed by a sum along the line.

The paper's beta is 3/4, and s^(-3/4) = 1 / (sqrt(s) sqrt(sqrt(s))): square roots are vector instructions, powers are not.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import kernel, rows
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _powers(s, power, count, beta):
    """power = s^-beta, the first `count` of each row."""
    one = s.dtype.type(1)
    if beta == 0.75:
        for i in range(count):
            root = np.sqrt(s[i])
            power[i] = one / (root * np.sqrt(root))
    else:
        for i in range(count):
            power[i] = s[i] ** -beta


@kernel
def _window_sums(padded, sums, count, n, k, alpha):
    """sums_i = k + alpha * (padded_i + ... + padded_(i+n-1))."""
    for i in range(count):
        sums[i] = padded[i]
    for j in range(1, n):
        for i in range(count):
            sums[i] += padded[i + j]
    for i in range(count):
        sums[i] = k + alpha * sums[i]


@kernel
def _forward(first, last, x, y, n, k, alpha, beta):
    C, half = x.shape[1], n // 2
    squares, s, power = np.zeros(C + n, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
    for m in range(first, last):
        for c in range(C):
            squares[half + c] = x[m, c] * x[m, c]
        _window_sums(squares, s, C, n, k, alpha)
        _powers(s, power, C, beta)
        for c in range(C):
            y[m, c] = x[m, c] * power[c]


@kernel
def _backward(first, last, x, dy, dx, n, k, alpha, beta):
    C, half = x.shape[1], n // 2
    zero, factor = x.dtype.type(0), x.dtype.type(-2) * alpha * beta
    squares, s, power = np.zeros(C + n, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
    ratios, cross = np.zeros(C + n, x.dtype), np.empty(C, x.dtype)
    for m in range(first, last):
        for c in range(C):
            squares[half + c] = x[m, c] * x[m, c]
        _window_sums(squares, s, C, n, k, alpha)
        _powers(s, power, C, beta)
        for c in range(C):
            ratios[half + c] = dy[m, c] * x[m, c] * power[c] / s[c]
        _window_sums(ratios, cross, C, n, zero, factor)
        for c in range(C):
            dx[m, c] = dy[m, c] * power[c] + x[m, c] * cross[c]


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
                _powers(s[h, w], power, C, beta)
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
                _powers(s[h, w], power, C, beta)
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
