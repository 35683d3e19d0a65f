"""Dropout with its random numbers drawn in place: one pass, no mask in memory.

The work is cut into blocks of four units, which share one call of the generator; every unit's number depends on its
place alone (kernels/cpu/philox.py), so the cut does not matter and the backward draws the same numbers again.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import flat, kernel, rows
from minicnn.kernels.cpu.philox import philox4x32, uniform
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.rng import key_words


@kernel
def _dropout(first, last, x, y, rate, scale, k0, k1, purpose, epoch, sample_ids):
    units = x.shape[1]
    per_sample = (units + 3) // 4
    zero = y.dtype.type(0)
    for i in range(first, last):
        n, block = i // per_sample, i % per_sample
        words = philox4x32(np.uint64(sample_ids[n]), np.uint64(block), epoch, purpose, k0, k1)
        for lane in range(min(4, units - 4 * block)):
            unit = 4 * block + lane
            y[n, unit] = x[n, unit] * scale if uniform(words[lane]) >= rate else zero


@kernel
def _scale(first, last, x, y, factor):
    x, y = x[first:last], y[first:last]
    for i in range(x.size):
        y[i] = x[i] * factor


def dropout_forward(x, y, *, rate, scale, seed, purpose, epoch, sample_ids):
    """y = x * scale where u >= rate, else 0; u uniform for each unit, sample_ids uint32 (N,). y may be x."""
    X, Y = rows(x, x[0].size), rows(y, x[0].size)                              # (N, units)
    k0, k1 = key_words(seed)
    parallel_for(len(X) * -(-X.shape[1] // 4), 64, _dropout, X, Y, np.float32(rate), x.dtype.type(scale), np.uint64(k0),
                 np.uint64(k1), np.uint64(purpose), np.uint64(epoch), np.asarray(sample_ids, np.uint32))


def dropout_backward(dy, dx, *, rate, scale, seed, purpose, epoch, sample_ids):
    """dx = dy * the same mask. dx may be dy."""
    dropout_forward(dy, dx, rate=rate, scale=scale, seed=seed, purpose=purpose, epoch=epoch, sample_ids=sample_ids)


def scale_forward(x, y, *, factor):
    """y = x * factor. It is its own backward. y may be x."""
    parallel_for(x.size, 1, _scale, flat(x), flat(y), x.dtype.type(factor))
