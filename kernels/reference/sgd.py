"""Stochastic gradient descent with momentum and weight decay, as printed in section 5 of the AlexNet paper:

    v <- 0.9 v  -  0.0005 * lr * w  -  lr * dw          w <- w + v

The learning rate is inside v: lowering it does not shrink the velocity that is already there. (Many libraries compute
v <- 0.9 v + dw and w <- w - lr v, where a lower learning rate shrinks it at once.)
"""

from __future__ import annotations


def sgd_step(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    """One step, in place, on w and v; dw is read. All of one shape.

    loss_scale: the state of loss_scale.py, by whose power of two dw is divided; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    v *= momentum
    v -= decay * lr * w
    v -= (lr if loss_scale is None else lr * 2.0 ** -loss_scale[0]) * dw
    w += v
