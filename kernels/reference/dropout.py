"""Dropout (AlexNet paper, section 4.2): units are set to 0 with probability `rate`, anew for each image and epoch.

    y = x * m        m = scale where u >= rate, else 0        u uniform in [0, 1), one for each unit

The paper has scale = 1 and multiplies by 1 - rate at test time (scale_forward); "inverted" dropout has
scale = 1 / (1 - rate) and does nothing at test time. u comes from the counter-based generator of minicnn/rng.py, a pure
function of (seed, purpose, epoch, sample id, unit): the backward pass draws the same mask again, and nothing is saved.
"""

from __future__ import annotations

import numpy as np

from minicnn.rng import uniforms


def _mask(like, rate, scale, seed, purpose, epoch, sample_ids):
    """m, shaped like x (N, ...); units are numbered along the flattened rest of x."""
    u = uniforms(seed, purpose, epoch, sample_ids, like[0].size)               # (N, units)
    return ((u >= np.float32(rate)) * like.dtype.type(scale)).reshape(like.shape)


def dropout_forward(x, y, *, rate, scale, seed, purpose, epoch, sample_ids):
    """y = x * m; sample_ids uint32 (N,). y may be x."""
    np.multiply(x, _mask(x, rate, scale, seed, purpose, epoch, sample_ids), out=y)


# m does not depend on x, so dy_i/dx_i = m_i.
def dropout_backward(dy, dx, *, rate, scale, seed, purpose, epoch, sample_ids):
    """dx = dy * m, with the same m. dx may be dy."""
    np.multiply(dy, _mask(dy, rate, scale, seed, purpose, epoch, sample_ids), out=dx)


def scale_forward(x, y, *, factor):
    """y = x * factor: the paper's rule at test time, factor = 1 - rate. It is its own backward. y may be x."""
    np.multiply(x, factor, out=y)
