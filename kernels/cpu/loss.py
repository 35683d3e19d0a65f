"""Softmax and cross-entropy: one row (an image's K classes) at a time, the largest subtracted before exp."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel, kernel_in_order
from minicnn.kernels.cpu.threads import parallel_for


@kernel_in_order
def _softmax(first, last, x, labels, y, losses, smoothing):
    """y = softmax of rows first..last; and losses, where there are labels (y must then not be x)."""
    for n in range(first, last):
        top = x[n, 0]
        for k in range(1, x.shape[1]):
            top = max(top, x[n, k])
        total = x.dtype.type(0)
        for k in range(x.shape[1]):
            y[n, k] = np.exp(x[n, k] - top)
            total += y[n, k]
        for k in range(x.shape[1]):
            y[n, k] /= total
        if len(labels):
            losses[n] = np.log(total) - (x[n, labels[n]] - top)
        if len(labels) and smoothing > 0:
            total = x.dtype.type(0)
            for k in range(x.shape[1]):
                total += x[n, k] - top
            losses[n] += smoothing * (x[n, labels[n]] - top - total / x.dtype.type(x.shape[1]))


@kernel
def _backward(first, last, probs, labels, dx, scale, everywhere, own):
    """dx = scale * (probs - target): `everywhere` for each class, and `own` more for the label."""
    for n in range(first, last):
        for k in range(probs.shape[1]):
            dx[n, k] = (probs[n, k] - everywhere) * scale
        dx[n, labels[n]] = (probs[n, labels[n]] - everywhere - own) * scale


def softmax_forward(x, y):
    """y (N, K), the probabilities of each row of x (N, K). y may be x."""
    parallel_for(len(x), 16 * x.shape[1], _softmax, x, np.empty(0, np.int32), y, np.empty(0, x.dtype),
                 x.dtype.type(0))


def softmax_cross_entropy_forward(x, labels, probs, losses, *, label_smoothing=0.0):
    """probs (N, K) and losses (N,) from x (N, K) and labels int32 (N,)."""
    parallel_for(len(x), 16 * x.shape[1], _softmax, x, labels, probs, losses, x.dtype.type(label_smoothing))


def softmax_cross_entropy_backward(probs, labels, dx, *, scale, loss_scale=None, label_smoothing=0.0):
    """dx (N, K) = scale * (probs - t); scale is the weight of the loss, over N where the batch is averaged.

    t: onehot(label), or with label smoothing e (1 - e) onehot(label) + e/K.
    loss_scale: the state of loss_scale.py, by whose power of two all gradients are multiplied; None: by 1.
    """
    scale, real = scale if loss_scale is None else scale * 2.0 ** loss_scale[0], dx.dtype.type
    parallel_for(len(dx), dx.shape[1], _backward, probs, labels, dx, real(scale), real(label_smoothing / dx.shape[1]),
                 real(1 - label_smoothing))
