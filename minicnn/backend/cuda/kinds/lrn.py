"""Launches of lrn.cu."""

from __future__ import annotations

import numpy as np

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div


class Lrn(Kind):
    """Local response normalisation, across channels and within a map."""

    def _lrn_across(self, kernel: str, arrays: tuple, tiles: int, margins: int, n, k, alpha, beta, groups) -> None:
        x, tile = arrays[0], 1024                                   # TILE of lrn.cu
        D = x.shape[-1] // groups
        half = min(n // 2, D - 1)
        if x.dtype == np.float32 and 1 <= half <= 4 and self._gpu.packs(D, *arrays):
            halo = 1 if half <= 2 or kernel == "lrn_forward" else 2
            self._gpu.launch("lrn", f"{kernel}_packs", ceil_div(x.size // 4, THREADS // 32 * (32 - 2 * halo)),
                             (*arrays, x.size // 4, D // 4, half, k, alpha, beta))
            return
        self._gpu.launch("lrn", kernel, ceil_div(x.size, tile), (*arrays, x.size, D, half, k, alpha, beta),
                         shared=(tiles * tile + margins * half) * x.dtype.itemsize)

    def lrn_forward(self, x, y, *, n, k, alpha, beta, groups=1):
        """y (N, H, W, C) from x, normalised over n channels inside each of `groups` parts of the C channels."""
        self._lrn_across("lrn_forward", (x, y), 1, 2, n, k, alpha, beta, groups)

    def lrn_backward(self, x, dy, dx, *, n, k, alpha, beta, groups=1):
        """dx (N, H, W, C), overwritten; dx must not be dy."""
        self._lrn_across("lrn_backward", (x, dy, dx), 3, 6, n, k, alpha, beta, groups)

    def lrn_within_forward(self, x, y, *, n, k, alpha, beta):
        """y (N, H, W, C) from x, normalised over n x n pixels of the same map."""
        _, H, W, C = x.shape
        self._gpu.launch("lrn", "lrn_within_forward", ceil_div(x.size, THREADS),
                         (x, y, H, W, C, x.size, n // 2, k, alpha, beta))

    def lrn_within_backward(self, x, dy, dx, *, n, k, alpha, beta):
        """dx (N, H, W, C), overwritten; dx must not be dy."""
        (_, H, W, C), blocks = x.shape, ceil_div(x.size, THREADS)
        (cross,) = self._gpu.scratch([x.shape], x.dtype)
        self._gpu.launch("lrn", "lrn_within_terms", blocks, (x, dy, dx, cross, H, W, C, x.size, n // 2, k, alpha, beta))
        self._gpu.launch("lrn", "lrn_within_backward", blocks, (x, cross, dx, H, W, C, x.size, n // 2, alpha, beta))
