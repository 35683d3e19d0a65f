"""Mistakes in the training step. It has no gradients; only values are compared."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, fixed, instead, option


def lr_outside(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    """The other convention: v <- m v + decay w + dw, w <- w - lr v."""
    v *= momentum
    v += decay * w + dw
    w -= lr * v


def decay_without_lr(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    v *= momentum
    v -= decay * w + lr * dw
    w += v


def updated_before(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    w += v
    v *= momentum
    v -= decay * lr * w + lr * dw


def old_velocity(op, ops):
    """Nesterov's form with the velocity of the step before."""
    def call(w, dw, v, *, lr, momentum, decay, **form):
        before = v.copy()
        op(w, dw, v, lr=lr, momentum=momentum, decay=decay, **form)
        if form.get("nesterov"):
            w += momentum * (before - v) * (1 if form.get("lr_in_velocity", True) else -lr)
    return call


def shrinks_after(op, ops):
    """Decoupled weight decay of the new weights."""
    def call(w, dw, v, *, lr, decay, decoupled=False, **options):
        op(w, dw, v, lr=lr, decay=0.0 if decoupled else decay, **options)
        if decoupled:
            w *= 1 - lr * decay
    return call


def without_overflow(state):
    return state * np.array([1, 1, 0, 1], np.int32)


def from_new_weights(op, ops):
    """The step twice: its second weight decay and gradient are of the new weights."""
    def call(x, dy, w, v, **options):
        op(x, dy, w, v, **options)
        op(x, dy, w, v, **options)
    return call


MUTATIONS = [
    Mutation("linear_sgd_step: without weight decay", "linear_sgd", {"linear_sgd_step": fixed("decay", 0.0)}, True),
    Mutation("linear_sgd_step: without momentum", "linear_sgd", {"linear_sgd_step": fixed("momentum", 0.0)}, True),
    Mutation("linear_sgd_step: twice", "linear_sgd", {"linear_sgd_step": from_new_weights}, True),
    Mutation("sgd: the learning rate outside v", "sgd", {"sgd_step": instead(lr_outside)}, True),
    Mutation("sgd: weight decay without the learning rate", "sgd", {"sgd_step": instead(decay_without_lr)}, True),
    Mutation("sgd: w updated before v", "sgd", {"sgd_step": instead(updated_before)}, True),
    Mutation("sgd: momentum omitted", "sgd", {"sgd_step": option("momentum", lambda m: 0.0)}, True),
    Mutation("sgd: weight decay omitted", "sgd", {"sgd_step": option("decay", lambda d: 0.0)}, True),
    Mutation("sgd: form ignored, velocity", "sgd_forms", {"sgd_step": fixed("lr_in_velocity", True)}, True),
    Mutation("sgd: form ignored, Nesterov", "sgd_forms", {"sgd_step": fixed("nesterov", False)}, True),
    Mutation("sgd: form ignored, weight decay", "sgd_forms", {"sgd_step": fixed("decoupled", False)}, True),
    Mutation("sgd: Nesterov's with the old velocity", "sgd_forms", {"sgd_step": old_velocity}, True),
    Mutation("sgd: decoupled weight decay after the step", "sgd_forms", {"sgd_step": shrinks_after}, True),
    Mutation("sgd: gradient not divided", "scaled_step", {"sgd_step": option("loss_scale", lambda state: None)}, True),
    Mutation("sgd: step after an overflow", "scaled_step", {"sgd_step": option("loss_scale", without_overflow)}, True),
    Mutation("sgd: weight decay with the wrong sign", "sgd", {"sgd_step": option("decay", lambda d: -d)}, True),
]
