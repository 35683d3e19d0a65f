"""Mistakes in scaling the loss, and in counting."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, arguments, option


def only_infinity(dw, state):
    state[2] |= int(np.isinf(dw).any())


def only_nan(dw, state):
    state[2] |= int(np.isnan(dw).any())


def forgets_an_earlier_one(op, ops):
    """The flag is that of the last array looked at."""
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


def does_not_begin_again(op, ops):
    def call(state, **options):
        op(state, **options)
        state[2] = 1
    return call


def ties_are_hits(op, ops):
    """Every score as high as the label's counts as lower."""
    def call(x, labels, tally):
        x = x.copy()
        x[np.arange(len(x)), labels] += 1e-9
        op(x, labels, tally)
    return call


MUTATIONS = [
    Mutation("scaling: NaN passed over", "overflow", {"find_overflow": lambda op, ops: only_infinity}, True),
    Mutation("scaling: infinity passed over", "overflow", {"find_overflow": lambda op, ops: only_nan}, True),
    Mutation("scaling: last number not looked at", "overflow", {
        "find_overflow": arguments(lambda dw, state: (dw[:-1].copy(), state))}, True),
    Mutation("scaling: an earlier overflow forgotten", "overflow", {"find_overflow": forgets_an_earlier_one}, True),
    Mutation("scaling: rises one step late", "scales", {"next_loss_scale": option("steady", lambda n: n + 1)}, True),
    Mutation("scaling: falls below the lowest", "scales", {"next_loss_scale": option("lowest", lambda n: n - 9)}, True),
    Mutation("scaling: rises above the highest", "scales", {"next_loss_scale": option("highest", lambda n: n + 9)},
             True),
    Mutation("scaling: an overflow counts as good", "scales", {"next_loss_scale": counts_overflows_as_good}, True),
    Mutation("scaling: the flag stays", "scales", {"next_loss_scale": does_not_begin_again}, True),
    Mutation("tally: weight forgotten", "tally", {"count_losses": option("weight", lambda w: 1.0)}, True),
    Mutation("tally: last loss forgotten", "tally", {
        "count_losses": arguments(lambda losses, tally: (losses[:-1].copy(), tally))}, True),
    Mutation("tally: ties are hits", "tally", {"count_correct": ties_are_hits}, True),
    Mutation("tally: labels of the neighbours", "tally", {
        "count_correct": arguments(lambda x, labels, tally: (x, np.roll(labels, 1), tally))}, True),
]
