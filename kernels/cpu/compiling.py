"""How the kernels of this folder are compiled: by Numba, without the GIL, cached on disk.

The cache is in __pycache__ beside each file and is renewed when that file changes. After a change of the options here,
or of philox.py, vectors.py, llvm_code.py, tile.py, microkernel.py, product.py or winograd.py, which are compiled into
their callers, delete kernels/cpu/__pycache__.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Sums may be reordered and fused, so that loops vectorise; NaN and infinity keep their meaning, so that divergence is
# noticed.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
kernel = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
# The same with every sum in its written order. A reordered sum may differ in the last bit with the distance between two
# arrays: if they are within a few vectors of each other, LLVM's check for overlap takes the loop without vectors.
kernel_in_order = njit(nogil=True, cache=True, error_model="numpy")

# Inside kernels, a signed index that does not start at 0 keeps a loop from being vectorised (it might be negative, that
# is, count from the end), and slices in inner loops cost reference counting. So an innermost index is either the loop's
# own, from 0, or an unsigned sum: a[index(start + j)].
index = np.uint64
