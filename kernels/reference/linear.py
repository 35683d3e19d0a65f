"""Fully connected layer: y = x w + b, that is y[n,k] = b[k] + sum_c x[n,c] w[c,k].

x (N, in), w (in, out), y (N, out). The backward needs x and w. A fused ReLU is undone first, by epilogue_backward.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.reference import sgd


def linear_forward(x, w, y, *, epilogue=(None, False), work=None):
    """y (N, out) from x (N, in) and w (in, out); epilogue = (bias (out,) or None, apply ReLU)."""
    bias, relu = epilogue
    np.matmul(x, w, out=y)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)


# y[n,k] depends on x[n,c] with derivative w[c,k], for every k, and on w[c,k] with derivative x[n,c], for every n:
#
#     dx[n,c] = sum_k dy[n,k] w[c,k]        dw[c,k] = sum_n x[n,c] dy[n,k]


def linear_backward_data(dy, w, dx, *, work=None):
    """dx (N, in), overwritten, from dy (N, out) and w (in, out)."""
    np.matmul(dy, w.T, out=dx)


def linear_backward_weights(x, dy, dw, *, add=True, work=None):
    """dw (in, out) += from x (N, in) and dy (N, out); without `add`, dw = that, whatever it held."""
    if add:
        dw += x.T @ dy
    else:
        np.matmul(x.T, dy, out=dw)


def linear_sgd_step(x, dy, w, v, *, lr, momentum, decay, work=None):
    """One step of SGD, the paper's (sgd.py), on w (in, out) and v by the gradient x' dy, which need not exist."""
    sgd.sgd_step(w, x.T @ dy, v, lr=lr, momentum=momentum, decay=decay)


def linear_work(x_shape, w_shape, dtype):
    """Bytes of work space: none."""
    return 0
