"""The exponential moving average (EMA) of the weights over the steps (Polyak and Juditsky, 1992, average them equally):

    average <- d * average + (1 - d) * value,   computed as   average + (1 - d) (value - average)

so that the average of a value that stays is that value, exactly. With `warmup`, d is min(factor, (1 + t) / (10 + t))
after t updates: the first averages forget the initial weights quickly. t and 1 - d are kept on the device, so that a
captured step can be replayed, and a step that is skipped is not counted:

    counts (float64)   [t, 1 - d]
"""

from __future__ import annotations


def ema_advance(counts, *, factor, warmup, loss_scale=None):
    """The counts of the update that follows, or as they are after an overflow."""
    if loss_scale is not None and loss_scale[2]:
        return
    t = counts[0]
    counts[...] = t + 1, 1 - (min(factor, (1 + t) / (10 + t)) if warmup else factor)


def ema_step(value, average, counts, *, loss_scale=None):
    """One update of average, in place; value and counts are read. value and average of one shape.

    loss_scale: the state of loss_scale.py; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    average += float(counts[1]) * (value - average)
