"""Backward pass of the epilogue, bias and ReLU, in one pass over dy: mask a row, and add it to the sum of its range.

    rows of dy and y     range 0 | range 1 | range 2 | ...       4 ranges for each thread, taken by any that is free
                            |         |         |
    sums (range, K)       sum 0     sum 1     sum 2              added in this order at the end
                            +---------+---------+--> db

A row is masked and added while it is in the L1 cache. The sums are in memory that each calling thread keeps.
"""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import Kept, rows
from minicnn.kernels.cpu.stored import real, stored, wide
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, run, split, threads

_kept = Kept()


@kernel
def _mask_and_sum(first, last, dy, y, masked, sums, summed):
    zero = real(dy).type(0)
    if summed:
        for k in range(sums.size):
            sums[k] = zero
    for m in range(first, last):
        if masked:
            for k in range(dy.shape[1]):
                gradient = wide(dy[m, k])                                      # read in any case: no branch
                dy[m, k] = stored(gradient if wide(y[m, k]) > zero else zero, dy)
        if summed:
            for k in range(dy.shape[1]):
                sums[k] += wide(dy[m, k])


@kernel
def _add(db, sums, add):
    if not add:
        for k in range(db.size):
            db[k] = 0
    for part in range(len(sums)):
        for k in range(db.size):
            db[k] += sums[part, k]


def epilogue_backward(dy, db, *, y=None, add=True):
    """In place: dy (..., K) is masked by y > 0 where y is given; then db (K,) += its sum, unless db is None.

    Without `add`, db = that sum, whatever it held.
    """
    K = dy.shape[-1]
    dY = rows(dy, K)                                                           # (M, K)
    Y = dY if y is None else rows(y, K)
    parts = split(len(dY), min(threads() * RANGES_PER_THREAD, max(1, dy.size // 16384)))
    (sums,) = _kept.arrays([((len(parts), K), real(dy))])
    masked, summed = y is not None, db is not None
    run([(*part, dY, Y, masked, row, summed) for part, row in zip(parts, sums, strict=True)], _mask_and_sum)
    if db is not None:
        _add(db, sums, add)
