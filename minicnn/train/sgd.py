"""Stochastic gradient descent with momentum and weight decay, exactly as section 5 of the AlexNet paper prints it.

    v <- momentum * v  -  decay * lr * w  -  lr * dw            w <- w + v

The rate sits inside v. So after the rate has been divided by ten, the velocity gathered at the old rate still runs out
over the next steps; where the rate multiplies v only on the way out (v <- m v + dw, w <- w - lr v, as PyTorch has it)
the old velocity shrinks at once. At a constant rate the two are the same. Velocities are kept by parameter name.
"""

from __future__ import annotations

from collections.abc import Mapping

from minicnn.errors import ConfigError
from minicnn.param import Param


class SGD:
    """Updates parameters in place. `lr` may be changed between steps; `velocities` is what a checkpoint holds.

    lr_mults: further factors on the rate, by parameter name, besides each parameter's own `lr_mult`.
    """

    def __init__(self, params: Mapping[str, Param], lr: float, momentum: float = 0.9, decay: float = 0.0005,
                 lr_mults: Mapping[str, float] | None = None):
        if not lr > 0:
            raise ConfigError(f"the learning rate must be positive, not {lr}")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), not {momentum}")
        if decay < 0:
            raise ConfigError(f"weight decay must not be negative, it is {decay}")
        self.params = dict(params)
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.lr_mults = dict(lr_mults or {})
        self.velocities = {}                                   # name -> array like param.data, made at the first step

    @property
    def trained(self) -> dict[str, float]:
        """Name -> factor on the rate, of the parameters that are trained at all."""
        factors = {name: param.lr_mult * self.lr_mults.get(name, 1.0) for name, param in self.params.items()}
        return {name: factor for name, factor in factors.items() if factor}

    def step(self, ops, loss_scale=None) -> None:
        """One update of every parameter from its `grad`; parameters with a factor of 0 stay as they are.

        loss_scale: a LossScale that the gradients were multiplied with; where one overflowed, nothing is updated.
        """
        trained, scaled = self.trained, {}
        if loss_scale is not None:
            loss_scale.look([self.params[name].grad for name in trained])
            scaled = {"loss_scale": loss_scale.state}
        with ops.together():
            for name, factor in trained.items():
                param = self.params[name]
                if name not in self.velocities:
                    self.velocities[name] = ops.zeros(param.data.shape, param.data.dtype)
                ops.sgd_step(param.data, param.grad, self.velocities[name], lr=self.lr * factor, momentum=self.momentum,
                             decay=self.decay * param.decay_mult, **scaled)
        if loss_scale is not None:
            loss_scale.next()
