"""SGD with momentum and weight decay in one pass: w, dw and v are read once, w and v are written once."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _step(first, last, w, dw, v, momentum, shrink, lr):
    w, dw, v = w[first:last], dw[first:last], v[first:last]
    for i in range(w.size):
        v[i] = momentum * v[i] - shrink * w[i] - lr * dw[i]
        w[i] += v[i]


def sgd_step(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    """v = momentum v - decay lr w - lr dw, then w += v; in place, all of one shape.

    loss_scale: the state of loss_scale.py, by whose power of two dw is divided; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    scalar, scaled_lr = w.dtype.type, lr if loss_scale is None else lr * 2.0 ** -loss_scale[0]
    parallel_for(w.size, 2, _step, flat(w), flat(dw), flat(v), scalar(momentum), scalar(decay * lr), scalar(scaled_lr))
