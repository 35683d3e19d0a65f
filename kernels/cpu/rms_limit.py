"""Filters whose RMS is above a limit are scaled down to it.

A filter is a column of w as a matrix (rows, K); a thread takes some columns, row after row, so that neighbouring
filters are summed by vector instructions.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.memory import rows
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _limit(first, last, w, limit):
    count, squares = last - first, np.zeros(last - first, w.dtype)
    for m in range(w.shape[0]):
        row = w[m]
        for k in range(count):
            squares[k] += row[index(first + k)] * row[index(first + k)]
    above = False
    for k in range(count):
        rms = np.sqrt(squares[k] / w.dtype.type(w.shape[0]))
        above = above or rms > limit
        squares[k] = limit / rms if rms > limit else w.dtype.type(1)
    if above:
        for m in range(w.shape[0]):
            row = w[m]
            for k in range(count):
                row[index(first + k)] *= squares[k]


def rms_limit_step(w, *, limit, loss_scale=None):
    """w (..., K), in place; nothing after an overflow. See kernels/reference/rms_limit.py."""
    if loss_scale is not None and loss_scale[2]:
        return
    matrix = rows(w, w.shape[-1])
    parallel_for(matrix.shape[1], 2 * matrix.shape[0], _limit, matrix, w.dtype.type(limit))
