"""Batch normalisation (Ioffe and Szegedy, ICML 2015), and a scale and shift for each channel, which it ends with.

    training     mean, var of the m = N*H*W values of a channel; var is divided by m
    z = w * (x - mean) / s + b,   s = sqrt(var + eps)            y = z + residual, then y = max(y, 0), where asked for
    running = (1 - momentum) * running + momentum * batch,  with the batch's variance divided by m - 1

Arrays are (..., C); w, b, dw, db are (C,). Statistics and their sums are float64 (C,) for every type of x, since mean
and x may be large where x - mean is small. Without mean and var, x is only scaled and shifted.

The backward pass, dz being the gradient of z (dy, masked where y = max(...) is 0), x^ = (x - mean) / s and i, j values
of one channel:

    dz_i/db = 1, dz_i/dw = x^_i                  db = sum dz,   dw = sum dz x^ = (1/s) sum dz (x - mean)

x_j acts on every z_i: directly, through the mean and through the variance:

    dmean/dx_j = 1/m         dvar/dx_j = 2 (x_j - mean) / m         (the mean's part is 0: sum (x - mean) = 0)
    dx^_i/dx_j = ([i = j] - 1/m) / s  -  (x_i - mean) / (2 s^3) * 2 (x_j - mean) / m
               = ([i = j] - 1/m - x^_i x^_j / m) / s
    dx_j = sum over i of w dz_i dx^_i/dx_j  =  (w/s) (dz_j - db/m - x^_j dw/m)

So dx is dz without its mean and without its part along x^: sum dx = 0, and sum dx x^ = (w/s) dw eps / s^2, which would
be 0 if not for eps, since sum x^^2 = m var / s^2. With fixed statistics only the direct term is left: dx = (w/s) dz.
"""

from __future__ import annotations

import numpy as np


def batchnorm_statistics(x, mean, var):
    """mean and var (float64, (C,)): of each channel of x (..., C); var is divided by their number."""
    values = x.reshape(-1, x.shape[-1]).astype(np.float64)
    mean[...] = values.mean(axis=0)
    var[...] = ((values - mean) ** 2).mean(axis=0)


def batchnorm_fixed_statistics(running_mean, running_var, mean, var):
    """mean and var (float64): the running ones."""
    mean[...], var[...] = running_mean, running_var


def batchnorm_update_statistics(mean, var, running_mean, running_var, *, momentum, count):
    """running += momentum * (batch - running), the batch's variance as that of count - 1 degrees of freedom."""
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (var * count / (count - 1) - running_var)


def _normalised(x, mean, var, eps):
    return x if mean is None else (x - mean) / np.sqrt(var + eps)


def _affine(x, w, b, mean, var, eps):
    z = w * _normalised(x, mean, var, eps)
    return z if b is None else z + b


def affine_forward(x, w, b, y, *, mean=None, var=None, eps=0.0, residual=None, relu=False):
    """y = w * (x - mean) / sqrt(var + eps) + b + residual, then max(y, 0) if relu. b, residual: None for 0."""
    z = _affine(x, w, b, mean, var, eps)
    if residual is not None:
        z = z + residual
    y[...] = np.maximum(z, 0) if relu else z


def affine_backward_weights(x, dy, w, b, dw, db, dz, sums, *, mean=None, var=None, eps=0.0, y=None, relu=False,
                            add=(True, True)):
    """dw, db (db may be None) += their sums, or = where their element of add is False.

    relu: dz is dy where y > 0, else 0; without y, it is computed again, without a residual.   dz: None, or where to
    write it; may be dy.   sums: None, or float64 (2, C) for the sums of dz and of dz * (x - mean).
    """
    masked = dy * ((_affine(x, w, b, mean, var, eps) if y is None else y) > 0) if relu else dy
    if dz is not None:
        dz[...] = masked
    C = x.shape[-1]
    masked = masked.astype(np.float64).reshape(-1, C)
    centred = (x if mean is None else x - mean).reshape(-1, C)
    totals = masked.sum(axis=0), (masked * centred).sum(axis=0)
    if sums is not None:
        sums[...] = totals
    scale = 1 if var is None else 1 / np.sqrt(var + eps)
    dw[...] = scale * totals[1] + (dw if add[0] else 0)
    if db is not None:
        db[...] = totals[0] + (db if add[1] else 0)


def affine_backward_data(x, dy, w, b, dx, *, mean=None, var=None, eps=0.0, relu=False, sums=None, count=1):
    """dx, overwritten; may be dy. relu: as above, without a residual. sums: those of `affine_backward_weights` over
    `count` values; None if mean and var do not depend on x."""
    dz = dy * (_affine(x, w, b, mean, var, eps) > 0) if relu else dy
    if sums is not None:
        dz = dz - sums[0] / count - (x - mean) * (sums[1] / count / (var + eps))
    dx[...] = dz * (w if var is None else w / np.sqrt(var + eps))
