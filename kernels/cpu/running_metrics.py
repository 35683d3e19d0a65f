"""What a run counts while it trains, a row of scores at a time: see kernels/reference/running_metrics.py."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel, kernel_in_order


@kernel_in_order
def _losses(losses, tally, weight):
    total = 0.0
    for n in range(losses.size):
        total += losses[n]
    tally[1] += weight * total


@kernel
def _correct(x, labels, tally):
    for n in range(len(x)):
        label, above = labels[n], 0
        for k in range(x.shape[1]):
            above += x[n, k] > x[n, label] or (x[n, k] == x[n, label] and k < label)
        tally[0] += 1
        tally[2] += above < 1
        tally[3] += above < 5


def count_losses(losses, tally, *, weight):
    """tally[1] += weight * sum of losses (N,)."""
    _losses(losses, tally, float(weight))


def count_correct(x, labels, tally):
    """tally[0] += N, and hits of the scores x (N, K) and labels int32 (N,) to tally[2], tally[3]."""
    _correct(x, labels, tally)
