"""Pooling: the loops run over lines of the output (forward) or of the input (backward), innermost over the channels.

Channels are contiguous, so the cells of a window are compared or added C at a time with vector instructions. The
backward passes gather: a pixel of dx looks at the windows that hold it, so each pixel has one writer and one order of
summation.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import kernel
from minicnn.kernels.cpu.threads import parallel_for

_NO_ARGMAX = np.empty((0, 0, 0, 0), np.uint8)


@kernel
def _maxpool(first, last, x, y, argmax, keep, R, S, u, v, top, left):
    H, W, C = x.shape[1], x.shape[2], x.shape[3]
    P, Q = y.shape[1], y.shape[2]
    for line in range(first, last):
        n, p = line // P, line % P
        for q in range(Q):
            best = y[n, p, q]
            for c in range(C):
                best[c] = -np.inf
            if keep:
                winner = argmax[n, p, q]
                for c in range(C):
                    winner[c] = 0
            for r in range(max(0, top - p * u), min(R, H + top - p * u)):
                for s in range(max(0, left - q * v), min(S, W + left - q * v)):
                    cell = x[n, p * u + r - top, q * v + s - left]
                    if keep:
                        index = np.uint8(r * S + s)
                        for c in range(C):
                            larger = cell[c] > best[c] or cell[c] != cell[c]   # NaN wins, and stays
                            winner[c] = index if larger else winner[c]
                            best[c] = cell[c] if larger else best[c]
                    else:
                        for c in range(C):
                            larger = cell[c] > best[c] or cell[c] != cell[c]
                            best[c] = cell[c] if larger else best[c]


@kernel
def _maxpool_backward(first, last, dy, argmax, dx, R, S, u, v, top, left):
    H, W, C = dx.shape[1], dx.shape[2], dx.shape[3]
    P, Q = dy.shape[1], dy.shape[2]
    zero = dx.dtype.type(0)
    for line in range(first, last):
        n, h = line // H, line % H
        for w in range(W):
            pixel = dx[n, h, w]
            for c in range(C):
                pixel[c] = zero
            for r in range(R):
                p = (h + top - r) // u
                if (h + top - r) % u != 0 or p < 0 or p >= P:
                    continue
                for s in range(S):
                    q = (w + left - s) // v
                    if (w + left - s) % v != 0 or q < 0 or q >= Q:
                        continue
                    index, winner, gradient = np.uint8(r * S + s), argmax[n, p, q], dy[n, p, q]
                    for c in range(C):
                        pixel[c] += gradient[c] if winner[c] == index else zero


@kernel
def _avgpool(first, last, x, y, count_pad, R, S, u, v, top, left):
    H, W, C = x.shape[1], x.shape[2], x.shape[3]
    P, Q = y.shape[1], y.shape[2]
    one = y.dtype.type(1)
    for line in range(first, last):
        n, p = line // P, line % P
        r0, r1 = max(0, top - p * u), min(R, H + top - p * u)
        for q in range(Q):
            s0, s1 = max(0, left - q * v), min(S, W + left - q * v)
            total = y[n, p, q]
            for c in range(C):
                total[c] = 0
            for r in range(r0, r1):
                for s in range(s0, s1):
                    cell = x[n, p * u + r - top, q * v + s - left]
                    for c in range(C):
                        total[c] += cell[c]
            share = one / (R * S if count_pad else max(1, (r1 - r0) * (s1 - s0)))
            for c in range(C):
                total[c] *= share


@kernel
def _avgpool_backward(first, last, dy, dx, count_pad, R, S, u, v, top, left):
    H, W, C = dx.shape[1], dx.shape[2], dx.shape[3]
    P, Q = dy.shape[1], dy.shape[2]
    one = dx.dtype.type(1)
    for line in range(first, last):
        n, h = line // H, line % H
        for w in range(W):
            pixel = dx[n, h, w]
            for c in range(C):
                pixel[c] = 0
            for r in range(R):
                p = (h + top - r) // u
                if (h + top - r) % u != 0 or p < 0 or p >= P:
                    continue
                height = min(R, H + top - p * u) - max(0, top - p * u)
                for s in range(S):
                    q = (w + left - s) // v
                    if (w + left - s) % v != 0 or q < 0 or q >= Q:
                        continue
                    width = min(S, W + left - q * v) - max(0, left - q * v)
                    share, gradient = one / (R * S if count_pad else height * width), dy[n, p, q]
                    for c in range(C):
                        pixel[c] += gradient[c] * share


def _over_lines(function, over, *arrays_and_flags, kernel, stride, pads):
    """Run the Numba function over the lines (N*H) of the array `over`."""
    N, height, width, C = over.shape
    cost = width * C * kernel[0] * kernel[1]
    parallel_for(N * height, cost, function, *arrays_and_flags, *kernel, *stride, *pads[:2])


def maxpool_forward(x, y, argmax, *, kernel, stride, pads):
    """y (N, P, Q, C), argmax (uint8, like y; or None): r*S + s of the first largest cell of each window of x."""
    keep = argmax is not None
    _over_lines(_maxpool, y, x, y, argmax if keep else _NO_ARGMAX, keep, kernel=kernel, stride=stride, pads=pads)


def maxpool_backward(dy, argmax, dx, *, kernel, stride, pads):
    """dx (N, H, W, C), overwritten, from dy and argmax (N, P, Q, C)."""
    _over_lines(_maxpool_backward, dx, dy, argmax, dx, kernel=kernel, stride=stride, pads=pads)


def avgpool_forward(x, y, *, kernel, stride, pads, count_pad):
    """y (N, P, Q, C): the sum of each window of x over R*S (count_pad), or over its number of cells in the image."""
    _over_lines(_avgpool, y, x, y, count_pad, kernel=kernel, stride=stride, pads=pads)


def avgpool_backward(dy, dx, *, kernel, stride, pads, count_pad):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
    _over_lines(_avgpool_backward, dx, dy, dx, count_pad, kernel=kernel, stride=stride, pads=pads)
