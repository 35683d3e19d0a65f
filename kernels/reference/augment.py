"""Crop, mirror, mean and colour shift of a batch of photographs (AlexNet paper, sections 2 and 4.1), pixels to floats.

    y[n] = flipped(crop of images[n] - mean) + shift[n]

images (N, A, B, C) uint8 -> y (N, H, W, C). The paper subtracts the mean of each pixel from the 256 x 256 photograph,
so the mean image is cropped along with it: mean (A, B, C). The authors' code subtracts the same central part of it from
every finished crop: mean (H, W, C), in the frame of y. There is no backward: images are the input of the network.
"""

from __future__ import annotations

import numpy as np

LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4        # bits of `flip`


# Computed from y: pixel (p, q) of y is pixel (p', q') before the mirrors, p' = H-1-p or p, q' = W-1-q or q, and
# (q', p') before the transpose, which comes first; then the crop is at (top, left) of the photograph.
def augment_forward(images, y, *, mean, top, left, flip, shift):
    """y (N, H, W, C). mean (A, B, C) or (H, W, C); top, left int32 (N,); flip uint8 (N,), bits 1, 2, 4 = left-right,
    up-down, transpose first (needs H = W); shift (N, C) is added to every pixel of an image."""
    N, H, W, _ = y.shape
    p, q = np.arange(H).reshape(1, H, 1), np.arange(W).reshape(1, 1, W)
    bits, top, left = (a.reshape(N, 1, 1) for a in (flip, top, left))
    p, q = np.where(bits & UP_DOWN, H - 1 - p, p), np.where(bits & LEFT_RIGHT, W - 1 - q, q)    # (N, H, 1), (N, 1, W)
    rows, columns = top + np.where(bits & TRANSPOSE, q, p), left + np.where(bits & TRANSPOSE, p, q)      # (N, H, W)
    y[...] = images[np.arange(N).reshape(N, 1, 1), rows, columns]                                        # (N, H, W, C)
    y -= mean[rows, columns] if mean.shape == images.shape[1:] else mean
    y += shift[:, None, None, :]
