"""Mistakes in Adam, in AdamW, and in the moving average of the weights."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, arguments, fixed, option
from tests.mutations.sgd import without_overflow


def root_of_the_sum(op, ops):
    """eps inside the root."""
    def call(w, dw, m, v, counts, *, eps, **options):
        w0 = w.copy()
        op(w, dw, m, v, counts, eps=0.0, **options)
        root = np.sqrt(v) / counts[2]
        w += (w0 - w) * (1 - root / np.sqrt(root**2 + eps))
    return call


def absolute(op, ops):
    """|g| in place of g^2."""
    def call(w, dw, m, v, counts, *, lr, beta2, decay, decoupled=False, **options):
        g, before = dw if decoupled else dw + decay * w, v.copy()
        op(w, dw, m, v, counts, lr=lr, beta2=beta2, decay=decay, decoupled=decoupled, **options)
        v[...] = beta2 * before + (1 - beta2) * np.abs(g)
    return call


def counts_late(op, ops):
    """The first step is number 0 (and its corrections are those of step 1)."""
    def call(counts, **options):
        op(counts, **options)
        counts[0] -= counts[0] == 1
    return call


def not_rooted(op, ops):
    def call(counts, **options):
        op(counts, **options)
        counts[2] **= 2
    return call


def corrected(index):
    """Without this bias correction."""
    def change(w, dw, m, v, counts):
        counts = counts.copy()
        counts[index] = 1
        return w, dw, m, v, counts
    return arguments(change)


def swapped_average(op, ops):
    """d of the value, and 1 - d of the average."""
    return lambda value, average, counts, **options: op(value, average, np.array([counts[0], 1 - counts[1]]), **options)


def one_more(op, ops):
    """(2 + t) / (11 + t)."""
    def call(counts, **options):
        counts[0] += 1
        op(counts, **options)
        counts[0] -= 1
    return call


MUTATIONS = [
    Mutation("adam: beta1 and beta2 swapped", "adam", {
        "adam_step": lambda op, ops: lambda *args, beta1, beta2, **options: op(*args, beta1=beta2, beta2=beta1,
                                                                              **options)}, True),
    Mutation("adam: first moment not corrected", "adam", {"adam_step": corrected(1)}, True),
    Mutation("adam: second moment not corrected", "adam", {"adam_step": corrected(2)}, True),
    Mutation("adam: eps omitted", "adam", {"adam_step": fixed("eps", 0.0)}, True),
    Mutation("adam: eps inside the root", "adam", {"adam_step": root_of_the_sum}, True),
    Mutation("adam: |g| in the second moment", "adam", {"adam_step": absolute}, True),
    Mutation("adam: first moment without momentum", "adam", {"adam_step": fixed("beta1", 0.0)}, True),
    Mutation("adam: weight decay omitted", "adam", {"adam_step": fixed("decay", 0.0)}, True),
    Mutation("adam: weight decay always part of the gradient", "adam", {"adam_step": fixed("decoupled", False)}, True),
    Mutation("adam: weight decay never part of the gradient", "adam", {"adam_step": fixed("decoupled", True)}, True),
    Mutation("adam: weight decay with the wrong sign", "adam", {"adam_step": option("decay", lambda d: -d)}, True),
    Mutation("adam: gradient not divided", "scaled_adam", {"adam_step": fixed("loss_scale", None)}, True),
    Mutation("adam: step after an overflow", "scaled_adam", {
        "adam_step": option("loss_scale", without_overflow)}, True),
    Mutation("adam: a skipped step is counted", "scaled_adam", {
        "adam_advance": option("loss_scale", without_overflow)}, True),
    Mutation("adam: counted late", "adam", {"adam_advance": counts_late}, True),
    Mutation("adam: correction of the second moment not rooted", "adam", {"adam_advance": not_rooted}, True),
    Mutation("adam: corrected by the other beta", "adam", {"adam_advance": option("beta2", lambda b: 0.9)}, True),
    Mutation("ema: weights of value and average swapped", "ema", {"ema_step": swapped_average}, True),
    Mutation("ema: last element ignored", "ema", {
        "ema_step": arguments(lambda value, average, counts: (np.append(value[:-1], average[-1]), average, counts))},
             True),
    Mutation("ema: warm-up ignored", "ema", {"ema_advance": fixed("warmup", False)}, True),
    Mutation("ema: always warm-up", "ema", {"ema_advance": fixed("factor", 1.0)}, True),
    Mutation("ema: warm-up a step ahead", "ema", {"ema_advance": one_more}, True),
    Mutation("ema: update after an overflow", "scaled_ema", {
        "ema_step": option("loss_scale", without_overflow)}, True),
    Mutation("ema: a skipped update is counted", "scaled_ema", {
        "ema_advance": option("loss_scale", without_overflow)}, True),
]
