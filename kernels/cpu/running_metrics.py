"""Running metrics of training, a row of scores at a time: see kernels/reference/running_metrics.py."""

from __future__ import annotations

from minicnn.kernels.cpu.compiling import kernel, kernel_in_order
from minicnn.kernels.cpu.stored import wide


@kernel_in_order
def _losses(losses, counts, weight):
    total = 0.0
    for n in range(losses.size):
        total += losses[n]
    counts[1] += weight * total


@kernel
def _correct(x, labels, counts):
    for n in range(len(x)):
        label, above = labels[n], 0
        own = wide(x[n, label])
        for k in range(x.shape[1]):
            above += wide(x[n, k]) > own or (wide(x[n, k]) == own and k < label)
        counts[0] += 1
        counts[2] += above < 1
        counts[3] += above < 5


def count_losses(losses, counts, *, weight):
    """counts[1] += weight * sum of losses (N,)."""
    _losses(losses, counts, float(weight))


def count_correct(x, labels, counts):
    """counts[0] += N, counts[2] and counts[3] += top-1 and top-5 correct, of scores x (N, K), labels int32 (N,)."""
    _correct(x, labels, counts)
