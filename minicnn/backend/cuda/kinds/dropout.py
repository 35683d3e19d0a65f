"""Launches of dropout.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div
from minicnn.backend.ops import DeviceNumber
from minicnn.rng import key_words


class Dropout(Kind):
    """Dropout, with masks computed from the sample ids."""

    def dropout_forward(self, x, y, *, rate, scale, seed, purpose, epoch, sample_ids):
        """y = x * scale where u >= the dropout rate, else 0; sample_ids uint32 (N,), host or device. y may be x."""
        N, units = x.shape[0], x.size // x.shape[0]
        k0, k1 = key_words(seed)
        epoch = (0, epoch.array) if isinstance(epoch, DeviceNumber) else (epoch, None)
        self._gpu.launch("dropout", "dropout", ceil_div(N * ceil_div(units, 4), THREADS),
                         (x, y, N, units, rate, scale, k0, k1, *epoch, purpose, self.from_host(sample_ids)))

    def dropout_backward(self, dy, dx, *, rate, scale, seed, purpose, epoch, sample_ids):
        """dx = dy * the same mask. dx may be dy."""
        self.dropout_forward(dy, dx, rate=rate, scale=scale, seed=seed, purpose=purpose, epoch=epoch,
                             sample_ids=sample_ids)
