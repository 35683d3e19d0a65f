"""Stochastic gradient descent with momentum and weight decay, as printed in section 5 of the AlexNet paper:

    v <- 0.9 v  -  0.0005 * lr * w  -  lr * dw          w <- w + v

The rate is inside v: after the rate is lowered, the steps still under way are as long as before. (Many libraries keep
v <- 0.9 v + dw and w <- w - lr v, where a lower rate shortens them too.)
"""

from __future__ import annotations


def sgd_step(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    """One step, in place, on w and v; dw is read. All of one shape.

    loss_scale: the state of scaling.py, by whose power of two dw is too large; after an overflow nothing is done.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    v *= momentum
    v -= decay * lr * w
    v -= (lr if loss_scale is None else lr * 2.0 ** -loss_scale[0]) * dw
    w += v
