"""Softmax and cross-entropy: one row (an image's K classes) at a time, the largest subtracted before exp."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel, kernel_in_order
from minicnn.kernels.cpu.stored import real, stored, wide
from minicnn.kernels.cpu.threads import parallel_for


@kernel_in_order
def _softmax(first, last, x, labels, y, losses, smoothing):
    """y = softmax of rows first..last; and losses, where there are labels (y must then not be x)."""
    row = np.empty(x.shape[1], real(x))
    for n in range(first, last):
        top = wide(x[n, 0])
        for k in range(1, row.size):
            top = max(top, wide(x[n, k]))
        total = row.dtype.type(0)
        for k in range(row.size):
            row[k] = np.exp(wide(x[n, k]) - top)
            total += row[k]
        for k in range(row.size):
            y[n, k] = stored(row[k] / total, y)
        if len(labels):
            losses[n] = np.log(total) - (wide(x[n, labels[n]]) - top)
        if len(labels) and smoothing > 0:
            total = row.dtype.type(0)
            for k in range(row.size):
                total += wide(x[n, k]) - top
            losses[n] += smoothing * (wide(x[n, labels[n]]) - top - total / row.dtype.type(row.size))


@kernel
def _backward(first, last, probs, labels, dx, scale, everywhere, own):
    """dx = scale * (probs - target): `everywhere` for each class, and `own` more for the label."""
    for n in range(first, last):
        for k in range(probs.shape[1]):
            dx[n, k] = stored((probs[n, k] - everywhere) * scale, dx)
        dx[n, labels[n]] = stored((probs[n, labels[n]] - everywhere - own) * scale, dx)


def softmax_forward(x, y):
    """y (N, K), the probabilities of each row of x (N, K). y may be x."""
    parallel_for(len(x), 16 * x.shape[1], _softmax, x, np.empty(0, np.int32), y, np.empty(0, real(x)),
                 real(x).type(0))


def softmax_cross_entropy_forward(x, labels, probs, losses, *, label_smoothing=0.0):
    """probs (N, K) and losses (N,) from x (N, K) and labels int32 (N,)."""
    parallel_for(len(x), 16 * x.shape[1], _softmax, x, labels, probs, losses, real(x).type(label_smoothing))


def softmax_cross_entropy_backward(probs, labels, dx, *, scale, loss_scale=None, label_smoothing=0.0):
    """dx (N, K) = scale * (probs - t); scale is the weight of the loss, over N where the batch is averaged.

    t: onehot(label), or with label smoothing e (1 - e) onehot(label) + e/K.
    loss_scale: the state of loss_scale.py, by whose power of two all gradients are multiplied; None: by 1.
    """
    scale, number = scale if loss_scale is None else scale * 2.0 ** loss_scale[0], probs.dtype.type
    parallel_for(len(dx), dx.shape[1], _backward, probs, labels, dx, number(scale),
                 number(label_smoothing / dx.shape[1]), number(1 - label_smoothing))
