"""Mistakes in loss scaling and in the running metrics."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, arguments, option


def only_infinity(dw, state):
    state[2] |= int(np.isinf(dw).any())


def only_nan(dw, state):
    state[2] |= int(np.isnan(dw).any())


def forgets_an_earlier_one(op, ops):
    """The flag is that of the last array."""
    def call(dw, state):
        state[2] = 0
        op(dw, state)
    return call


def counts_overflows_as_good(op, ops):
    def call(state, **options):
        good = state[1]
        op(state, **options)
        state[1] = good + 1
    return call


def keeps_the_flag(op, ops):
    def call(state, **options):
        op(state, **options)
        state[2] = 1
    return call


def ties_are_correct(op, ops):
    """Every score that is equal to the label's counts as lower."""
    def call(x, labels, counts):
        x = x.copy()
        x[np.arange(len(x)), labels] += 1e-9
        op(x, labels, counts)
    return call


MUTATIONS = [
    Mutation("scaling: NaN ignored", "overflow", {"find_overflow": lambda op, ops: only_infinity}, True),
    Mutation("scaling: infinity ignored", "overflow", {"find_overflow": lambda op, ops: only_nan}, True),
    Mutation("scaling: last element ignored", "overflow", {
        "find_overflow": arguments(lambda dw, state: (dw[:-1].copy(), state))}, True),
    Mutation("scaling: an earlier overflow lost", "overflow", {"find_overflow": forgets_an_earlier_one}, True),
    Mutation("scaling: rises one step late", "scales", {"next_loss_scale": option("steady", lambda n: n + 1)}, True),
    Mutation("scaling: falls below the lowest", "scales", {"next_loss_scale": option("lowest", lambda n: n - 9)}, True),
    Mutation("scaling: rises above the highest", "scales", {"next_loss_scale": option("highest", lambda n: n + 9)},
             True),
    Mutation("scaling: an overflow counts as good", "scales", {"next_loss_scale": counts_overflows_as_good}, True),
    Mutation("scaling: the flag stays", "scales", {"next_loss_scale": keeps_the_flag}, True),
    Mutation("metrics: weight forgotten", "metrics", {"count_losses": option("weight", lambda w: 1.0)}, True),
    Mutation("metrics: last loss forgotten", "metrics", {
        "count_losses": arguments(lambda losses, counts: (losses[:-1].copy(), counts))}, True),
    Mutation("metrics: ties are correct", "metrics", {"count_correct": ties_are_correct}, True),
    Mutation("metrics: labels of the neighbours", "metrics", {
        "count_correct": arguments(lambda x, labels, counts: (x, np.roll(labels, 1), counts))}, True),
]
