"""Mistakes where paths join or part."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, afterwards, arguments, fixed, instead


def only_first(op, ops):
    def call(dy, dxs):
        op(dy, dxs)
        for dx in dxs[1:]:
            dx[...] = 0
    return call


def every_pixel(dy, dx, *, stride, first):
    """The gradient of a pixel that is kept, also at those beside it."""
    C = dx.shape[-1]
    spread = dy.repeat(stride[0], axis=1).repeat(stride[1], axis=2)
    dx[...] = spread[:, : dx.shape[1], : dx.shape[2], first : first + C]


MUTATIONS = [
    Mutation("concat: gradients in the wrong order", "concat", {
        "concat_backward": lambda op, ops: lambda dy, dxs, **options: op(dy, dxs[::-1], **options)}),
    Mutation("concat: gradient cut one channel further", "concat", {
        "concat_backward": arguments(lambda dy, dxs: (np.roll(dy, -1, axis=-1), dxs))}),
    Mutation("concat: inputs in the wrong order", "concat", {"concat_forward": arguments(lambda xs, y: (xs[::-1], y))}),
    Mutation("add: gradient to the first input only", "add", {"add_backward": only_first}),
    Mutation("add: gradient shared out", "add", {"add_backward": arguments(lambda dy, dxs: (dy / len(dxs), dxs))}),
    Mutation("add: last input forgotten", "add", {"add_forward": arguments(lambda xs, y: (xs[:-1], y))}),
    Mutation("subsample: the zeros are not written", "subsample", {
        "subsample_forward": afterwards(lambda x, y, first, **options: y[..., first + x.shape[-1]:].fill(1))},
        consistent=True),
    Mutation("subsample: the pixels beside those wanted", "subsample", {
        "subsample_forward": arguments(lambda x, y: (np.roll(x, -1, axis=2), y))}),
    Mutation("subsample: zeros before forgotten in backward", "subsample", {
        "subsample_backward": fixed("first", 0)}),
    Mutation("subsample: gradient at every pixel", "subsample", {"subsample_backward": instead(every_pixel)}),
    Mutation("graph: gradients of a fork overwritten", "fork", {"accumulate": instead(lambda x, y: np.copyto(y, x))}),
    Mutation("graph: gradients of a fork forgotten", "fork", {"accumulate": instead(lambda x, y: None)}),
]
