"""Pooling: the largest, or the mean, of each window of each channel. x (N, H, W, C) -> y (N, P, Q, C).
Global pooling: the mean of each channel. x (N, H, W, C) -> y (N, C).
Adaptive pooling: the mean of P x Q windows that cover the image, whatever its size; they may differ by a pixel.

Windows may overlap (AlexNet paper, section 3.4: 3 x 3 cells every 2 pixels) and may reach into the padding, which
counts as -inf for the maximum. Max pooling saves the index r*S + s of the largest cell of each window; average pooling
saves nothing.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.reference.windows import pad, taps, unpad


def maxpool_forward(x, y, argmax, *, kernel, stride, pads):
    """y[n,p,q,c] = max over r, s of x[n, p*u+r-top, q*v+s-left, c]; argmax (uint8, like y; or None): r*S + s.

    Of equal cells the first in row-major order wins. R*S is at most 255.
    """
    padded = pad(x, pads, -np.inf)                                             # (N, top+H+bottom, left+W+right, C)
    y[...] = -np.inf
    if argmax is not None:
        argmax[...] = 0
    for index, (rows, columns) in enumerate(taps(kernel, stride, y.shape[1:3])):
        cell = padded[:, rows, columns]                                        # (N, P, Q, C)
        if argmax is not None:
            argmax[cell > y] = index
        np.maximum(y, cell, out=y)


# y[o] = x[j(o)], with j(o) the largest pixel of window o, so dy[o]/dx[i] = [j(o) = i]: the whole gradient goes to that
# pixel. If it is the largest of several overlapping windows, it gets the sum: dx[i] = sum of dy[o] over j(o) = i.
def maxpool_backward(dy, argmax, dx, *, kernel, stride, pads):
    """dx (N, H, W, C), overwritten, from dy and argmax (N, P, Q, C)."""
    padded = pad(np.zeros_like(dx), pads)                                      # (N, top+H+bottom, left+W+right, C)
    for index, (rows, columns) in enumerate(taps(kernel, stride, dy.shape[1:3])):
        padded[:, rows, columns] += dy * (argmax == index)
    dx[...] = unpad(padded, pads)                                              # (N, H, W, C)


def _divisor(image_size, out_size, kernel, stride, pads, counted, dtype):
    """What the sum of a window is divided by: its cells inside the image or the border `counted` of it. (P, Q, 1)."""
    counts = pad(np.ones((1, *image_size, 1), dtype), counted, 1.0)
    counts = pad(counts, tuple(outer - inner for outer, inner in zip(pads, counted, strict=True)))
    return sum(counts[0, rows, columns] for rows, columns in taps(kernel, stride, out_size))


def avgpool_forward(x, y, *, kernel, stride, pads, counted):
    """y[n,p,q,c] = sum of the window / d[p,q], padding adding 0.

    d: how many cells of the window lie in the image or in the border `counted` (top, left, bottom, right) around it,
    which is at most `pads`.
    """
    padded = pad(x, pads)                                                      # (N, top+H+bottom, left+W+right, C)
    y[...] = 0
    for rows, columns in taps(kernel, stride, y.shape[1:3]):
        y += padded[:, rows, columns]                                          # (N, P, Q, C)
    y /= _divisor(x.shape[1:3], y.shape[1:3], kernel, stride, pads, counted, x.dtype)


# y[o] = sum over i in window o of x[i] / d[o], so dy[o]/dx[i] = 1/d[o], and dx[i] = sum of dy[o]/d[o] over the windows
# o that contain i.
def avgpool_backward(dy, dx, *, kernel, stride, pads, counted):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
    share = dy / _divisor(dx.shape[1:3], dy.shape[1:3], kernel, stride, pads, counted, dy.dtype)
    padded = pad(np.zeros_like(dx), pads)                                      # (N, top+H+bottom, left+W+right, C)
    for rows, columns in taps(kernel, stride, dy.shape[1:3]):
        padded[:, rows, columns] += share
    dx[...] = unpad(padded, pads)                                              # (N, H, W, C)


def global_avgpool_forward(x, y):
    """y[n,c] = mean over h, w of x[n,h,w,c]."""
    np.mean(x, axis=(1, 2), out=y)


# y[n,c] = sum over h, w of x[n,h,w,c] / (H*W), so dy[n,c]/dx[n,h,w,c] = 1 / (H*W) for every pixel.
def global_avgpool_backward(dy, dx):
    """dx (N, H, W, C), overwritten, from dy (N, C): dy / (H*W) at every pixel."""
    dx[...] = dy[:, None, None] / (dx.shape[1] * dx.shape[2])


def _adaptive_windows(x_shape, y_shape):
    """(p, q, rows, columns) of each window of adaptive pooling: rows floor(p H / P) ... ceil((p+1) H / P) - 1."""
    (_, H, W, _), (_, P, Q, _) = x_shape, y_shape
    for p in range(P):
        for q in range(Q):
            yield p, q, slice(p * H // P, -(-(p + 1) * H // P)), slice(q * W // Q, -(-(q + 1) * W // Q))


def adaptive_avgpool_forward(x, y):
    """y[n,p,q,c] = mean of x[n,h,w,c] over rows floor(p H / P) <= h < ceil((p+1) H / P), and columns likewise."""
    for p, q, rows, columns in _adaptive_windows(x.shape, y.shape):
        y[:, p, q] = x[:, rows, columns].mean(axis=(1, 2))                     # (N, C)


# As for average pooling: dy[o]/dx[i] = 1 / (pixels of window o), for each window o that contains pixel i.
def adaptive_avgpool_backward(dy, dx):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
    dx[...] = 0
    for p, q, rows, columns in _adaptive_windows(dx.shape, dy.shape):
        window = dx[:, rows, columns]                                          # a view
        window += dy[:, p : p + 1, q : q + 1] / (window.shape[1] * window.shape[2])
