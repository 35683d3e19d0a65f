"""Fully connected layer: matrix products whose cost is reading the weights.

With 32 images the 9216 x 4096 weights of AlexNet's fc6 are 150 MB, read once in each of the three passes; so the
weights are what is cut into blocks, and every byte of them is touched by one thread only:

    forward            blocks of columns of w, each giving some columns of y
    backward, data     blocks of rows of w, each giving some columns of dx
    backward, weights  blocks of rows of dw: the product of a block stays in the cache and is added to dw from there
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import ALIGN, aligned, bias_relu, carve, kernel, view
from minicnn.kernels.cpu.threads import blocks, run, threads

BLOCK_BYTES = 2 << 20            # of weights


def _block(total: int, other: int, itemsize: int) -> int:
    """How many rows (or columns) of `other` numbers make a block of weights."""
    return min(max(64, BLOCK_BYTES // (other * itemsize)), -(-total // threads()))


def linear_forward(x, w, y, *, epilogue=(None, False), work=None):
    """y (N, out) from x (N, in) and w (in, out); epilogue = (bias (out,) or None, apply ReLU)."""
    bias, relu = epilogue
    if bias is None and relu:
        bias = np.zeros(y.shape[1], y.dtype)

    def columns_forward(k0, k1):
        np.matmul(x, w[:, k0:k1], out=y[:, k0:k1])
        if bias is not None:
            bias_relu(0, len(y), k0, k1, y, bias, relu)

    run(blocks(w.shape[1], max(256, _block(w.shape[1], w.shape[0], w.itemsize))), columns_forward)


def linear_backward_data(dy, w, dx, *, work=None):
    """dx (N, in), overwritten, from dy (N, out) and w (in, out)."""
    size = _block(*w.shape, w.itemsize)

    def columns_backward(memory, i0, i1):
        product = view(memory, 0, (i1 - i0, len(dy)), dx.dtype)                # transposed: BLAS reads w once that way
        np.matmul(w[i0:i1], dy.T, out=product)
        dx[:, i0:i1] = product.T

    lanes = carve(work, aligned(size * len(dy) * dx.itemsize), threads())
    run(blocks(w.shape[0], size), columns_backward, lanes)


@kernel
def _add_rows(first, last, total, product):
    """total[first..last] += product."""
    for i in range(first, last):
        for j in range(product.shape[1]):
            total[i, j] += product[i - first, j]


def linear_backward_weights(x, dy, dw, *, work=None):
    """dw (in, out) += from x (N, in) and dy (N, out)."""
    size = _block(*dw.shape, dw.itemsize)

    def rows_backward(memory, i0, i1):
        product = view(memory, 0, (i1 - i0, dw.shape[1]), dw.dtype)
        np.matmul(x[:, i0:i1].T, dy, out=product)
        _add_rows(i0, i1, dw, product)

    lanes = carve(work, aligned(size * dw.shape[1] * dw.itemsize), threads())
    run(blocks(dw.shape[0], size), rows_backward, lanes)


def linear_work(x_shape, w_shape, dtype):
    """Bytes of work space: for each thread the product of one block of weights, in either backward pass."""
    itemsize = np.dtype(dtype).itemsize
    return threads() * aligned(_block(*w_shape, itemsize) * max(w_shape[1], x_shape[0]) * itemsize) + ALIGN
