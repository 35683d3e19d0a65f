"""Crop, mirrors, mean and colour shift in one pass from uint8 pixels to floats, line by line of the output.

    photograph   . . [ a line of the crop: contiguous bytes ] . .     (a column of it, where axes are swapped)
                              |
    cells            [ the same as floats, minus the mean   ]         in the L1 cache
                              |  in reverse where it is mirrored
    y                [ plus the shift                       ]

The loops over contiguous elements become vector instructions; a loop over the crop pixel by pixel took five times as
long.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.stored import real, stored
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.kernels.cpu.vectors import LANES, fetch_to_write

LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4        # bits of `flip`


@kernel
def _augment(first, last, images, y, mean, of_photograph, top, left, flip, shift):
    """Lines first..last of y, counted through all images."""
    H, W, C = y.shape[1], y.shape[2], y.shape[3]
    cells, turned, shifts = np.empty(W * C, real(y)), np.empty(W * C, real(y)), np.empty(W * C, real(y))
    for line in range(first, last):
        n, p = line // H, line % H
        if line == first or p == 0:
            for q in range(W):
                for c in range(C):
                    shifts[q * C + c] = shift[n, c]
        i = H - 1 - p if flip[n] & UP_DOWN else p
        if flip[n] & TRANSPOSE:
            for q in range(W):
                for c in range(C):
                    value = real(y).type(images[n, top[n] + q, left[n] + i, c])
                    cells[q * C + c] = value - mean[top[n] + q, left[n] + i, c] if of_photograph else value
        else:
            pixels, start = images[n, top[n] + i].reshape(-1), left[n] * C
            if of_photograph:
                means = mean[top[n] + i].reshape(-1)
                for k in range(W * C):
                    cells[k] = pixels[index(start + k)] - means[index(start + k)]
            else:
                for k in range(W * C):
                    cells[k] = pixels[index(start + k)]
        to, line_of = y[n, p].reshape(-1), turned if flip[n] & LEFT_RIGHT else cells
        for k in range(0, W * C, LANES):
            fetch_to_write(to, W * C + k)                                      # the next line
        if flip[n] & LEFT_RIGHT and C == 3:                                    # unrolled: vectorises
            for q in range(W):
                here, there = index(3 * q), index(3 * (W - 1 - q))
                turned[here] = cells[there]
                turned[here + index(1)] = cells[there + index(1)]
                turned[here + index(2)] = cells[there + index(2)]
        elif flip[n] & LEFT_RIGHT:
            for q in range(W):
                for c in range(C):
                    turned[q * C + c] = cells[(W - 1 - q) * C + c]
        if of_photograph:
            for k in range(W * C):
                to[k] = stored(line_of[k] + shifts[k], to)
        else:
            means = mean[p].reshape(-1)
            for k in range(W * C):
                to[k] = stored(line_of[k] - means[k] + shifts[k], to)


def augment_forward(images, y, *, mean, top, left, flip, shift):
    """y (N, H, W, C). mean (A, B, C) or (H, W, C); top, left int32 (N,); flip uint8 (N,), bits 1, 2, 4 = left-right,
    up-down, transpose first (needs H = W); shift (N, C) is added to every pixel of an image."""
    N, H, W, C = y.shape
    parallel_for(N * H, W * C * 2, _augment, np.ascontiguousarray(images), y, np.ascontiguousarray(mean, real(y)),
                 mean.shape == images.shape[1:], top, left, flip, np.asarray(shift, real(y)))
