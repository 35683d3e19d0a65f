"""Loss scaling, for products in fp16 (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2).

The smallest fp16 number is 2^-24, and many gradients are smaller. So the loss is multiplied by a power of two, which
multiplies every gradient by it, and the update divides by it again. The exponent rises after many steps without an
overflow; a step in which a gradient became infinite is skipped, and the exponent falls.

    state (int32)   [exponent, steps since it last changed, whether a gradient of this step overflowed, steps skipped]
"""

from __future__ import annotations

import numpy as np


def find_overflow(dw, state):
    """state[2] = 1 where dw, of any shape, holds an infinity or a NaN."""
    if not np.isfinite(dw).all():
        state[2] = 1


def next_loss_scale(state, *, steady, lowest, highest):
    """The state for the next step: one higher after `steady` good ones, one lower after an overflow, within limits."""
    exponent, good, overflow, skipped = state.tolist()
    good = 0 if overflow else good + 1
    if overflow:
        exponent, skipped = max(exponent - 1, lowest), skipped + 1
    elif good == steady:
        exponent, good = min(exponent + 1, highest), 0
    state[...] = exponent, good, 0, skipped
