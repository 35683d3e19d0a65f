"""relu and tanh: one pass over memory, cut into ranges of the flattened array."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _relu(first, last, x, y):
    x, y, zero = x[first:last], y[first:last], y.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]                                   # NaN stays NaN


@kernel
def _relu_backward(first, last, y, dy, dx):
    y, dy, dx, zero = y[first:last], dy[first:last], dx[first:last], dx.dtype.type(0)
    for i in range(y.size):
        gradient = dy[i]                                                       # read in any case: no branch
        dx[i] = gradient if y[i] > zero else zero


@kernel
def _tanh(first, last, x, y):
    x, y = x[first:last], y[first:last]
    for i in range(x.size):
        y[i] = np.tanh(x[i])


@kernel
def _tanh_backward(first, last, y, dy, dx):
    y, dy, dx, one = y[first:last], dy[first:last], dx[first:last], dx.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


def relu_forward(x, y):
    """y = max(x, 0). y may be x."""
    parallel_for(x.size, 1, _relu, flat(x), flat(y))


def relu_backward(y, dy, dx):
    """dx = dy * (y > 0). dx may be dy."""
    parallel_for(y.size, 1, _relu_backward, flat(y), flat(dy), flat(dx))


def tanh_forward(x, y):
    """y = tanh(x). y may be x."""
    parallel_for(x.size, 8, _tanh, flat(x), flat(y))


def tanh_backward(y, dy, dx):
    """dx = dy * (1 - y^2). dx may be dy."""
    parallel_for(y.size, 1, _tanh_backward, flat(y), flat(dy), flat(dx))
