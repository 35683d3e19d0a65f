"""How the kernels of this folder are compiled: Numba, without Python's lock, kept on disk from run to run.

Compiled code lies beside each file and is renewed when that file changes: after a change of the options here, or of
philox.py, vectors.py, llvm_code.py, tile.py, microkernel.py, product.py or winograd.py, which are compiled into their
callers, delete kernels/cpu/__pycache__.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Sums may be reordered and fused, so that loops vectorise; NaN and infinity keep their meaning, so that a training that
# diverges is seen to.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
kernel = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
# The same with every sum in its written order. A reordered sum may differ in the last bit with the distance between two
# arrays: where they lie within a few vectors of each other, LLVM's check for overlap takes the loop that has none.
kernel_in_order = njit(nogil=True, cache=True, error_model="numpy")

# Inside kernels, a signed index that does not start at 0 keeps a loop from becoming vector instructions (it might be
# negative, which would mean "from the end"); slices in inner loops are counted references, which costs as well. So an
# innermost index is either the loop's own, from 0, or an unsigned sum: a[index(start + j)].
index = np.uint64
