"""Running metrics of training: counts (float64) = [images, sum of weight * loss, top-1 correct, top-5 correct].

Top-m correct: fewer than m scores of the row are higher than the label's; of equal scores the first ranks higher.
"""

from __future__ import annotations

import numpy as np


def count_losses(losses, counts, *, weight):
    """counts[1] += weight * sum of losses (N,)."""
    counts[1] += weight * losses.sum(dtype=np.float64)


def count_correct(x, labels, counts):
    """counts[0] += N, counts[2] and counts[3] += top-1 and top-5 correct, of scores x (N, K), labels int32 (N,)."""
    own = x[np.arange(len(x)), labels][:, None]                                # (N, 1)
    earlier = np.arange(x.shape[1])[None, :] < labels[:, None]                 # (N, K)
    above = ((x > own) | ((x == own) & earlier)).sum(axis=1)                   # (N,)
    counts[0] += len(x)
    counts[2] += (above < 1).sum()
    counts[3] += (above < 5).sum()
