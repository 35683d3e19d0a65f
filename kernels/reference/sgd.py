"""Stochastic gradient descent with momentum and weight decay, as printed in section 5 of the AlexNet paper:

    v <- 0.9 v  -  0.0005 * lr * w  -  lr * dw          w <- w + v

The learning rate is inside v: lowering it does not shrink the velocity that is already there. Caffe has this form, too.
Three options lead to the other forms. With g = dw + decay * w, or g = dw where the weight decay is `decoupled`:

    lr_in_velocity   nesterov    v                      w
    yes (the paper)  no          v <- m v - lr g        w <- w + v
    yes              yes         v <- m v - lr g        w <- w + m v - lr g
    no (PyTorch)     no          v <- m v + g           w <- w - lr v
    no               yes         v <- m v + g           w <- w - lr (m v + g)

    decoupled        w <- (1 - lr * decay) w before any of these

While lr is constant, the velocities of the upper two rows are -lr times those of the lower two, and the weights equal.
"""

from __future__ import annotations


def sgd_step(w, dw, v, *, lr, momentum, decay, lr_in_velocity=True, nesterov=False, decoupled=False, loss_scale=None):
    """One step, in place, on w and v; dw is read. All of one shape.

    loss_scale: the state of loss_scale.py, by whose power of two dw is divided; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    scale = 1.0 if loss_scale is None else 2.0 ** -int(loss_scale[0])
    if lr_in_velocity and not nesterov and not decoupled:       # in the order in which it is printed
        v *= momentum
        v -= decay * lr * w
        v -= (lr * scale) * dw
        w += v
        return
    g = scale * dw
    if decoupled:
        w *= 1 - lr * decay
    else:
        g += decay * w
    inside, outside = (-lr, 1.0) if lr_in_velocity else (1.0, -lr)
    v *= momentum
    v += inside * g
    w += outside * (momentum * v + inside * g if nesterov else v)
