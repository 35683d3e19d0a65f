"""Concatenation of channels, sums, and the sum of gradients at a fan-out: copies, cut into ranges of rows."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.elementwise import elementwise
from minicnn.kernels.cpu.memory import rows
from minicnn.kernels.cpu.stored import stored, wide
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.kernels.cpu.vectors import LANES, load, part, store


@kernel
def _copy(first, last, x, x0, y, y0, width):
    """y[m, y0 : y0+width] = x[m, x0 : x0+width]."""
    for m in range(first, last):
        for c in range(width):
            y[m, index(y0 + c)] = x[m, index(x0 + c)]


@part
def _sum(a, b, y, i, count):
    store(y, i, count, load(a, i, count) + load(b, i, count))


@kernel
def _add(a, b, y):
    """Vectors are explicit, because y may be a: see activation.py."""
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _sum(a, b, y, i, LANES)
    if whole < y.size:
        _sum(a, b, y, whole, y.size - whole)


@kernel
def _convert(x, y):
    for i in range(y.size):
        y[i] = stored(wide(x[i]), y)


@kernel
def _subsample(first, last, x, y, u, v, channel):
    """Lines first..last of y (N, P, Q, K): every v-th pixel of every u-th line of x (N, H, W, C), between zeros."""
    _, P, Q, K = y.shape
    C, zero = x.shape[3], y.dtype.type(0)
    for line in range(first, last):
        n, p = line // P, line % P
        for q in range(Q):
            for k in range(channel):
                y[n, p, q, k] = zero
            for c in range(C):
                y[n, p, q, index(channel + c)] = x[n, index(u * p), index(v * q), c]
            for k in range(channel + C, K):
                y[n, p, q, k] = zero


@kernel
def _subsample_backward(first, last, dy, dx, u, v, channel):
    """Lines first..last of dx (N, H, W, C) from dy (N, P, Q, K)."""
    _, H, W, C = dx.shape
    zero = dx.dtype.type(0)
    for line in range(first, last):
        n, h = line // H, line % H
        for w in range(W):
            if h % u == 0 and w % v == 0:
                for c in range(C):
                    dx[n, h, w, c] = dy[n, h // u, w // v, index(channel + c)]
            else:
                for c in range(C):
                    dx[n, h, w, c] = zero


def concat_forward(xs, y):
    """y (..., C0+C1+...) from arrays (..., C0), (..., C1) ..."""
    Y, start = rows(y, y.shape[-1]), 0
    for x in xs:
        width = x.shape[-1]
        parallel_for(len(Y), width, _copy, rows(x, width), 0, Y, start, width)
        start += width


def concat_backward(dy, dxs, *, widths):
    """dxs[i] (..., Ci) = its channels of dy, widths = (C0, C1 ...); entries of dxs may be None."""
    dY, start = rows(dy, dy.shape[-1]), 0
    for dx, width in zip(dxs, widths, strict=True):
        if dx is not None:
            parallel_for(len(dY), width, _copy, dY, start, rows(dx, width), 0, width)
        start += width


def add_forward(xs, y):
    """y = x0 + x1 + ..., all of the same shape."""
    if len(xs) == 1:
        return concat_forward(xs, y)
    elementwise(_add, xs[0], xs[1], y)
    for x in xs[2:]:
        elementwise(_add, y, x, y)


def add_backward(dy, dxs):
    """dxs[i] = dy; entries may be None."""
    for dx in dxs:
        if dx is not None:
            concat_forward([dy], dx)


def subsample_forward(x, y, *, stride, first):
    """y (N, P, Q, K): every stride-th pixel of x (N, H, W, C) as channels first ... first+C-1, zeros around them."""
    N, P, Q, K = y.shape
    parallel_for(N * P, Q * K, _subsample, x, y, *stride, first)


def subsample_backward(dy, dx, *, stride, first):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K)."""
    N, H, W, C = dx.shape
    parallel_for(N * H, W * C, _subsample_backward, dy, dx, *stride, first)


def accumulate(x, y):
    """y += x."""
    elementwise(_add, y, x, y)


def convert(x, y):
    """y = x, one of float32, the other of bf16."""
    elementwise(_convert, x, y)
