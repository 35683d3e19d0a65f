"""Launches of combine.cu: concatenation, sums and subsampling."""

from __future__ import annotations

import numpy as np

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.source import BF16


class Combine(Kind):
    """Concatenation, sums, subsampling and copies."""

    def concat_forward(self, xs, y):
        """y (..., C0+C1+...) from arrays (..., C0), (..., C1) ..."""
        start, total = 0, y.shape[-1]
        for x in xs:
            width = x.shape[-1]
            self._gpu.each("combine", "copy_channels", x.size, x, y, x.size // width, width, width, 0, total, start)
            start += width

    def concat_backward(self, dy, dxs, *, widths):
        """dxs[i] = its channels of dy; entries of dxs may be None."""
        start, total = 0, dy.shape[-1]
        for dx, width in zip(dxs, widths, strict=True):
            if dx is not None:
                self._gpu.each("combine", "copy_channels", dx.size, dy, dx, dx.size // width, width, total, start,
                               width, 0)
            start += width

    def _copy(self, x, y) -> None:
        self._gpu.each("combine", "copy_channels", x.size, x, y, 1, x.size, x.size, 0, x.size, 0)

    def add_forward(self, xs, y):
        """y = x0 + x1 + ..., all of the same shape."""
        if len(xs) == 1:
            self._copy(xs[0], y)
            return
        self._gpu.each("combine", "add", y.size, xs[0], xs[1], y, y.size)
        for x in xs[2:]:
            self.accumulate(x, y)

    def add_backward(self, dy, dxs):
        """dxs[i] = dy; entries may be None."""
        for dx in dxs:
            if dx is not None:
                self._copy(dy, dx)

    def subsample_forward(self, x, y, *, stride, first):
        """y (N, P, Q, K): every stride-th pixel of x (N, H, W, C) as channels first ... first+C-1, zeros beside."""
        (_, H, W, C), (_, P, Q, K) = x.shape, y.shape
        self._gpu.each("combine", "subsample_forward", y.size, x, y, y.size, K, Q, P, H, W, C, *stride, first)

    def subsample_backward(self, dy, dx, *, stride, first):
        """dx (N, H, W, C), overwritten, from dy (N, P, Q, K)."""
        (_, H, W, C), (_, P, Q, K) = dx.shape, dy.shape
        self._gpu.each("combine", "subsample_backward", dx.size, dy, dx, dx.size, C, W, H, P, Q, K, *stride, first)

    def accumulate(self, x, y):
        """y += x."""
        self._gpu.each("combine", "add", y.size, y, x, y, y.size)

    # ---- activations that are stored in bf16
    def stored_dtype(self, dtype):
        """bf16 where that is what the products read: see Ops."""
        return str(BF16) if self.products == "Bf16" and np.dtype(dtype) == np.float32 else dtype

    def widened(self, array):
        """See Ops; of bf16, a new array of float32."""
        if array.dtype != BF16:
            return array
        wide = self.empty(array.shape, "float32")
        self._gpu.each("combine", "widen", array.size, array, wide, array.size)
        return wide

    def write(self, target, values):
        """See Ops."""
        if target.dtype == BF16 and values.dtype != BF16:
            self._gpu.each("combine", "narrow", target.size, self.from_host(values), target, target.size)
        else:
            target[...] = values
