"""What a run counts while it trains: tally (float64) = [images, sum of weight * loss, top-1 hits, top-5 hits].

A label is among the m highest scores of its row if fewer than m are above its own; of equal ones the first is higher.
"""

from __future__ import annotations

import numpy as np


def count_losses(losses, tally, *, weight):
    """tally[1] += weight * sum of losses (N,)."""
    tally[1] += weight * losses.sum(dtype=np.float64)


def count_correct(x, labels, tally):
    """tally[0] += N, and hits of the scores x (N, K) and labels int32 (N,) to tally[2], tally[3]."""
    own = x[np.arange(len(x)), labels][:, None]                                # (N, 1)
    earlier = np.arange(x.shape[1])[None, :] < labels[:, None]                 # (N, K)
    above = ((x > own) | ((x == own) & earlier)).sum(axis=1)                   # (N,)
    tally[0] += len(x)
    tally[2] += (above < 1).sum()
    tally[3] += (above < 5).sum()
