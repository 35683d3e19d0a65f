"""Where branches of the graph join or split: concatenation of channels, sum, and the sum of gradients at a fan-out.

    concat   y = [x0 | x1 | ...] along the channels       add   y = x0 + x1 + ...       accumulate   y += x
    subsample   y = [0 | every stride-th pixel of x | 0] along the channels
"""

from __future__ import annotations

import numpy as np


def concat_forward(xs, y):
    """y (..., C0+C1+...) from arrays (..., C0), (..., C1) ..."""
    np.concatenate(xs, axis=-1, out=y)


# Every value of y is a copy of one value of one x: the gradient is cut at the same channels.
def concat_backward(dy, dxs, *, widths):
    """dxs[i] (..., Ci) = its channels of dy, widths = (C0, C1 ...); entries of dxs may be None."""
    start = 0
    for dx, width in zip(dxs, widths, strict=True):
        if dx is not None:
            dx[...] = dy[..., start : start + width]
        start += width


def add_forward(xs, y):
    """y = x0 + x1 + ..., all of the same shape."""
    y[...] = sum(xs)


# dy/dxi = 1 for each summand.
def add_backward(dy, dxs):
    """dxs[i] = dy; entries may be None."""
    for dx in dxs:
        if dx is not None:
            dx[...] = dy


def subsample_forward(x, y, *, stride, first):
    """y (N, P, Q, K): every stride-th pixel of x (N, H, W, C) as channels first ... first+C-1, zeros around them."""
    C = x.shape[-1]
    y[...] = 0
    y[..., first : first + C] = x[:, :: stride[0], :: stride[1]]


# Every value of x is copied to one place of y, or to none: its gradient is the one of that place, or 0.
def subsample_backward(dy, dx, *, stride, first):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K)."""
    C = dx.shape[-1]
    dx[...] = 0
    dx[:, :: stride[0], :: stride[1]] = dy[..., first : first + C]


def accumulate(x, y):
    """y += x. A value that is used twice affects the loss through both uses, so its gradients add up."""
    y += x
