"""Mistakes in the fully connected layer."""

from __future__ import annotations

from tests.mutations.mutate import Mutation, added, arguments, option, swapped, without_last, written

MUTATIONS = [
    Mutation("linear: x w^T in forward", "linear_square", {
        "linear_forward": arguments(lambda x, w, y: (x, swapped(w), y))}),
    Mutation("linear: dx with w instead of w^T", "linear_square", {
        "linear_backward_data": arguments(lambda dy, w, dx: (dy, swapped(w), dx))}),
    Mutation("linear: dx added", "linear", {"linear_backward_data": added}),
    Mutation("linear: dw transposed", "linear_square", {
        "linear_backward_weights": arguments(lambda x, dy, dw: (dy, x, dw))}),
    Mutation("linear: dw written", "linear", {"linear_backward_weights": written}),
    Mutation("linear: dw added where it is to be written", "linear_written", {
        "linear_backward_weights": option("add", lambda add: True)}, True),
    Mutation("linear: last image forgotten in dw", "linear", {
        "linear_backward_weights": arguments(lambda x, dy, dw: (without_last(0)(x), dy, dw))}),
    Mutation("linear: bias forgotten in forward", "linear", {
        "linear_forward": option("epilogue", lambda e: (None, e[1]))}),
]
