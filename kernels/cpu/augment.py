"""Crop, mirrors, mean and colour shift in one pass from uint8 pixels to floats, line by line of the output."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import kernel
from minicnn.kernels.cpu.threads import parallel_for

LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4        # bits of `flip`


@kernel
def _augment(first, last, images, y, mean, of_photograph, top, left, flip, shift):
    H, W, C = y.shape[1], y.shape[2], y.shape[3]
    for line in range(first, last):
        n, p = line // H, line % H
        i = H - 1 - p if flip[n] & UP_DOWN else p
        for q in range(W):
            j = W - 1 - q if flip[n] & LEFT_RIGHT else q
            a, b = (top[n] + j, left[n] + i) if flip[n] & TRANSPOSE else (top[n] + i, left[n] + j)
            m0, m1 = (a, b) if of_photograph else (p, q)
            for c in range(C):
                y[n, p, q, c] = images[n, a, b, c] - mean[m0, m1, c] + shift[n, c]


def augment_forward(images, y, *, mean, top, left, flip, shift):
    """y (N, H, W, C). mean (A, B, C) or (H, W, C); top, left int32 (N,); flip uint8 (N,), bits 1, 2, 4 = left-right,
    up-down, transpose first (needs H = W); shift (N, C) is added to every pixel of an image."""
    N, H, W, C = y.shape
    parallel_for(N * H, W * C * 2, _augment, images, y, np.asarray(mean, y.dtype), mean.shape == images.shape[1:],
                 top, left, flip, np.asarray(shift, y.dtype))
