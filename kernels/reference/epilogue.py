"""The way back through what a convolution or a fully connected layer adds to its product: bias, then ReLU.

    forward   y = relu(z + b)       backward   dz = dy * (y > 0),   db[k] = sum of dz[...,k] over all other axes

The bias enters every row with slope 1, hence the sum. y > 0 exactly where z + b > 0, so the output alone is saved.
"""

from __future__ import annotations


def epilogue_backward(dy, db, *, y=None, add=True):
    """In place: dy (..., K) is masked by y > 0 where y is given; then db (K,) += its sum, unless db is None.

    Without `add`, db = and what it held does not matter.
    """
    if y is not None:
        dy *= y > 0
    if db is not None:
        total = dy.reshape(-1, dy.shape[-1]).sum(axis=0)                       # (..., K) -> (K,)
        db[...] = db + total if add else total
