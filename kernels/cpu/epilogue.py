"""The way back through bias and ReLU, in one pass over dy: mask a row, and add it to a running sum of its range.

The rows are cut into 4 ranges for each thread, each with its own row of sums; the sums are added in order at the end.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import kernel, rows
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, run, split, threads


@kernel
def _mask_and_sum(first, last, dy, y, masked, sums, summed):
    zero = dy.dtype.type(0)
    for m in range(first, last):
        if masked:
            for k in range(dy.shape[1]):
                dy[m, k] = dy[m, k] if y[m, k] > zero else zero
        if summed:
            for k in range(dy.shape[1]):
                sums[k] += dy[m, k]


def epilogue_backward(dy, db, *, y=None):
    """In place: dy (..., K) is masked by y > 0 where y is given; then db (K,) += its sum, unless db is None."""
    K = dy.shape[-1]
    dY = rows(dy, K)                                                           # (M, K)
    Y = dY if y is None else rows(y, K)
    parts = split(len(dY), min(threads() * RANGES_PER_THREAD, max(1, dy.size // 16384)))
    sums = np.zeros((len(parts), K), dy.dtype)
    masked, summed = y is not None, db is not None
    run([(*part, dY, Y, masked, row, summed) for part, row in zip(parts, sums, strict=True)], _mask_and_sum)
    if db is not None:
        db += sums.sum(axis=0)                                                 # (parts, K) -> (K,)
