"""Stochastic gradient descent with momentum and weight decay, exactly as section 5 of the AlexNet paper prints it.

    v <- momentum * v  -  decay * lr * w  -  lr * dw            w <- w + v

The learning rate sits inside v. So after it has been divided by ten, the velocity gathered at the old learning rate
still runs out over the next steps; where the learning rate multiplies v only on the way out (v <- m v + dw,
w <- w - lr v, as PyTorch has it) the old velocity shrinks at once. At a constant learning rate the two are the same.
Velocities are kept by parameter name. With g = dw + decay * w, the forms are:

    whose                       options                                    v              w
    the paper's, Caffe's        (the default)                              m v - lr g     w + v
    Nesterov's, of that         nesterov=True                              m v - lr g     w + m v - lr g
    PyTorch's                   lr_in_velocity=False                       m v + g        w - lr v
    PyTorch's, nesterov=True    lr_in_velocity=False, nesterov=True        m v + g        w - lr (m v + g)

decoupled=True, with any of them (SGDW of Loshchilov and Hutter): g = dw, and first w <- (1 - lr * decay) w, so that
momentum does not multiply the weight decay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from minicnn.errors import ConfigError
from minicnn.shapes import finite
from minicnn.train.optimiser import EarlyUpdate, Optimiser, Updates

PAPERS_FORM = {"lr_in_velocity": True, "nesterov": False, "decoupled": False}


class SGD(Optimiser):
    """Updates the parameters of a network in place: `sgd = SGD(net, lr=0.01)`, then `sgd.step()` after net.backward().

    momentum: in [0, 1).   lr_in_velocity, nesterov, decoupled: the form of the update; see above.   filter_rms: after
    each update, filters of convolutions of a larger root mean square are scaled down to it (ZFNet's 0.1); None: never.
    Other arguments: see Optimiser.   `velocities`, by parameter name, is what a checkpoint holds.
    """

    SLOTS = ("velocity",)

    def __init__(self, net, lr: float, momentum: float = 0.9, decay: float = 0.0005,
                 lr_mults: Mapping[str, float] | None = None, *, lr_in_velocity: bool = True, nesterov: bool = False,
                 decoupled: bool = False, decays: Mapping[str, float] | None = None, filter_rms: float | None = None):
        super().__init__(net, lr, decay, lr_mults, decays)
        if not 0 <= finite(momentum, "momentum") < 1:
            raise ConfigError(f"momentum must lie in [0, 1), not {momentum}")
        if filter_rms is not None and not finite(filter_rms, "filter_rms") > 0:
            raise ConfigError(f"filter_rms must be positive, or None, not {filter_rms}")
        self.momentum, self.filter_rms = momentum, filter_rms
        self._shared_gradient = None                        # of convolutions; see updates_within
        self.form = {"lr_in_velocity": lr_in_velocity, "nesterov": nesterov, "decoupled": decoupled}

    @property
    def velocities(self) -> dict:
        """Name -> array like param.data."""
        return self.arrays["velocity"]

    def _update(self, ops, w, dw, v, *, lr, decay, **scaled):
        ops.sgd_step(w, dw, v, lr=lr, momentum=self.momentum, decay=decay, **self.form, **scaled)

    def _end_step(self, ops, trained, **scaled):
        if self.filter_rms is None:
            return
        with ops.together():
            for name in trained:
                if (w := self.params[name].data).ndim == 4:             # of a convolution: (R, S, C, K)
                    ops.rms_limit_step(w, limit=self.filter_rms, **scaled)

    def updates_within(self, net, lr):
        """Of layers of one node each. In the form of the paper, the gradients of fully connected layers are neither
        written nor read: for AlexNet, 469 MB a step. Those of convolutions share the memory of the largest."""
        products = "update" in net.ops.fusions and self.form == PAPERS_FORM
        early = "early" in net.ops.fusions
        if net.ranks.is_split or not (products or early) or _changes_the_step(type(self)):
            return None
        nodes = Counter(id(node.layer) for node in net.nodes)
        once = {param.name for node in net.nodes if node.layer.updates_within and nodes[id(node.layer)] == 1
                for param in node.layer.params.values()}
        trained = self._largest_first(self.trained)
        slots = {name: self._arrays_of(net.ops, name) for name in trained}      # all of them, in the order of a step
        once = [name for name in trained if name in once]
        matrices = [name for name in once if products and self.params[name].data.ndim == 2]
        kernels = [name for name in once if early and self.params[name].data.ndim == 4]
        functions = {name: partial(self._update_within, net.ops, name, *slots[name], lr * trained[name])
                     for name in matrices}
        for name in kernels:
            w = self.params[name].data
            if self._shared_gradient is None or self._shared_gradient.size < w.size:     # the first is largest
                self._shared_gradient = net.ops.empty((w.size,), w.dtype)
            dw = self._shared_gradient[:w.size].reshape(w.shape)
            functions[name] = EarlyUpdate(dw, partial(
                self._update, net.ops, w, dw, *slots[name], lr=lr * trained[name], decay=self._decay_of(name)))
        return Updates(functions, set())

    def _update_within(self, ops, name, v, lr, x, dy, work) -> None:
        ops.linear_sgd_step(x, dy, self.params[name].data, v, lr=lr, momentum=self.momentum,
                            decay=self._decay_of(name), work=work)

    def last_updates(self, read):
        inside, trained = self.form["lr_in_velocity"], self.trained
        return {name: read(v) if inside else self.lr * trained.get(name, 0.0) * read(v)
                for name, v in self.velocities.items()}


def _changes_the_step(cls: type[SGD]) -> bool:
    """Whether a class reads or changes gradients in a step of its own, so that they must be there."""
    return any(getattr(cls, name) is not getattr(SGD, name) for name in ("step", "_begin_step", "_update", "_end_step"))
