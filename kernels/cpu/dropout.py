"""Dropout with its random numbers drawn in place: one pass, no mask in memory.

A sample's units are cut into chunks of 256. The generator makes four words in a call, so 64 calls fill a chunk; all of
them run on counters that differ by one, which becomes vector instructions. The words stay in the L1 cache until the
chunk's units have been multiplied or set to zero:

    calls     0           1           2     ...     counters (sample, call), (sample, call + 1), ...
    words   0 1 2 3 | 4 5 6 7 | 8 9 10 11 | ...     1 KB
    units   0 1 2 3   4 5 6 7   8 9 10 11   ...     x -> y

A unit's random number depends on its index alone (philox.py), so chunks do not matter and the backward draws the same.
"""

from __future__ import annotations

import math

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.elementwise import elementwise
from minicnn.kernels.cpu.memory import rows
from minicnn.kernels.cpu.philox import philox4x32
from minicnn.kernels.cpu.stored import real, stored, wide
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.kernels.cpu.vectors import LANES, like, load, part, store
from minicnn.rng import key_words

CALLS = 64                       # of the generator, for a chunk


@kernel
def _dropout(first, last, x, y, least, scale, k0, k1, purpose, epoch, sample_ids):
    """Chunks first..last, counted through all samples. A unit stays where its word's upper 24 bits are >= least."""
    units, zero = x.shape[1], real(y).type(0)
    chunks = (units + 4 * CALLS - 1) // (4 * CALLS)
    words, values = np.empty(4 * CALLS, np.uint32), np.empty(4 * CALLS, real(x))
    for i in range(first, last):
        n, start = i // chunks, i % chunks * CALLS
        sample = np.uint64(sample_ids[n])
        for call in range(CALLS):
            word0, word1, word2, word3 = philox4x32(sample, np.uint64(start) + np.uint64(call), epoch, purpose, k0, k1)
            words[4 * call], words[4 * call + 1], words[4 * call + 2], words[4 * call + 3] = word0, word1, word2, word3
        for u in range(min(4 * CALLS, units - 4 * start)):                     # y may be x: two loops, for vectors
            values[u] = wide(x[n, index(4 * start + u)]) * scale
        for u in range(min(4 * CALLS, units - 4 * start)):
            y[n, index(4 * start + u)] = stored(values[u] if words[u] >> np.uint32(8) >= least else zero, y)


@part
def _product(x, y, factor, i, count):
    v = load(x, i, count)
    store(y, i, count, v * like(v, factor))


@kernel
def _scale(x, y, factor):
    """Vectors are explicit, because y may be x: see activation.py."""
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _product(x, y, factor, i, LANES)
    if whole < y.size:
        _product(x, y, factor, whole, y.size - whole)


def dropout_forward(x, y, *, rate, scale, seed, purpose, epoch, sample_ids):
    """y = x * scale where u >= rate, else 0; u uniform for each unit, sample_ids uint32 (N,). y may be x."""
    X, Y = rows(x, x[0].size), rows(y, x[0].size)                              # (N, units)
    k0, k1 = map(np.uint64, key_words(seed))
    least = np.uint32(math.ceil(float(np.float32(rate)) * 2**24))              # u >= rate, u a multiple of 2**-24
    parallel_for(len(X) * -(-X.shape[1] // (4 * CALLS)), 16 * CALLS, _dropout, X, Y, least, real(x).type(scale), k0, k1,
                 np.uint64(purpose), np.uint64(epoch), np.asarray(sample_ids, np.uint32))


def dropout_backward(dy, dx, *, rate, scale, seed, purpose, epoch, sample_ids):
    """dx = dy * the same mask. dx may be dy."""
    dropout_forward(dy, dx, rate=rate, scale=scale, seed=seed, purpose=purpose, epoch=epoch, sample_ids=sample_ids)


def scale_forward(x, y, *, factor):
    """y = x * factor. It is its own backward. y may be x."""
    elementwise(_scale, x, y, scalars=(factor,))
