"""What convolution and pooling share: padding, and the cells (taps) of a sliding window.

A window of R x S cells moves by (u, v) over the padded map. Output pixel (p, q) sees the padded pixels
(p*u + r, q*v + s). Equivalently: tap (r, s) of *all* windows together is one strided slice of the padded map, of shape
(P, Q). So every loop of the reference runs over the R*S taps, and NumPy runs over images, pixels and channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minicnn.shapes import Pads, Pair


def pad(x: np.ndarray, pads: Pads, value: float = 0.0) -> np.ndarray:
    """A copy of x (N, H, W, C) with a border of `value`: (N, top+H+bottom, left+W+right, C)."""
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def unpad(padded: np.ndarray, pads: Pads) -> np.ndarray:
    """The view of a padded map without its border: the transpose of padding with zeros."""
    top, left, bottom, right = pads
    return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]


def taps(kernel: Pair, stride: Pair, out_size: Pair) -> Iterator[tuple[slice, slice]]:
    """For each tap (r, s), row by row: the rows and columns of the padded map that the P x Q windows read there."""
    (R, S), (u, v), (P, Q) = kernel, stride, out_size
    for r in range(R):
        for s in range(S):
            yield slice(r, r + u * (P - 1) + 1, u), slice(s, s + v * (Q - 1) + 1, v)


def scratch(work: np.ndarray | None, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised array in the first bytes of `work` (uint8), or a new one where work is None."""
    if work is None:
        return np.empty(shape, dtype)
    return work[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
