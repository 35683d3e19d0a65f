"""A box cut out of each photograph, resized with antialiasing, mirrored, minus the mean, plus a colour shift.

    y[n] = flipped(resized(box of images[n]) - mean) + shift[n]

The photographs have sizes of their own: one after the other in `images`, uint8, image n is (heights[n], widths[n], C)
from offsets[n] on. A box is a rectangle of real numbers in pixels, (top, left) its corner, pixel x covering x to x + 1.

The filter is the triangle of Pillow's BILINEAR. With scale = extent of the box / outputs, output i has its centre at

    c = start + (i + 1/2) * scale        and gives pixel x the weight   max(0, 1 - |x + 1/2 - c| / max(scale, 1))

so that in shrinking it reaches over several pixels; weights are divided by their sum. Pixels beyond the box are read,
and beyond the image as `border` says:

    "inside"     left out, and the sum is that of the others: Pillow's resize(box=...), without its rounding in between
    "zero"       0 after the mean is subtracted, as an image that is padded once the mean has been subtracted
    "reflect"    the image continues mirrored, without repeating its edge

A box of whole numbers as large as y is a plain crop, exactly. There is no backward: images are the network's input.
"""

from __future__ import annotations

import numpy as np

LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4        # bits of `flip`
BORDERS = ("inside", "zero", "reflect")


def taps(pixels, start, extent, outputs, border="inside"):
    """Weights (outputs, pixels) of one axis: `outputs` samples of the part from `start` on that is `extent` long."""
    scale = extent / outputs
    support = max(scale, 1.0)
    centre = (start + (np.arange(outputs) + 0.5) * scale)[:, None]                          # (outputs, 1)
    x = np.arange(int(np.floor(centre[0, 0] - support)), int(np.ceil(centre[-1, 0] + support)) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(x + 0.5 - centre) / support)                     # (outputs, X)
    there = (x >= 0) & (x < pixels)
    if border == "inside":
        weights *= there
    weights /= weights.sum(axis=1, keepdims=True)
    if border == "reflect":
        x = np.where(x < 0, -x, np.where(x >= pixels, 2 * (pixels - 1) - x, x))
    elif border == "zero":
        weights *= there
    matrix = np.zeros((pixels, outputs))
    np.add.at(matrix, x.clip(0, pixels - 1), weights.T)
    return matrix.T


# Output pixel (p, q) is pixel (p', q') before the mirrors, and the transpose comes before them: as in augment.py.
def resize_crop_forward(images, y, *, offsets, heights, widths, mean, top, left, height, width, flip, shift,
                        border="inside", mean_of_image=False):
    """y (N, H, W, C). images uint8 (bytes,); offsets, heights, widths int32 (N,); top, left, height, width float64
    (N,), the boxes: inside the images unless `border` is another; flip uint8 (N,), bits 1, 2, 4 = left-right, up-down,
    transpose first (needs H = W); shift (N, C). mean (H, W, C) is in the frame of y, or, if mean_of_image, that of
    the images, which then all have its size."""
    H, W, C = y.shape[1:]
    for n in range(len(y)):
        A, B = int(heights[n]), int(widths[n])
        image = images[offsets[n]:offsets[n] + A * B * C].reshape(A, B, C).astype(y.dtype)
        if mean_of_image:
            image -= mean
        rows, columns = taps(A, top[n], height[n], H, border), taps(B, left[n], width[n], W, border)
        crop = np.einsum("iy,yxc,jx->ijc", rows, image, columns, optimize=True)              # (H, W, C)
        crop = crop.swapaxes(0, 1) if flip[n] & TRANSPOSE else crop
        crop = crop[::-1] if flip[n] & UP_DOWN else crop
        y[n] = crop[:, ::-1] if flip[n] & LEFT_RIGHT else crop
        y[n] += shift[n] if mean_of_image else shift[n] - mean


def cutout_forward(y, *, top, left, height, width):
    """y (N, H, W, C) = 0 in a rectangle of each image: rows top to top + height, of it what is inside; int32 (N,)."""
    for image, first, start, rows, columns in zip(y, top, left, height, width, strict=True):
        image[max(first, 0):max(first + rows, 0), max(start, 0):max(start + columns, 0)] = 0
