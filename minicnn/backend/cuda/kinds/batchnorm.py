"""Launches of batchnorm.cu."""

from __future__ import annotations

import numpy as np

from minicnn.backend.cuda.kinds.epilogue import CHUNKS
from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div, vector
from minicnn.backend.ops import address


class BatchNorm(Kind):
    """Batch normalisation, and a scale and shift for each channel."""

    def _over_rows(self, x, *others) -> tuple[tuple, tuple, tuple]:
        """(grid, block, the kernel's last arguments): a thread for 16 bytes of a row of all these arrays."""
        C = x.shape[-1]
        rows, packs = x.size // C, self._gpu.packs(C, x, *others)
        columns = C // vector(x) if packs else C
        wide = min(32, columns)
        tall, across = THREADS // wide, ceil_div(columns, wide)
        chunk = max(4 * tall, ceil_div(rows, max(1, CHUNKS // across)))
        return (across, ceil_div(rows, chunk)), (wide, tall), (rows, C, chunk, packs)

    def batchnorm_statistics(self, x, mean, var):
        """mean and var (float64, (C,)): of each channel of x (..., C); var is divided by their number."""
        grid, block, (rows, C, chunk, packs) = self._over_rows(x)
        means, squares = self._gpu.scratch([(grid[1], C)] * 2, np.float64)
        self._gpu.launch("batchnorm", "batchnorm_chunks", grid, (x, means, squares, rows, C, chunk, packs), block=block)
        self._gpu.launch("batchnorm", "batchnorm_merge", ceil_div(C, 32), (means, squares, mean, var, rows, C, chunk),
                         block=(32, 32))

    def batchnorm_fixed_statistics(self, running_mean, running_var, mean, var):
        """mean and var (float64): the running ones."""
        self._gpu.launch("batchnorm", "batchnorm_fixed", ceil_div(mean.size, THREADS),
                         (running_mean, running_var, mean, var, mean.size))

    def batchnorm_update_statistics(self, mean, var, running_mean, running_var, *, momentum, count):
        """running += momentum * (batch - running), the batch's variance as that of count - 1 degrees of freedom."""
        self._gpu.launch("batchnorm", "batchnorm_update", ceil_div(mean.size, THREADS),
                         (mean, var, running_mean, running_var, mean.size, momentum, count / (count - 1)))

    def affine_forward(self, x, w, b, y, *, mean=None, var=None, eps=0.0, residual=None, relu=False):
        """y = w * (x - mean) / sqrt(var + eps) + b + residual, then max(y, 0) if relu. b, residual: None for 0."""
        grid, block, sizes = self._over_rows(x, y, residual)
        self._gpu.launch("batchnorm", "affine_forward", grid, (x, w, b, mean, var, residual, y, eps, int(relu), *sizes),
                         block=block)

    def affine_backward_weights(self, x, dy, w, b, dw, db, dz, sums, *, mean=None, var=None, eps=0.0, y=None,
                                relu=False, add=(True, True)):
        """dw, db += their sums (or =); also dz, dy masked by the ReLU, and its sums, where these are given."""
        if dz is not None and not relu and address(dz) == address(dy):
            dz = None
        grid, block, sizes = self._over_rows(x, dy, y, dz)
        chunks, C = grid[1], x.shape[-1]
        (partial,) = self._gpu.scratch([(chunks, 2, C)], np.float64)
        self._gpu.launch("batchnorm", "affine_sums", grid,
                         (x, dy, y, dz, partial, w, b, mean, var, eps, int(relu), *sizes), block=block)
        self._gpu.launch("batchnorm", "affine_add_sums", ceil_div(C, 32),
                         (partial, mean, var, sums, dw, db, eps, chunks, C, *map(int, add)), block=(32, 32))

    def affine_backward_data(self, x, dy, w, b, dx, *, mean=None, var=None, eps=0.0, relu=False, sums=None, count=1):
        """dx, overwritten; may be dy. sums: of `affine_backward_weights`; None if mean and var do not depend on x."""
        grid, block, sizes = self._over_rows(x, dy, dx)
        self._gpu.launch("batchnorm", "affine_backward_data", grid,
                         (x, dy, dx, w, b, mean, var, sums, eps, count, int(relu), *sizes), block=block)
