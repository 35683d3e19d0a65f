"""Stochastic gradient descent with momentum and weight decay, exactly as section 5 of the AlexNet paper prints it.

    v <- momentum * v  -  decay * lr * w  -  lr * dw            w <- w + v

The learning rate sits inside v. So after it has been divided by ten, the velocity gathered at the old learning rate
still runs out over the next steps; where the learning rate multiplies v only on the way out (v <- m v + dw,
w <- w - lr v, as PyTorch has it) the old velocity shrinks at once. At a constant learning rate the two are the same.
Velocities are kept by parameter name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from minicnn.errors import ConfigError
from minicnn.param import Param


class SGD:
    """Updates the parameters of a network in place: `sgd = SGD(net, lr=0.01)`, then `sgd.step()` after net.backward().

    net: a network, or its `params`; `step` must then be given the backend.   `lr` may be changed between steps;
    `velocities` is what a checkpoint holds.   lr_mults: further factors on the learning rate, by parameter name,
    besides each parameter's own `lr_mult`.
    """

    def __init__(self, net, lr: float, momentum: float = 0.9, decay: float = 0.0005,
                 lr_mults: Mapping[str, float] | None = None):
        if not 0 < lr < math.inf:
            raise ConfigError(f"the learning rate must be positive and finite, not {lr}")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), not {momentum}")
        if decay < 0:
            raise ConfigError(f"weight decay must not be negative, it is {decay}")
        self._net = None if isinstance(net, Mapping) else net
        self.params: dict[str, Param] = dict(net if self._net is None else net.params)
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.lr_mults = dict(lr_mults or {})
        self.velocities = {}                                   # name -> array like param.data, made at the first step

    @property
    def trained(self) -> dict[str, float]:
        """Name -> factor on the learning rate, of the parameters that are trained at all."""
        factors = {name: param.lr_mult * self.lr_mults.get(name, 1.0) for name, param in self.params.items()}
        return {name: factor for name, factor in factors.items() if factor}

    def step(self, ops=None, loss_scale=None, *, lr=None) -> None:
        """One update of every parameter from its `grad`; parameters with a factor of 0 stay as they are.

        ops: the backend, by default the network's.   loss_scale: a LossScale that the gradients were multiplied with;
        where one overflowed, nothing is updated.   lr: in place of `self.lr`, such as a number in device memory.
        """
        ops, lr = ops or self._ops(), self.lr if lr is None else lr
        trained, scaled = self.trained, {}
        if loss_scale is not None:
            loss_scale.look([self.params[name].grad for name in trained])
            scaled = {"loss_scale": loss_scale.state}
        with ops.together():
            for name, factor in trained.items():
                param = self.params[name]
                if name not in self.velocities:
                    self.velocities[name] = ops.zeros(param.data.shape, param.data.dtype)
                ops.sgd_step(param.data, param.grad, self.velocities[name], lr=lr * factor, momentum=self.momentum,
                             decay=self.decay * param.decay_mult, **scaled)
        if loss_scale is not None:
            loss_scale.next()

    def _ops(self):
        if self._net is None:
            raise ConfigError("an optimiser of parameters alone does not know their backend; make it with "
                              "SGD(net, ...), or call step(net.ops)")
        return self._net.ops
