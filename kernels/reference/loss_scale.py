"""Loss scaling, for products in fp16 (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2).

fp16 has no numbers below 2^-24, and many gradients are smaller. So the loss is multiplied with a power of two, which
makes every gradient that much larger, and the update divides by it again. The power rises after many steps in which all
went well; a step in which a gradient became infinite is left out, and the power falls.

    state (int32)   [exponent, steps since it last changed, whether a gradient of this step overflowed, steps left out]
"""

from __future__ import annotations

import numpy as np


def find_overflow(dw, state):
    """state[2] = 1 where dw, of any shape, holds an infinity or a NaN."""
    if not np.isfinite(dw).all():
        state[2] = 1


def next_loss_scale(state, *, steady, lowest, highest):
    """The state for the next step: one higher after `steady` good ones, one lower after an overflow, within limits."""
    exponent, good, overflow, left_out = state.tolist()
    good = 0 if overflow else good + 1
    if overflow:
        exponent, left_out = max(exponent - 1, lowest), left_out + 1
    elif good == steady:
        exponent, good = min(exponent + 1, highest), 0
    state[...] = exponent, good, 0, left_out
