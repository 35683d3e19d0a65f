"""Launches of augment.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div


class Augment(Kind):
    """Crop, mirror and shift colours, from bytes to normalised pixels."""

    def augment_forward(self, images, y, *, mean, top, left, flip, shift):
        """y (N, H, W, C) from images (N, A, B, C) uint8; see kernels/reference/augment.py."""
        _, A, B, C = images.shape
        N, H, W, _ = y.shape
        self._gpu.launch("augment", "augment_forward", (N * H, ceil_div(W * C, THREADS)),
                         (images, y, mean, top, left, flip, shift, A, B, C, H, W, int(mean.shape == images.shape[1:])))
