"""Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1) and AdamW (Loshchilov and
Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2), as PyTorch has them:

    g <- dw + decay * w     (AdamW: w <- (1 - lr * decay) w, and g = dw)
    m <- beta1 m + (1 - beta1) g              v <- beta2 v + (1 - beta2) g^2
    w <- w - lr  (m / (1 - beta1^t))  /  (sqrt(v / (1 - beta2^t)) + eps)

m and v begin at 0, so they are too small at first: after t steps with the same g, m = (1 - beta1^t) g, hence the two
divisors. t counts the steps that were taken; it and what follows from it are kept on the device, so that a captured
step can be replayed, and a step that is skipped is not counted:

    counts (float64)   [t, 1 - beta1^t, sqrt(1 - beta2^t)]
"""

from __future__ import annotations

import numpy as np


def adam_advance(counts, *, beta1, beta2, loss_scale=None):
    """The counts of the step that follows: t + 1, or as they are after an overflow."""
    if loss_scale is not None and loss_scale[2]:
        return
    t = counts[0] + 1
    counts[...] = t, 1 - beta1**t, np.sqrt(1 - beta2**t)


def adam_step(w, dw, m, v, counts, *, lr, beta1, beta2, eps, decay, decoupled=False, loss_scale=None):
    """One step, in place, on w, m and v; dw and counts are read. w, dw, m, v of one shape.

    loss_scale: the state of loss_scale.py, by whose power of two dw is divided; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    _, correction1, root2 = counts.tolist()
    g = (1.0 if loss_scale is None else 2.0 ** -int(loss_scale[0])) * dw
    if decoupled:
        w *= 1 - lr * decay
    else:
        g += decay * w
    m += (1 - beta1) * (g - m)
    v *= beta2
    v += (1 - beta2) * g * g
    w -= (lr / correction1) * m / (np.sqrt(v) / root2 + eps)
