"""Adam and AdamW in one pass: w, dw, m and v are read once, w, m and v are written once."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _step(first, last, w, dw, m, v, of_dw, of_w, new1, beta2, new2, keep, lr, root, eps):
    w, dw, m, v = w[first:last], dw[first:last], m[first:last], v[first:last]
    for i in range(w.size):
        g = of_dw * dw[i] + of_w * w[i]
        mean = m[i] + new1 * (g - m[i])
        square = beta2 * v[i] + new2 * g * g
        m[i], v[i] = mean, square
        w[i] = keep * w[i] - lr * mean / (np.sqrt(square) * root + eps)


def adam_advance(counts, *, beta1, beta2, loss_scale=None):
    """The counts of the step that follows: t + 1, or as they are after an overflow."""
    if loss_scale is not None and loss_scale[2]:
        return
    t = counts[0] + 1
    counts[...] = t, 1 - beta1**t, np.sqrt(1 - beta2**t)


def adam_step(w, dw, m, v, counts, *, lr, beta1, beta2, eps, decay, decoupled=False, loss_scale=None):
    """One step, in place, on w, m and v (kernels/reference/adam.py); w, dw, m and v are of one shape.

    loss_scale: the state of loss_scale.py, by whose power of two dw is divided; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    _, correction1, root2 = counts.tolist()
    scalars = (1.0 if loss_scale is None else 2.0 ** -loss_scale[0], 0.0 if decoupled else decay, 1 - beta1, beta2,
               1 - beta2, 1 - lr * decay if decoupled else 1.0, lr / correction1, 1 / root2, eps)
    parallel_for(w.size, 3, _step, flat(w), flat(dw), flat(m), flat(v), *map(w.dtype.type, scalars))
