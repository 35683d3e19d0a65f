"""relu, tanh and others: one pass over memory."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.elementwise import elementwise


@kernel
def _relu(x, y):
    zero = y.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]                                   # NaN stays NaN


@kernel
def _relu_backward(y, dy, dx):
    zero = dx.dtype.type(0)
    for i in range(y.size):
        gradient = dy[i]                                                       # read in any case: no branch
        dx[i] = gradient if y[i] > zero else zero


@kernel
def _leaky_relu(a, b, y, slope):
    """y = b where a > 0, else slope * b."""
    zero = y.dtype.type(0)
    for i in range(y.size):
        value = b[i]                                                           # read in any case: no branch
        y[i] = value if a[i] > zero else slope * value


@kernel
def _clipped_relu(x, y, ceiling):
    zero = y.dtype.type(0)
    for i in range(x.size):
        value = zero if x[i] < zero else x[i]                                  # NaN stays NaN
        y[i] = ceiling if value > ceiling else value


@kernel
def _clipped_relu_backward(y, dy, dx, ceiling):
    zero = dx.dtype.type(0)
    for i in range(y.size):
        gradient, value = dy[i], y[i]                                          # read in any case: no branch
        dx[i] = gradient if (value > zero) & (value < ceiling) else zero


@kernel
def _tanh(x, y):
    for i in range(x.size):
        y[i] = np.tanh(x[i])


@kernel
def _tanh_backward(y, dy, dx):
    one = dx.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


@kernel
def _sigmoid(x, y):
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for i in range(x.size):
        e = np.exp(-abs(x[i]))                                                 # at most 1: no overflow
        y[i] = (e if x[i] < zero else one) / (one + e)


@kernel
def _sigmoid_backward(y, dy, dx):
    one = dx.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * (y[i] * (one - y[i]))


def relu_forward(x, y):
    """y = max(x, 0). y may be x."""
    elementwise(_relu, x, y)


def relu_backward(y, dy, dx):
    """dx = dy * (y > 0). dx may be dy."""
    elementwise(_relu_backward, y, dy, dx)


def leaky_relu_forward(x, y, *, slope):
    """y = x where x > 0, else slope * x. y may be x."""
    elementwise(_leaky_relu, x, x, y, scalars=(slope,))


def leaky_relu_backward(y, dy, dx, *, slope):
    """dx = dy where y > 0, else slope * dy. dx may be dy."""
    elementwise(_leaky_relu, y, dy, dx, scalars=(slope,))


def clipped_relu_forward(x, y, *, ceiling):
    """y = min(max(x, 0), ceiling). y may be x."""
    elementwise(_clipped_relu, x, y, scalars=(ceiling,))


def clipped_relu_backward(y, dy, dx, *, ceiling):
    """dx = dy * (0 < y < ceiling). dx may be dy."""
    elementwise(_clipped_relu_backward, y, dy, dx, scalars=(ceiling,))


def tanh_forward(x, y):
    """y = tanh(x). y may be x."""
    elementwise(_tanh, x, y, cost=8)


def tanh_backward(y, dy, dx):
    """dx = dy * (1 - y^2). dx may be dy."""
    elementwise(_tanh_backward, y, dy, dx)


def sigmoid_forward(x, y):
    """y = 1 / (1 + exp(-x)). y may be x."""
    elementwise(_sigmoid, x, y, cost=8)


def sigmoid_backward(y, dy, dx):
    """dx = dy * y * (1 - y). dx may be dy."""
    elementwise(_sigmoid_backward, y, dy, dx)
