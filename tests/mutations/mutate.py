"""What a mutation is, and mistakes that many operations share.

A mutation replaces one or two operations of a backend by wrong ones. The gradient check and the comparison with the
reference must both detect it; but where forward and backward are wrong in the same way (`consistent`), the gradients
are the correct ones of another function, and only the comparison can detect it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minicnn.backend.ops import Ops


@dataclass(frozen=True)
class Mutation:
    """case: a key of test_mutations.CASES.   changes: operation -> function of (the correct one, all correct ones)."""

    name: str
    case: str
    changes: dict[str, Callable]
    consistent: bool = False

    def apply(self, ops: Ops) -> Ops:
        mutant = copy.copy(ops)
        for op, wrong in self.changes.items():
            setattr(mutant, op, wrong(getattr(ops, op), ops))
        return mutant


def option(name: str, change: Callable) -> Callable:
    """The correct operation, called with a wrong value of one keyword argument."""
    return lambda op, ops: lambda *args, **options: op(*args, **{**options, name: change(options[name])})


def fixed(name: str, value) -> Callable:
    """The correct operation, which ignores this keyword argument."""
    return lambda op, ops: lambda *args, **options: op(*args, **{**options, name: value})


def arguments(change: Callable) -> Callable:
    """The correct operation, called with other arrays."""
    return lambda op, ops: lambda *args, **options: op(*change(*args), **options)


def afterwards(change: Callable) -> Callable:
    """The correct operation, whose result is changed afterwards: change(*args, **options)."""
    def wrong(op, ops):
        def call(*args, **options):
            op(*args, **options)
            change(*args, **options)
        return call
    return wrong


def instead(change: Callable) -> Callable:
    """Another function altogether."""
    return lambda op, ops: change


def written(op, ops):
    """Written where it should be added: the last argument is zeroed first (dw = instead of dw +=)."""
    def call(*args, **options):
        args[-1][...] = 0
        op(*args, **options)
    return call


def added(op, ops):
    """Added where it should be written: dx += instead of dx =."""
    def call(*args, **options):
        before = args[-1].copy()
        op(*args, **options)
        args[-1][...] += before
    return call


def flipped(w):
    return np.ascontiguousarray(w[::-1, ::-1])


def swapped(w):
    """w with its first two axes swapped."""
    return np.ascontiguousarray(w.swapaxes(0, 1))


def without_last(axis: int) -> Callable:
    """A copy in which the last slice is zero: a loop that ends one too early."""
    def change(a):
        a = a.copy()
        a.swapaxes(0, axis)[-1] = 0
        return a
    return change


def shifted(pads):
    return (pads[0] + 1, pads[1], pads[2] - 1, pads[3])
