"""Softmax and cross-entropy over K classes (AlexNet paper, section 3.5: multinomial logistic regression).

    p_k = exp(x_k) / sum_j exp(x_j)        loss = -log p_label = log sum_j exp(x_j) - x_label

Adding a constant to all x changes nothing, so the largest is subtracted first and exp cannot overflow. The loss is
computed in the second form, which never takes the logarithm of a probability that was rounded to 0. p is saved.
"""

from __future__ import annotations

import numpy as np


def softmax_forward(x, y):
    """y (N, K), the probabilities of each row of x (N, K). y may be x."""
    np.exp(x - x.max(axis=1, keepdims=True), out=y)
    y /= y.sum(axis=1, keepdims=True)


def softmax_cross_entropy_forward(x, labels, probs, losses):
    """probs (N, K) and losses (N,) from x (N, K) and labels int32 (N,)."""
    shifted = x - x.max(axis=1, keepdims=True)                                 # (N, K)
    losses[...] = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(x)), labels]
    softmax_forward(x, probs)


# d/dx_k of log sum_j exp(x_j) is exp(x_k) / sum_j exp(x_j) = p_k, and d/dx_k of x_label is [k = label]: p - onehot.
def softmax_cross_entropy_backward(probs, labels, dx, *, scale, loss_scale=None):
    """dx (N, K) = scale * (probs - onehot); scale is the weight of the loss, over N where the batch is averaged.

    loss_scale: the state of loss_scale.py, by whose power of two all gradients are multiplied; None: by 1.
    """
    dx[...] = probs
    dx[np.arange(len(dx)), labels] -= 1
    dx *= scale if loss_scale is None else scale * 2.0 ** loss_scale[0]
