"""Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019), as in PyTorch:

    g <- dw + decay * w     (AdamW: w <- (1 - lr * decay) w, and g = dw)
    m <- beta1 m + (1 - beta1) g              v <- beta2 v + (1 - beta2) g^2
    w <- w - lr  (m / (1 - beta1^t))  /  (sqrt(v / (1 - beta2^t)) + eps)

m and v, the moments, are kept by parameter name; t counts the steps that were taken. In Adam the weight decay is part
of g and so is divided by sqrt(v), too; AdamW applies it to the weights directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minicnn.errors import ConfigError
from minicnn.shapes import finite
from minicnn.train.optimiser import Optimiser


class Adam(Optimiser):
    """Updates the parameters of a network in place: `adam = Adam(net)`, then `adam.step()` after net.backward().

    Other arguments: see Optimiser.   betas: of the first and of the second moment.   eps: added to the root of the
    second.   t is kept on the device: a captured step counts, and a step skipped by an overflow does not.
    """

    SLOTS = ("moment1", "moment2")
    DECOUPLED = False

    def __init__(self, net, lr: float = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 decay: float = 0.0, lr_mults: Mapping[str, float] | None = None, *,
                 decays: Mapping[str, float] | None = None):
        super().__init__(net, lr, decay, lr_mults, decays)
        pair = isinstance(betas, Sequence) and len(betas) == 2
        if not pair or not all(0 <= finite(beta, "each of betas") < 1 for beta in betas):
            raise ConfigError(f"betas must be two values in [0, 1), not {betas}")
        if not finite(eps, "eps") > 0:
            raise ConfigError(f"eps must be positive, not {eps}")
        self.betas, self.eps = tuple(betas), eps
        self._steps, self._counts, self._to_host = 0, None, None        # counts: of kernels/reference/adam.py

    def _begin_step(self, ops, **scaled):
        if self._counts is None:
            self._counts, self._to_host = ops.from_host(np.array([self._steps, 0.0, 0.0])), ops.to_host
        ops.adam_advance(self._counts, beta1=self.betas[0], beta2=self.betas[1], **scaled)

    def _update(self, ops, w, dw, m, v, *, lr, decay, **scaled):
        ops.adam_step(w, dw, m, v, self._counts, lr=lr, beta1=self.betas[0], beta2=self.betas[1], eps=self.eps,
                      decay=decay, decoupled=self.DECOUPLED, **scaled)

    def to_dict(self):
        return {"steps": self._steps if self._counts is None else int(self._to_host(self._counts)[0])}

    def load(self, arrays, numbers):
        super().load(arrays, numbers)
        self._steps, self._counts = numbers["steps"], None

    def last_updates(self, read):
        trained, steps = self.trained, max(1, self.to_dict()["steps"])
        first, second = (1 - beta**steps for beta in self.betas)
        return {name: self.lr * trained.get(name, 0.0) * (read(m) / first)
                / (np.sqrt(read(self.arrays["moment2"][name]) / second) + self.eps)
                for name, m in self.arrays["moment1"].items()}


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    DECOUPLED = True

    def __init__(self, net, lr: float = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 decay: float = 0.01, lr_mults: Mapping[str, float] | None = None, *,
                 decays: Mapping[str, float] | None = None):
        super().__init__(net, lr, betas, eps, decay, lr_mults, decays=decays)
