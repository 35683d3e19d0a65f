"""SGD with momentum and weight decay in one pass: w, dw and v are read once, w and v are written once."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel, kernel_in_order
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


@kernel_in_order            # so that a step within a product (linear.py) has the same bits
def paper_step(first, last, w, dw, v, momentum, shrink, lr):
    w, dw, v = w[first:last], dw[first:last], v[first:last]
    for i in range(w.size):
        v[i] = momentum * v[i] - shrink * w[i] - lr * dw[i]
        w[i] += v[i]


# Every other form is linear in w, dw and v: their coefficients say which one it is.
@kernel
def _linear_step(first, last, w, dw, v, momentum, of_dw, of_w, keep, along, ahead):
    w, dw, v = w[first:last], dw[first:last], v[first:last]
    for i in range(w.size):
        g = of_dw * dw[i] + of_w * w[i]
        velocity = momentum * v[i] + g
        v[i] = velocity
        w[i] = keep * w[i] + (along * velocity + ahead * g)


def sgd_step(w, dw, v, *, lr, momentum, decay, lr_in_velocity=True, nesterov=False, decoupled=False, loss_scale=None):
    """One step in place, in the form that the options name (kernels/reference/sgd.py); w, dw and v are of one shape.

    loss_scale: the state of loss_scale.py, by whose power of two dw is divided; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    scalar, scale = w.dtype.type, 1.0 if loss_scale is None else 2.0 ** -loss_scale[0]
    if lr_in_velocity and not nesterov and not decoupled:
        body, scalars = paper_step, (momentum, decay * lr, lr * scale)
    else:
        inside, outside = (-lr, 1.0) if lr_in_velocity else (1.0, -lr)
        body, scalars = _linear_step, (momentum, inside * scale, 0.0 if decoupled else inside * decay,
                                       1.0 - lr * decay if decoupled else 1.0,
                                       outside * (momentum if nesterov else 1.0), outside * nesterov)
    parallel_for(w.size, 2, body, flat(w), flat(dw), flat(v), *map(scalar, scalars))
