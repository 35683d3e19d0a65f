"""relu, tanh and others: one pass over memory."""

from __future__ import annotations

import math

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.elementwise import elementwise
from minicnn.kernels.cpu.stored import real, stored, wide
from minicnn.kernels.cpu.vectors import LANES, like, load, part, select, store

HALF, NOTHING = np.float32(0.5), np.float32(0)
# Of _odd: the last x, the coefficients of P, those of Q.
CDF = tuple(map(np.float32, (
    5.3, 0.3989422619342804, 0.03293563053011894, 0.004627980757504702, 0.00016033246356528252, 6.37900166111649e-06,
    2.405012367034942e-08, 0.24922360479831696, 0.028138726949691772, 0.0018365603173151612, 7.135143096093088e-05,
    1.237158812728012e-06)))
DERIVATIVE = tuple(map(np.float32, (
    5.8, 0.7978853583335876, -0.030995383858680725, 0.014230267144739628, 1.922987576108426e-05, 3.5955701605416834e-05,
    1.9292532726922218e-07, 0.29449462890625, 0.04098036512732506, 0.003523048013448715, 0.0001920388895086944,
    8.95228822628269e-06)))


# Most of these work in place, where LLVM vectorises no plain loop: it cannot know that x and y are the same elements,
# and not elements some places apart. So their vectors are explicit.
@part
def _relu_of(x, y, i, count):
    v = load(x, i, count)
    zero = like(v, real(x).type(0))
    store(y, i, count, select(zero > v, zero, v))                              # NaN stays NaN


@kernel
def _relu(x, y):
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _relu_of(x, y, i, LANES)
    if whole < y.size:
        _relu_of(x, y, whole, y.size - whole)


@part
def _relu_gradient(y, dy, dx, i, count):
    v, gradient = load(y, i, count), load(dy, i, count)
    zero = like(v, real(y).type(0))
    store(dx, i, count, select(v > zero, gradient, zero))


@kernel
def _relu_backward(y, dy, dx):
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _relu_gradient(y, dy, dx, i, LANES)
    if whole < y.size:
        _relu_gradient(y, dy, dx, whole, y.size - whole)


@part
def _sloped(a, b, y, slope, i, count):
    v = load(b, i, count)
    zero = like(v, real(y).type(0))
    store(y, i, count, select(load(a, i, count) > zero, v, like(v, slope) * v))


@kernel
def _leaky_relu(a, b, y, slope):
    """y = b where a > 0, else slope * b."""
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _sloped(a, b, y, slope, i, LANES)
    if whole < y.size:
        _sloped(a, b, y, slope, whole, y.size - whole)


@part
def _clipped(x, y, ceiling, i, count):
    v = load(x, i, count)
    zero, most = like(v, real(x).type(0)), like(v, ceiling)
    v = select(zero > v, zero, v)                                              # NaN stays NaN
    store(y, i, count, select(v > most, most, v))


@kernel
def _clipped_relu(x, y, ceiling):
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _clipped(x, y, ceiling, i, LANES)
    if whole < y.size:
        _clipped(x, y, ceiling, whole, y.size - whole)


@part
def _clipped_gradient(y, dy, dx, ceiling, i, count):
    v, gradient = load(y, i, count), load(dy, i, count)
    zero, most = like(v, real(y).type(0)), like(v, ceiling)
    store(dx, i, count, select(v > zero, select(most > v, gradient, zero), zero))


@kernel
def _clipped_relu_backward(y, dy, dx, ceiling):
    whole = y.size - y.size % LANES
    for i in range(0, whole, LANES):
        _clipped_gradient(y, dy, dx, ceiling, i, LANES)
    if whole < y.size:
        _clipped_gradient(y, dy, dx, ceiling, whole, y.size - whole)


@kernel
def _tanh(x, y):
    for i in range(x.size):
        y[i] = stored(np.tanh(wide(x[i])), y)


@kernel
def _tanh_backward(y, dy, dx):
    one = real(dx).type(1)
    for i in range(y.size):
        value = wide(y[i])
        dx[i] = stored(wide(dy[i]) * (one - value * value), dx)


@kernel
def _sigmoid(x, y):
    zero, one = real(y).type(0), real(y).type(1)
    for i in range(x.size):
        value = wide(x[i])
        e = np.exp(-abs(value))                                                # at most 1: no overflow
        y[i] = stored((e if value < zero else one) / (one + e), y)


@kernel
def _sigmoid_backward(y, dy, dx):
    one = real(dx).type(1)
    for i in range(y.size):
        dx[i] = stored(wide(dy[i]) * (wide(y[i]) * (one - wide(y[i]))), dx)


# GELU in float32: erf and exp do not vectorise, quotients of polynomials in x^2 do. They are our least-squares fits;
# errors are below 3e-7, rounding included. Beyond the last x the functions have their limits in float32.
@kernel
def _odd(x, most, p0, p1, p2, p3, p4, p5, q1, q2, q3, q4, q5):
    """x * P(x^2) / Q(x^2), at `most` for larger |x|. NaN stays NaN."""
    x = most if x > most else -most if x < -most else x
    u = x * x
    return (x * (p0 + u * (p1 + u * (p2 + u * (p3 + u * (p4 + u * p5)))))
            / (np.float32(1) + u * (q1 + u * (q2 + u * (q3 + u * (q4 + u * q5))))))


@kernel
def _gelu_float32(x, y):
    """Phi(x) - 1/2 is odd. A rounding of it, times x, would be seen far below 0."""
    for i in range(x.size):
        value = wide(x[i])
        result = value * (HALF + _odd(value, *CDF))
        y[i] = stored(NOTHING if value < -CDF[0] else result, y)


@kernel
def _gelu_backward_float32(x, dy, dx):
    """Phi(x) - 1/2 + x phi(x) is odd."""
    for i in range(x.size):
        dx[i] = stored(wide(dy[i]) * (HALF + _odd(wide(x[i]), *DERIVATIVE)), dx)


@kernel
def _gelu(x, y):
    for i in range(x.size):
        y[i] = x[i] * 0.5 * (1 + math.erf(x[i] * math.sqrt(0.5)))


@kernel
def _gelu_backward(x, dy, dx):
    for i in range(x.size):
        density = math.exp(-0.5 * x[i] * x[i]) / math.sqrt(2 * math.pi)
        dx[i] = dy[i] * (0.5 * (1 + math.erf(x[i] * math.sqrt(0.5))) + x[i] * density)


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


def gelu_forward(x, y):
    """y = x * Phi(x). y may be x."""
    elementwise(_gelu_float32 if real(x) == np.float32 else _gelu, x, y, cost=4)


def gelu_backward(x, dy, dx):
    """dx = dy * (Phi(x) + x * phi(x)). dx may be dy."""
    elementwise(_gelu_backward_float32 if real(x) == np.float32 else _gelu_backward, x, dy, dx, cost=4)
