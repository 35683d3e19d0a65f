"""How the kernels of this folder are compiled: by Numba, without the GIL, kept on disk (code_cache.py)."""

from __future__ import annotations

import numpy as np
from numba import njit

from minicnn.kernels.cpu.code_cache import keep, kept_callback

# Sums may be reordered and fused, so that loops vectorise; NaN and infinity keep their meaning, so that divergence is
# noticed.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


def kernel(function):
    """Compile a function whenever it is called with arguments of new types."""
    return keep(njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function), function)


def kernel_in_order(function):
    """The same with every sum in its written order.

    A reordered sum may differ in the last bit with the distance between two arrays: if they are within a few vectors of
    each other, LLVM's check for overlap takes the loop without vectors. (fastmath=False: else Numba gives a function
    the setting of whichever kernel calls it first.)
    """
    return keep(njit(nogil=True, fastmath=False, error_model="numpy")(function), function)


def callback(signature):
    """Compile a function for one signature, now; `.address` is for kernels that are given an address to call."""
    return lambda function: kept_callback(function, signature)


# Inside kernels, a signed index that does not start at 0 keeps a loop from being vectorised (it might be negative, that
# is, count from the end), and slices in inner loops cost reference counting. So an innermost index is either the loop's
# own, from 0, or an unsigned sum: a[index(start + j)].
index = np.uint64
