"""Launches of sgd.cu, rms_limit.cu, adam.cu and ema.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import ceil_div
from minicnn.backend.ops import DeviceNumber


class Optimisers(Kind):
    """The updates of the parameters, and the average of the weights."""

    # ---- sgd
    def sgd_step(self, w, dw, v, *, lr, momentum, decay, lr_in_velocity=True, nesterov=False, decoupled=False,
                 loss_scale=None):
        """One step, in place, on w and v; none after an overflow."""
        kernel, form = "sgd_step", ()
        if not lr_in_velocity or nesterov or decoupled:
            kernel, form = "sgd_linear_step", (int(lr_in_velocity), int(nesterov), int(decoupled))
        self._gpu.each("sgd", kernel, w.size, w, dw, v, w.size, *scalar(lr), momentum, decay, *form, loss_scale)

    # ---- rms_limit
    def rms_limit_step(self, w, *, limit, loss_scale=None):
        """w (..., K), in place: filters of a larger RMS are scaled down to it; none after an overflow."""
        K = w.shape[-1]
        self._gpu.launch("rms_limit", "rms_limit_step", ceil_div(K, 32), (w, w.size // K, K, limit, loss_scale),
                         block=(32, 32))

    # ---- adam
    def adam_advance(self, counts, *, beta1, beta2, loss_scale=None):
        """counts (float64): t + 1 and the bias corrections of the step that follows; unchanged after an overflow."""
        self._gpu.launch("adam", "adam_advance", 1, (counts, beta1, beta2, loss_scale), block=1)

    def adam_step(self, w, dw, m, v, counts, *, lr, beta1, beta2, eps, decay, decoupled=False, loss_scale=None):
        """One step, in place, on w, m and v; none after an overflow."""
        self._gpu.each("adam", "adam_step", w.size, w, dw, m, v, counts, w.size, *scalar(lr), beta1, beta2, eps,
                       decay, int(decoupled), loss_scale)

    # ---- ema
    def ema_advance(self, counts, *, factor, warmup, loss_scale=None):
        """counts (float64): t + 1 and 1 - d of the update that follows; unchanged after an overflow."""
        self._gpu.launch("ema", "ema_advance", 1, (counts, factor, int(warmup), loss_scale), block=1)

    def ema_step(self, value, average, counts, *, loss_scale=None):
        """One update of average, in place; none after an overflow."""
        self._gpu.each("ema", "ema_step", value.size, value, average, counts, value.size, loss_scale)


def scalar(lr) -> tuple:
    """A learning rate as the kernels take it: a factor, and where in device memory the rest is, or None."""
    return (lr.factor, lr.array) if isinstance(lr, DeviceNumber) else (lr, None)
