"""Stochastic gradient descent with momentum and decay in one pass: w, dw and v are read once, w and v written once."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _step(first, last, w, dw, v, momentum, shrink, rate):
    w, dw, v = w[first:last], dw[first:last], v[first:last]
    for i in range(w.size):
        v[i] = momentum * v[i] - shrink * w[i] - rate * dw[i]
        w[i] += v[i]


def sgd_step(w, dw, v, *, lr, momentum, decay):
    """v = momentum v - decay lr w - lr dw, then w += v; in place, all of one shape."""
    number = w.dtype.type
    parallel_for(w.size, 2, _step, flat(w), flat(dw), flat(v), number(momentum), number(decay * lr), number(lr))
