"""The moving average of the weights in one pass: both arrays are read once, the average is written once."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel_in_order
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


# In order: where value = average, it must stay so to the bit.
@kernel_in_order
def _step(first, last, value, average, new):
    value, average = value[first:last], average[first:last]
    for i in range(value.size):
        average[i] += new * (value[i] - average[i])


def ema_advance(counts, *, factor, warmup, loss_scale=None):
    """The counts of the update that follows, or as they are after an overflow."""
    if loss_scale is not None and loss_scale[2]:
        return
    t = counts[0]
    counts[...] = t + 1, 1 - (min(factor, (1 + t) / (10 + t)) if warmup else factor)


def ema_step(value, average, counts, *, loss_scale=None):
    """One update of average, in place (kernels/reference/ema.py); value and average are of one shape.

    loss_scale: the state of loss_scale.py; after an overflow nothing is updated.
    """
    if loss_scale is not None and loss_scale[2]:
        return
    parallel_for(value.size, 1, _step, flat(value), flat(average), average.dtype.type(counts[1]))
