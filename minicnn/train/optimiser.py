"""What all optimisers share: which parameters are trained, the step, and what a checkpoint holds of them.

    sgd.py    SGD      momentum, as printed in the AlexNet paper; PyTorch's form, Nesterov's
    adam.py   Adam, AdamW
    average.py         the moving average of the weights, updated at the end of each step where one was asked for
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from minicnn.errors import ConfigError
from minicnn.param import Param
from minicnn.shapes import finite
from minicnn.train.average import WeightAverage


class EarlyUpdate(NamedTuple):
    """gradient: where the gradient of a parameter is to be written; others use the same memory after its `update()`."""

    gradient: object
    update: Callable[[], None]


class Updates(NamedTuple):
    """functions: weights of a fully connected layer -> update(x, dy, work), for the gradient x' dy; weights of a
    convolution -> an EarlyUpdate.   done: the names of those that were updated."""

    functions: dict[str, Callable | EarlyUpdate]
    done: set[str]


class Optimiser:
    """Updates the parameters of a network in place: `sgd = SGD(net, lr=0.01)`, then `sgd.step()` after net.backward().

    net: a network, or its `params`; `step` must then be given the backend.   lr: may be changed between steps.
    `decay`: the weight decay.   lr_mults: further factors on the learning rate, by parameter name, besides each
    parameter's own `lr_mult`.   decays: weight decay by parameter name, in place of `decay`.
    arrays: slot -> parameter name -> array like param.data, made at the first step.   average: None, or a WeightAverage
    that every step updates.
    """

    SLOTS: tuple[str, ...] = ()                             # names of the arrays that are kept for each parameter

    def __init__(self, net, lr: float, decay: float, lr_mults: Mapping[str, float] | None,
                 decays: Mapping[str, float] | None = None):
        if not finite(lr, "the learning rate") > 0:
            raise ConfigError(f"the learning rate must be positive and finite, not {lr}")
        for value in (decay, *(decays or {}).values()):
            if not finite(value, "weight decay") >= 0:
                raise ConfigError(f"weight decay must not be negative, it is {value}")
        self._net = None if isinstance(net, Mapping) else net
        self.params: dict[str, Param] = dict(net if self._net is None else net.params)
        self.lr, self.decay, self.lr_mults, self.decays = lr, decay, dict(lr_mults or {}), dict(decays or {})
        self.arrays: dict[str, dict] = {slot: {} for slot in self.SLOTS}
        self.average: WeightAverage | None = None

    @property
    def more_memory(self) -> int:
        """Bytes that it keeps beyond one array for each parameter, which net.memory counts."""
        copies = len(self.SLOTS) - 1 + (self.average is not None)
        return copies * sum(param.data.nbytes for param in self.params.values())

    @property
    def trained(self) -> dict[str, float]:
        """Name -> factor on the learning rate, of the parameters that are trained: not frozen, and not of factor 0."""
        frozen = () if self._net is None else self._net.frozen_params
        factors = {name: param.lr_mult * self.lr_mults.get(name, 1.0) for name, param in self.params.items()}
        return {name: factor for name, factor in factors.items() if factor and name not in frozen}

    def step(self, ops=None, loss_scale=None, *, lr=None, without: Collection[str] = ()) -> None:
        """One update of every parameter from its `grad`; those that are not trained stay as they are.

        ops: the backend, by default the network's.   loss_scale: a LossScale that the gradients were multiplied with;
        where one overflowed, nothing is updated.   lr: in place of `self.lr`, such as a number in device memory.
        without: parameters that the backward pass has updated (updates_within).
        """
        ops, lr = ops or self._ops(), self.lr if lr is None else lr
        trained, scaled = self._largest_first(self.trained), {}
        if loss_scale is not None:
            loss_scale.look([self.params[name].grad for name in trained])
            scaled = {"loss_scale": loss_scale.state}
        self._begin_step(ops, **scaled)
        with ops.together():
            for name, factor in trained.items():
                if name not in without:
                    param = self.params[name]
                    self._update(ops, param.data, param.grad, *self._arrays_of(ops, name), lr=lr * factor,
                                 decay=self._decay_of(name), **scaled)
        self._end_step(ops, trained, **scaled)
        if self.average is not None:
            self.average.step(ops, **scaled)
        if loss_scale is not None:
            loss_scale.next()

    def _decay_of(self, name: str) -> float:
        """The weight decay of a parameter."""
        return self.decays.get(name, self.decay) * self.params[name].decay_mult

    def _largest_first(self, factors: dict[str, float]) -> dict[str, float]:
        """So that other threads are busy with these while the small ones, which are many, are still collected."""
        return dict(sorted(factors.items(), key=lambda item: -self.params[item[0]].data.size))

    def averaged(self) -> contextlib.AbstractContextManager:
        """Inside, the network has the averaged weights, where there is an average."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    # ---- what an optimiser has of its own
    def _begin_step(self, ops, **scaled) -> None:
        """Before the parameters are updated."""

    def _end_step(self, ops, trained, **scaled) -> None:
        """After the parameters are updated.   trained: names of those that were."""

    def updates_within(self, net, lr) -> Updates | None:
        """Updates that the backward pass of `net` may make at once, so that gradients take no memory, or share some;
        None where a backend saves nothing by it, or the optimiser has none. After `net.backward(updates=...)`, `step`
        is to leave them out.
        """
        return None

    def _update(self, ops, w, dw, *arrays, lr, decay, **scaled) -> None:
        """One update of w from dw; arrays: of the slots."""
        raise TypeError(f"{type(self).__name__} does not define the method _update")

    def last_updates(self, read) -> dict:
        """Name -> elements of the last update of each parameter, up to the sign; read(array) gives elements of one.

        Where the update itself is not kept: at the current learning rate, without decoupled weight decay.
        """
        raise TypeError(f"{type(self).__name__} does not define the method last_updates")

    def _arrays_of(self, ops, name: str) -> list:
        """The arrays of this parameter, zeros at first."""
        data = self.params[name].data
        for arrays in self.arrays.values():
            if name not in arrays:
                arrays[name] = ops.zeros(data.shape, data.dtype)
        return [arrays[name] for arrays in self.arrays.values()]

    def _ops(self):
        if self._net is None:
            raise ConfigError("an optimiser of parameters alone does not know their backend; make it with "
                              f"{type(self).__name__}(net, ...), or call step(net.ops)")
        return self._net.ops

    # ---- what a checkpoint holds besides `arrays`
    def to_dict(self) -> dict:
        """Numbers, as plain data."""
        return {}

    def load(self, arrays: dict[str, dict], numbers: dict) -> None:
        """Go on from `arrays`, on this backend, and a `to_dict`."""
        self.arrays = {slot: arrays.get(slot, {}) for slot in self.SLOTS}

