"""Dynamic loss scaling, which products in fp16 need; see kernels/reference/loss_scale.py for why.

    loss * 2^k -> gradients * 2^k -> does one overflow?  no:  update by gradient / 2^k, k rises every 2,000 such steps
                                                         yes: no update, k falls by 1

The power, and whether a step counts, are decided and kept on the device.
"""

from __future__ import annotations

import numpy as np

FIRST, LOWEST, HIGHEST = 16, -24, 24        # exponents
STEADY = 2000                               # steps without an overflow after which the exponent rises


class LossScale:
    """The state of one run. `state` is what net.backward and ops.sgd_step take."""

    def __init__(self, ops, exponent: int = FIRST, good: int = 0, left_out: int = 0):
        """good: steps since the exponent last changed.   left_out: steps so far that changed nothing."""
        self.ops = ops
        self.state = ops.from_host(np.array([exponent, good, 0, left_out], np.int32))

    def look(self, grads: list) -> None:
        """Find out whether one of these gradients overflowed."""
        for grad in grads:
            self.ops.find_overflow(grad, self.state)

    def next(self) -> None:
        """After the update: the power for the next step."""
        self.ops.next_loss_scale(self.state, steady=STEADY, lowest=LOWEST, highest=HIGHEST)

    def to_dict(self) -> dict[str, int]:
        """The arguments that make it again, for checkpoints and to be looked at."""
        exponent, good, _, left_out = self.ops.to_host(self.state).tolist()
        return {"exponent": exponent, "good": good, "left_out": left_out}
