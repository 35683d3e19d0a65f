"""Mistakes in local response normalisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.mutations.mutate import Mutation, added, option, shifted


def lrn_backward(forward: str, formula: Callable) -> Callable:
    """dx = formula(x, dy, p = s^-beta, s, correct = dy -> the correct dx, alpha, beta): a wrong derivation."""
    def wrong(op, ops):
        def call(x, dy, dx, **constants):
            y = np.empty_like(x)
            getattr(ops, forward)(x, y, **constants)
            power = y / x
            s = power ** (-1 / constants["beta"])

            def correct(dy):
                result = np.empty_like(x)
                op(x, np.ascontiguousarray(dy), result, **constants)
                return result
            dx[...] = formula(x, dy, power, s, correct, constants["alpha"], constants["beta"])
        return call
    return wrong


def no_neighbours(x, dy, p, s, correct, alpha, beta):
    return dy * p


def own_value_only(x, dy, p, s, correct, alpha, beta):
    return dy * p - 2 * alpha * beta * x * (dy * x * p / s)


def half_the_neighbours(x, dy, p, s, correct, alpha, beta):
    return (correct(dy) + dy * p) / 2


def neighbours_added(x, dy, p, s, correct, alpha, beta):
    return 2 * dy * p - correct(dy)


def wrong_exponent(x, dy, p, s, correct, alpha, beta):
    return dy * p + correct(dy * s) - dy * s * p


def shared(kind: str) -> list[Mutation]:
    """Those that the two kinds of normalisation share."""
    forward, backward = f"{kind}_forward", f"{kind}_backward"

    def wrong(name: str, everywhere: bool) -> Mutation:
        change = option(name, constants[name])
        changes = {forward: change, backward: change} if everywhere else {backward: change}
        return Mutation(f"{kind}: wrong {name}{'' if everywhere else ' in dx'}", kind, changes, everywhere)

    constants = {"n": lambda n: n + 2, "k": lambda k: k / 2, "alpha": lambda alpha: alpha / 3,
                 "beta": lambda beta: beta + 0.25}
    formulas = {"without its neighbours": no_neighbours, "without the others": own_value_only,
                "without the factor 2": half_the_neighbours, "with the wrong sign": neighbours_added,
                "with the exponent -beta": wrong_exponent}
    return [
        *(Mutation(f"{kind}: dx {name}", kind, {backward: lrn_backward(forward, f)}) for name, f in formulas.items()),
        *(wrong(name, everywhere) for name in constants for everywhere in (True, False)),
        Mutation(f"{kind}: window two short in dx", kind, {backward: option("n", lambda n: n - 2)}),
        Mutation(f"{kind}: dx added", kind, {backward: added}),
    ]


def db_overwritten(op, ops):
    """db = its sums instead of +=."""
    def call(*arrays, db, **options):
        db[...] = 0
        op(*arrays, db=db, **options)
    return call


MUTATIONS = [
    *(Mutation(f"lrn_maxpool: {name}", "lrn_maxpool", {operation: change}, True)
      for operation in ("lrn_maxpool_forward", "lrn_maxpool_backward") for name, change in (
          (f"groups forgotten in {operation}", option("groups", lambda g: 1)),
          (f"window of LRN two short in {operation}", option("n", lambda n: n - 2)))),
    Mutation("lrn_maxpool: windows shifted", "lrn_maxpool", {"lrn_maxpool_backward": option("pads", shifted)}, True),
    Mutation("lrn_maxpool: not masked by the ReLU before", "lrn_maxpool", {
        "lrn_maxpool_backward": option("relu", lambda relu: False)}, True),
    Mutation("lrn_maxpool: db written", "lrn_maxpool", {"lrn_maxpool_backward": db_overwritten}, True),
    Mutation("lrn: not masked by the ReLU before", "lrn_epilogue", {
        "lrn_backward": option("relu", lambda relu: False)}, True),
    Mutation("lrn: db written", "lrn_epilogue", {"lrn_backward": db_overwritten}, True),
    *shared("lrn"),
    *shared("lrn_within"),
    Mutation("lrn: dx without its neighbours, at the paper's alpha", "lrn_paper", {
        "lrn_backward": lrn_backward("lrn_forward", no_neighbours)}),
    Mutation("lrn_within: dx without its neighbours, at the paper's alpha", "lrn_within_paper", {
        "lrn_within_backward": lrn_backward("lrn_within_forward", no_neighbours)}),
    Mutation("lrn: groups forgotten in dx", "lrn_groups", {"lrn_backward": option("groups", lambda g: 1)}),
    Mutation("lrn: groups forgotten", "lrn_groups", {
        "lrn_forward": option("groups", lambda g: 1), "lrn_backward": option("groups", lambda g: 1)}, True),
]
