"""Philox4x32-10 for one counter: the scalar version of minicnn.rng.philox4x32, compiled into its callers."""

from __future__ import annotations

import numpy as np
from numba import njit

from minicnn.rng import M0, M1, W0, W1

MASK = np.uint64(0xFFFFFFFF)


@njit(inline="always")
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Ten rounds on the counter (c0, c1, c2, c3) with the key (k0, k1); returns four words.

    All are 32-bit numbers in uint64: Numba widens integers of 32 bits in every operation anyway.
    """
    for _ in range(10):
        product0, product1 = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c2 = (product1 >> np.uint64(32)) ^ c1 ^ k0, (product0 >> np.uint64(32)) ^ c3 ^ k1
        c1, c3 = product1 & MASK, product0 & MASK
        k0, k1 = (k0 + np.uint64(W0)) & MASK, (k1 + np.uint64(W1)) & MASK
    return c0, c1, c2, c3
