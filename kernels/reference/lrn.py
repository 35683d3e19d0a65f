"""Local response normalisation (AlexNet paper, section 3.3): x divided by a power of its local sum of squares.

    y_i = x_i * s_i^-beta       s_i = k + alpha * sum of x_j^2 over j in the neighbourhood of i

The neighbourhood is n channels around channel i at the same pixel, or (`within`) n x n pixels around i in the same map;
n is odd, and what is outside the map, or outside i's group of channels, is left out. alpha is used as given: the
paper does not divide it by n, most libraries do. Only x is saved: recomputing s is cheaper than keeping it.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.reference import epilogue, pool


def window_sums(a, n, axis):
    """sums_i = sum of a_j over |j - i| <= n // 2 along one axis, clipped at its ends."""
    a = np.moveaxis(a, axis, -1)
    sums = a.copy()
    for d in range(1, n // 2 + 1):
        sums[..., d:] += a[..., :-d]
        sums[..., :-d] += a[..., d:]
    return np.moveaxis(sums, -1, axis)


def _across(a, n, groups):
    """Sums over n neighbouring channels of the same group."""
    grouped = a.reshape(*a.shape[:-1], groups, -1)                             # (N, H, W, C) -> (N, H, W, G, C/G)
    return window_sums(grouped, n, -1).reshape(a.shape)


def _within(a, n):
    """Sums over n x n neighbouring pixels of the same map."""
    return window_sums(window_sums(a, n, 1), n, 2)


def lrn_forward(x, y, *, n, k, alpha, beta, groups=1):
    """y (N, H, W, C) from x, normalised over n channels inside each of `groups` parts of the C channels."""
    y[...] = x * (k + alpha * _across(x * x, n, groups)) ** -beta


# x_i affects its own y_i, and through the sums s_j every y_j whose neighbourhood contains i:
#
#     dy_j/dx_i = [i = j] s_i^-beta  -  beta x_j s_j^(-beta-1) ds_j/dx_i,        ds_j/dx_i = 2 alpha x_i [i in nbh(j)]
#
# With n odd, i is in nbh(j) exactly when j is in nbh(i), at the borders too: the window sum is its own transpose. So
#
#     dx_i = dy_i s_i^-beta  -  2 alpha beta x_i * sum over j in nbh(i) of dy_j x_j s_j^(-beta-1)
#
# The second term couples the channels: at alpha = 1e-4 a gradient without it looks almost right, and is wrong.


def _backward(x, dy, s, sums, alpha, beta):
    """dx, given the scale s and the function `sums` that adds up each neighbourhood."""
    power = s**-beta
    return dy * power - 2 * alpha * beta * x * sums(dy * x * power / s)


def lrn_backward(x, dy, dx, db=None, *, n, k, alpha, beta, groups=1, relu=False, add=True):
    """dx (N, H, W, C), overwritten, from x and dy; dx must not be dy.

    If a bias and a ReLU made x, this can end with their backward pass, so that dx need not be read again: relu masks
    dx where x is not positive, and db (C,), where given, += the sums of dx (without `add`, = them).
    """
    s = k + alpha * _across(x * x, n, groups)
    dx[...] = _backward(x, dy, s, lambda a: _across(a, n, groups), alpha, beta)
    epilogue.epilogue_backward(dx, db, y=x if relu else None, add=add)


# With the max pooling behind it: the normalised values and their gradient need not exist.
def lrn_maxpool_forward(x, y, argmax, *, n, k, alpha, beta, groups=1, kernel, stride, pads):
    """y (N, P, Q, C) and argmax of maxpool_forward, from x (N, H, W, C) normalised as by lrn_forward."""
    normalised = np.empty_like(x)
    lrn_forward(x, normalised, n=n, k=k, alpha=alpha, beta=beta, groups=groups)
    pool.maxpool_forward(normalised, y, argmax, kernel=kernel, stride=stride, pads=pads)


def lrn_maxpool_backward(x, dy, argmax, dx, db=None, *, n, k, alpha, beta, groups=1, kernel, stride, pads, relu=False,
                         add=True):
    """dx (N, H, W, C), overwritten, from x, dy and argmax (N, P, Q, C). relu, db, add: as in lrn_backward."""
    gradient = np.empty_like(x)                             # of the normalised values
    pool.maxpool_backward(dy, argmax, gradient, kernel=kernel, stride=stride, pads=pads)
    lrn_backward(x, gradient, dx, db, n=n, k=k, alpha=alpha, beta=beta, groups=groups, relu=relu, add=add)


def lrn_within_forward(x, y, *, n, k, alpha, beta):
    """y (N, H, W, C) from x, normalised over n x n pixels of the same map."""
    y[...] = x * (k + alpha * _within(x * x, n)) ** -beta


def lrn_within_backward(x, dy, dx, *, n, k, alpha, beta):
    """dx (N, H, W, C), overwritten, from x and dy; dx must not be dy."""
    s = k + alpha * _within(x * x, n)
    dx[...] = _backward(x, dy, s, lambda a: _within(a, n), alpha, beta)
