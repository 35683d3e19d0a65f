"""Elementwise nonlinearities: relu(x) = max(x, 0) (AlexNet paper, section 3.1), tanh(x) and others.

All derivatives but GELU's follow from the output, so y is saved and x is not. y may be the same array as x, and dx as
dy.
"""

from __future__ import annotations

import math

import numpy as np


def relu_forward(x, y):
    """y = max(x, 0)."""
    np.maximum(x, 0, out=y)


# relu'(x) is 1 for x > 0 and 0 for x < 0; at x = 0, where there is none, it is taken as 0. x > 0 means y > 0.
def relu_backward(y, dy, dx):
    """dx = dy * (y > 0)."""
    np.multiply(dy, y > 0, out=dx)


def leaky_relu_forward(x, y, *, slope):
    """y = x where x > 0, else slope * x. slope must be positive."""
    np.multiply(x, np.where(x > 0, x.dtype.type(1), x.dtype.type(slope)), out=y)


# The derivative is 1 for x > 0 and slope for x < 0; at 0 it is taken as slope. slope > 0, so y > 0 means x > 0.
def leaky_relu_backward(y, dy, dx, *, slope):
    """dx = dy where y > 0, else slope * dy."""
    np.multiply(dy, np.where(y > 0, dy.dtype.type(1), dy.dtype.type(slope)), out=dx)


def clipped_relu_forward(x, y, *, ceiling):
    """y = min(max(x, 0), ceiling)."""
    np.clip(x, 0, x.dtype.type(ceiling), out=y)


# Between the two kinks the derivative is 1, outside 0; at the kinks themselves it is taken as 0.
def clipped_relu_backward(y, dy, dx, *, ceiling):
    """dx = dy * (0 < y < ceiling)."""
    np.multiply(dy, (y > 0) & (y < y.dtype.type(ceiling)), out=dx)


def tanh_forward(x, y):
    """y = tanh(x)."""
    np.tanh(x, out=y)


# tanh = sinh/cosh, so tanh' = (cosh^2 - sinh^2) / cosh^2 = 1 - tanh^2 = 1 - y^2.
def tanh_backward(y, dy, dx):
    """dx = dy * (1 - y^2)."""
    np.multiply(dy, 1 - y * y, out=dx)


def sigmoid_forward(x, y):
    """y = 1 / (1 + exp(-x)). Computed from exp(-|x|), which cannot overflow: for x < 0 as exp(x) / (1 + exp(x))."""
    e = np.exp(-np.abs(x))
    np.divide(np.where(x < 0, e, 1), 1 + e, out=y)


# y = 1 / (1 + exp(-x)), so dy/dx = exp(-x) / (1 + exp(-x))^2 = y * (1 - y), with 1 - y = exp(-x) / (1 + exp(-x)).
def sigmoid_backward(y, dy, dx):
    """dx = dy * y * (1 - y)."""
    np.multiply(dy, y * (1 - y), out=dx)


_erf = np.frompyfunc(math.erf, 1, 1)


def _normal_cdf(x):
    """Phi(x), float64."""
    return 0.5 * (1 + _erf(x / math.sqrt(2)).astype(np.float64))


def gelu_forward(x, y):
    """y = x * Phi(x). Phi(x) = (1 + erf(x / sqrt 2)) / 2, the distribution function of the normal distribution."""
    np.multiply(x, _normal_cdf(x.astype(np.float64)), out=y, casting="same_kind")


# (x Phi(x))' = Phi(x) + x phi(x), with the density phi(x) = exp(-x^2 / 2) / sqrt(2 pi). GELU is not monotonic, so that
# y does not say which x it is of: x is saved.
def gelu_backward(x, dy, dx):
    """dx = dy * (Phi(x) + x * phi(x))."""
    z = x.astype(np.float64)
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    np.multiply(dy, _normal_cdf(z) + z * density, out=dx, casting="same_kind")
