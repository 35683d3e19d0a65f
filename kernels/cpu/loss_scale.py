"""Loss scaling: see kernels/reference/loss_scale.py."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


@kernel
def _find_overflow(first, last, dw, state):
    found = False
    for i in range(first, last):
        found |= not np.isfinite(dw[i])
    if found:
        state[2] = 1


@kernel
def _next(state, steady, lowest, highest):
    if state[2]:
        state[0], state[1], state[3] = max(state[0] - 1, lowest), 0, state[3] + 1
    elif state[1] + 1 == steady:
        state[0], state[1] = min(state[0] + 1, highest), 0
    else:
        state[1] += 1
    state[2] = 0


def find_overflow(dw, state):
    """state[2] = 1 where dw, of any shape, holds an infinity or a NaN."""
    parallel_for(dw.size, 1, _find_overflow, flat(dw), state)


def next_loss_scale(state, *, steady, lowest, highest):
    """The state for the next step: one higher after `steady` good ones, one lower after an overflow, within limits."""
    _next(state, steady, lowest, highest)
