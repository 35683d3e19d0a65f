"""Softmax and cross-entropy over K classes (AlexNet paper, section 3.5: multinomial logistic regression).

    p_k = exp(x_k) / sum_j exp(x_j)        loss = -log p_label = log sum_j exp(x_j) - x_label

Adding a constant to all x changes nothing, so the largest is subtracted first and exp cannot overflow. The loss is
computed in the second form, which never takes the logarithm of a probability that was rounded to 0. p is saved.

With label smoothing e (Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section
7) the target is t_k = (1 - e) [k = label] + e/K in place of [k = label], and the loss is the cross-entropy with t:

    -sum_k t_k log p_k = log sum_j exp(x_j) - sum_k t_k x_k = (the loss above) + e (x_label - mean of x)
"""

from __future__ import annotations

import numpy as np


def softmax_forward(x, y):
    """y (N, K), the probabilities of each row of x (N, K). y may be x."""
    np.exp(x - x.max(axis=1, keepdims=True), out=y)
    y /= y.sum(axis=1, keepdims=True)


def softmax_cross_entropy_forward(x, labels, probs, losses, *, label_smoothing=0.0):
    """probs (N, K) and losses (N,) from x (N, K) and labels int32 (N,)."""
    shifted = x - x.max(axis=1, keepdims=True)                                 # (N, K)
    own = shifted[np.arange(len(x)), labels]                                   # (N,)
    losses[...] = np.log(np.exp(shifted).sum(axis=1)) - own
    if label_smoothing:
        losses += label_smoothing * (own - shifted.mean(axis=1))
    softmax_forward(x, probs)


# d/dx_k of log sum_j exp(x_j) is exp(x_k) / sum_j exp(x_j) = p_k, and d/dx_k of sum_j t_j x_j is t_k: p - t, where
# t = (1 - e) onehot + e/K.
def softmax_cross_entropy_backward(probs, labels, dx, *, scale, loss_scale=None, label_smoothing=0.0):
    """dx (N, K) = scale * (probs - t); scale is the weight of the loss, over N where the batch is averaged.

    t: onehot(label), or with label smoothing e (1 - e) onehot(label) + e/K.
    loss_scale: the state of loss_scale.py, by whose power of two all gradients are multiplied; None: by 1.
    """
    np.subtract(probs, label_smoothing / dx.shape[1], out=dx)
    dx[np.arange(len(dx)), labels] -= 1 - label_smoothing
    dx *= scale if loss_scale is None else scale * 2.0 ** loss_scale[0]
