"""What the kernels around matrix products share: scratch memory, the compiler's options, the epilogue of a product.

Matrix products are np.matmul(..., out=): BLAS, called on column slices in place (a group's part of y or dy is a strided
matrix, which BLAS takes as it is). BLAS runs in one thread; the threads are ours (threads.py).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minicnn.errors import ShapeError

# Sums may be reordered and fused, so that loops vectorise; NaN and infinity keep their meaning, so that a training that
# diverges is seen to.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
# Compiled code is kept on disk beside each file and renewed when that file changes: after a change of these options, or
# of philox.py or vectors.py, which are compiled into their callers, delete kernels/cpu/__pycache__.
kernel = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
# The same with every sum in its written order. A reordered sum may differ in the last bit with the distance between two
# arrays: where they lie within a few vectors of each other, LLVM's check for overlap takes the loop that has none.
kernel_in_order = njit(nogil=True, cache=True, error_model="numpy")

ALIGN = 64                       # bytes: a cache line, and the widest vector


def flat(a: np.ndarray) -> np.ndarray:
    """a as one axis, never a copy."""
    return rows(a, a.size).reshape(-1)


def rows(a: np.ndarray, width: int) -> np.ndarray:
    """a as a matrix (a.size / width, width), never a copy."""
    if not a.flags.c_contiguous:
        raise ShapeError(f"an array of shape {a.shape} with strides {a.strides} is not C-contiguous; "
                         "pass np.ascontiguousarray(...) of it")
    return a.reshape(-1, width)


def aligned(size: int) -> int:
    """size, rounded up to whole cache lines."""
    return -(-size // ALIGN) * ALIGN


def carve(work: np.ndarray | None, bytes_per_lane: int, lanes: int) -> list[np.ndarray]:
    """`lanes` pieces of the work space (uint8), fewer where it is too small for so many; allocated where it is None."""
    bytes_per_lane = max(bytes_per_lane, ALIGN)
    if work is None or work.size < bytes_per_lane + ALIGN:
        work = np.empty(lanes * bytes_per_lane + ALIGN, np.uint8)
    start = -work.ctypes.data % ALIGN
    lanes = min(lanes, (work.size - start) // bytes_per_lane)
    return [work[start + i * bytes_per_lane : start + (i + 1) * bytes_per_lane] for i in range(lanes)]


def view(memory: np.ndarray, offset: int, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array of this shape in memory (uint8), `offset` bytes in."""
    return memory[offset : offset + int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def bytes_of(requests: list[tuple[tuple[int, ...], object]]) -> int:
    """Bytes of work space for arrays of these (shape, dtype), each on a cache line of its own."""
    return sum(aligned(int(np.prod(shape)) * np.dtype(dtype).itemsize) for shape, dtype in requests) + ALIGN


def arrays_in(work: np.ndarray | None, requests: list[tuple[tuple[int, ...], object]]) -> list[np.ndarray]:
    """The arrays of `bytes_of`, one behind the other in work (uint8); allocated where it is None or too small."""
    if work is None or work.size < bytes_of(requests):
        work = np.empty(bytes_of(requests), np.uint8)
    offset, arrays = -work.ctypes.data % ALIGN, []
    for shape, dtype in requests:
        arrays.append(view(work, offset, shape, dtype))
        offset += aligned(arrays[-1].nbytes)
    return arrays


# Inside kernels, a signed index that does not start at 0 keeps a loop from becoming vector instructions (it might be
# negative, which would mean "from the end"); slices in inner loops are counted references, which costs as well. So an
# innermost index is either the loop's own, from 0, or an unsigned sum: a[index(start + j)].
index = np.uint64


@kernel
def bias_relu(first, last, k0, k1, y, bias, relu):
    """y[m, k] = y[m, k] + bias[k], then the larger of that and 0 if relu; for rows first..last, columns k0..k1."""
    zero = y.dtype.type(0)
    for m in range(first, last):
        if relu:
            for k in range(k1 - k0):
                value = y[m, index(k0 + k)] + bias[index(k0 + k)]
                y[m, index(k0 + k)] = zero if value < zero else value          # NaN stays NaN
        else:
            for k in range(k1 - k0):
                y[m, index(k0 + k)] += bias[index(k0 + k)]
