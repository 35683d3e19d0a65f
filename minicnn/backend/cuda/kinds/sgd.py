"""Launches of sgd.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.ops import DeviceNumber


class Sgd(Kind):
    """The update of stochastic gradient descent."""

    def sgd_step(self, w, dw, v, *, lr, momentum, decay, loss_scale=None):
        """One step, in place, on w and v; none after an overflow."""
        lr = (lr.factor, lr.array) if isinstance(lr, DeviceNumber) else (lr, None)
        self._gpu.each("sgd", "sgd_step", w.size, w, dw, v, w.size, *lr, momentum, decay, loss_scale)
