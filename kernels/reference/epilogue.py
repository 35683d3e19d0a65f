"""Backward pass of the epilogue, the bias and ReLU that a convolution or fully connected layer applies to its product.

    forward   y = relu(z + b)       backward   dz = dy * (y > 0),   db[k] = sum of dz[...,k] over all other axes

The bias is added to every row (dz/db = 1), hence the sum. y > 0 exactly where z + b > 0, so only the output is saved.
"""

from __future__ import annotations


def epilogue_backward(dy, db, *, y=None, add=True):
    """In place: dy (..., K) is masked by y > 0 where y is given; then db (K,) += its sum, unless db is None.

    Without `add`, db = that sum, whatever it held.
    """
    if y is not None:
        dy *= y > 0
    if db is not None:
        total = dy.reshape(-1, dy.shape[-1]).sum(axis=0)                       # (..., K) -> (K,)
        db[...] = db + total if add else total
