"""ZFNet's renormalisation of filters (section 3 of the paper), after each update of the weights:

    r_k = sqrt(mean of w_k^2)        if r_k > limit:  w_k <- w_k * limit / r_k

for each filter w_k = w[..., k] of a convolution, the mean over its height, width and input channels. Without it one of
the first layer's filters dominates (the paper's Figure 6a). Biases are not limited.
"""

from __future__ import annotations

import numpy as np


def rms_limit_step(w, *, limit, loss_scale=None):
    """w (..., K), in place; filters within the limit keep their bits.

    loss_scale: the state of loss_scale.py; after an overflow nothing is changed.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    rms = np.sqrt(np.mean(np.square(w), axis=tuple(range(w.ndim - 1))))          # (K,)
    above = rms > limit
    w[..., above] *= (limit / rms[above]).astype(w.dtype)
