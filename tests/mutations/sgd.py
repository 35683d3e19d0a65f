"""Mistakes in the training step. It has no slopes; only values can tell."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, instead, option


def rate_outside(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    """The other convention: v <- m v + decay w + dw, w <- w - lr v."""
    v *= momentum
    v += decay * w + dw
    w -= lr * v


def decay_without_rate(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    v *= momentum
    v -= decay * w + lr * dw
    w += v


def moved_before(w, dw, v, *, lr, momentum, decay, loss_scale=None):
    w += v
    v *= momentum
    v -= decay * lr * w + lr * dw


def without_overflow(state):
    return state * np.array([1, 1, 0, 1], np.int32)


MUTATIONS = [
    Mutation("sgd: the rate outside v", "sgd", {"sgd_step": instead(rate_outside)}, True),
    Mutation("sgd: decay without the rate", "sgd", {"sgd_step": instead(decay_without_rate)}, True),
    Mutation("sgd: moved before v is known", "sgd", {"sgd_step": instead(moved_before)}, True),
    Mutation("sgd: momentum forgotten", "sgd", {"sgd_step": option("momentum", lambda m: 0.0)}, True),
    Mutation("sgd: decay forgotten", "sgd", {"sgd_step": option("decay", lambda d: 0.0)}, True),
    Mutation("sgd: gradient not divided", "scaled_step", {"sgd_step": option("loss_scale", lambda state: None)}, True),
    Mutation("sgd: step after an overflow", "scaled_step", {"sgd_step": option("loss_scale", without_overflow)}, True),
    Mutation("sgd: decay grows the weights", "sgd", {"sgd_step": option("decay", lambda d: -d)}, True),
]
