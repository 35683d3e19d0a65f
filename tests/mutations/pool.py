"""Mistakes in pooling."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, added, afterwards, arguments, instead, option, without_last


def scatter(dy, index, dx, kernel, stride, pads, add: bool = True) -> None:
    """Add each dy to the pixel at `index` (r*S + s) of its window, in a plain loop."""
    dx[...] = 0
    for n, p, q, c in np.ndindex(dy.shape):
        r, s = divmod(int(index[n, p, q, c]), kernel[1])
        pixel = n, p * stride[0] + r - pads[0], q * stride[1] + s - pads[1], c
        dx[pixel] = dy[n, p, q, c] + (dx[pixel] if add else 0)


def overlaps_overwritten(op, ops):
    return lambda dy, argmax, dx, *, kernel, stride, pads: scatter(dy, argmax, dx, kernel, stride, pads, add=False)


def last_maximum(op, ops):
    """Of equal cells the last one wins: the correct forward on the image rotated by 180 degrees."""
    def call(x, y, argmax, *, kernel, stride, pads):
        rotated_y, rotated_argmax = np.empty_like(y), np.empty(y.shape, np.uint8)
        op(np.ascontiguousarray(x[:, ::-1, ::-1]), rotated_y, rotated_argmax, kernel=kernel, stride=stride, pads=pads)
        y[...] = rotated_y[:, ::-1, ::-1]
        if argmax is not None:
            argmax[...] = kernel[0] * kernel[1] - 1 - rotated_argmax[:, ::-1, ::-1]
    return call


def average_overwritten(op, ops):
    def call(dy, dx, *, kernel, stride, pads, counted):
        dx[...] = 0
        for p, q in np.ndindex(dy.shape[1:3]):
            top, left = p * stride[0], q * stride[1]
            dx[:, top:top + kernel[0], left:left + kernel[1]] = dy[:, p:p + 1, q:q + 1] / (kernel[0] * kernel[1])
    return call


def no_divisor(dy, dx, *, kernel, **window):
    dx *= kernel[0] * kernel[1]


def counting(change):
    """Another border in the divisor: change(pads, counted)."""
    return lambda op, ops: lambda *arrays, pads, counted, **options: op(*arrays, pads=pads, **options,
                                                                        counted=change(pads, counted))


def one_row_less(kernel):
    return (kernel[0] - 1, kernel[1])


def windows(shape, count, end) -> list[tuple]:
    """Indices of windows whose last row and column are found by `end`; the right one is np.ceil."""
    ranges = [[slice(i * size // n, int(end((i + 1) * size / n))) for i in range(n)]
              for size, n in zip(shape[1:3], count[1:3], strict=True)]
    return [(p, q, rows, columns) for p, rows in enumerate(ranges[0]) for q, columns in enumerate(ranges[1])]


def adaptive(x, y, end) -> None:
    for p, q, rows, columns in windows(x.shape, y.shape, end):
        y[:, p, q] = x[:, rows, columns].mean(axis=(1, 2))


def adaptive_spread(dy, dx, end) -> None:
    dx[...] = 0
    for p, q, rows, columns in windows(dx.shape, dy.shape, end):
        window = dx[:, rows, columns]
        window += dy[:, p : p + 1, q : q + 1] / window[0, :, :, 0].size


MUTATIONS = [
    Mutation("maxpool: overlapping windows overwrite", "maxpool", {"maxpool_backward": overlaps_overwritten}),
    Mutation("maxpool: row and column of the winner mixed up", "maxpool", {
        "maxpool_backward": arguments(lambda dy, argmax, dx: (dy, argmax % 3 * 3 + argmax // 3, dx))}),
    Mutation("maxpool: gradient lands one pixel further", "maxpool", {
        "maxpool_backward": afterwards(lambda dy, argmax, dx, **window: np.copyto(dx, np.roll(dx, 1, axis=2)))}),
    Mutation("maxpool: last window forgotten in backward", "maxpool", {
        "maxpool_backward": arguments(lambda dy, argmax, dx: (without_last(2)(dy), argmax, dx))}),
    Mutation("maxpool: dx added", "maxpool", {"maxpool_backward": added}),
    Mutation("maxpool: window one row short", "maxpool", {
        "maxpool_forward": option("kernel", one_row_less), "maxpool_backward": option("kernel", one_row_less)}, True),
    Mutation("maxpool: the last of equal maxima wins", "maxpool_ties", {"maxpool_forward": last_maximum}, True),
    Mutation("maxpool: padding counts as zero", "maxpool_negative", {
        "maxpool_forward": afterwards(lambda x, y, argmax, **window: np.maximum(y[:, 0], 0, out=y[:, 0]))}),
    Mutation("avgpool: divisor counts the padding in forward only", "avgpool_inside", {
        "avgpool_forward": counting(lambda pads, counted: pads)}),
    Mutation("avgpool: divisor always counts the padding", "avgpool_inside", {
        "avgpool_forward": counting(lambda pads, counted: pads),
        "avgpool_backward": counting(lambda pads, counted: pads)}, True),
    Mutation("avgpool: divisor never counts the padding", "avgpool_padded", {
        "avgpool_forward": counting(lambda pads, counted: (0, 0, 0, 0)),
        "avgpool_backward": counting(lambda pads, counted: (0, 0, 0, 0))}, True),
    Mutation("avgpool: divisor counts what hangs over the edge", "avgpool_overhang", {
        "avgpool_forward": counting(lambda pads, counted: pads),
        "avgpool_backward": counting(lambda pads, counted: pads)}, True),
    Mutation("avgpool: divisor counts what hangs over the edge, in backward only", "avgpool_overhang", {
        "avgpool_backward": counting(lambda pads, counted: pads)}),
    Mutation("avgpool: divisor counts the padding of the first side only", "avgpool_overhang", {
        "avgpool_forward": counting(lambda pads, counted: (*counted[:2], 0, 0)),
        "avgpool_backward": counting(lambda pads, counted: (*counted[:2], 0, 0))}, True),
    Mutation("avgpool: divisor forgotten in backward", "avgpool", {"avgpool_backward": afterwards(no_divisor)}),
    Mutation("avgpool: overlapping windows overwrite", "avgpool", {"avgpool_backward": average_overwritten}),
    Mutation("avgpool: dx added", "avgpool", {"avgpool_backward": added}),
    Mutation("avgpool: window one row short in forward", "avgpool", {
        "avgpool_forward": option("kernel", one_row_less)}),
    Mutation("global avgpool: sum in forward", "global_avgpool", {
        "global_avgpool_forward": afterwards(lambda x, y: np.multiply(y, x[0, :, :, 0].size, out=y))}),
    Mutation("global avgpool: last row forgotten", "global_avgpool", {
        "global_avgpool_forward": arguments(lambda x, y: (without_last(1)(x), y))}),
    Mutation("global avgpool: images mixed up", "global_avgpool", {
        "global_avgpool_backward": arguments(lambda dy, dx: (dy[::-1].copy(), dx))}),
    Mutation("global avgpool: not divided in backward", "global_avgpool", {
        "global_avgpool_backward": afterwards(lambda dy, dx: np.multiply(dx, dx[0, :, :, 0].size, out=dx))}),
    Mutation("global avgpool: divided by the width alone", "global_avgpool", {
        "global_avgpool_forward": afterwards(lambda x, y: np.multiply(y, x.shape[1], out=y)),
        "global_avgpool_backward": afterwards(lambda dy, dx: np.multiply(dx, dx.shape[1], out=dx))}, True),
    Mutation("global avgpool: dx added", "global_avgpool", {"global_avgpool_backward": added}),
    Mutation("adaptive avgpool: windows without overlap", "adaptive_avgpool", {
        "adaptive_avgpool_forward": instead(lambda x, y: adaptive(x, y, np.floor)),
        "adaptive_avgpool_backward": instead(lambda dy, dx: adaptive_spread(dy, dx, np.floor))}, True),
    Mutation("adaptive avgpool: gradient of windows without overlap", "adaptive_avgpool", {
        "adaptive_avgpool_backward": instead(lambda dy, dx: adaptive_spread(dy, dx, np.floor))}),
    Mutation("adaptive avgpool: not divided in backward", "adaptive_avgpool", {
        "adaptive_avgpool_backward": afterwards(lambda dy, dx: np.multiply(dx, 2, out=dx))}),
    Mutation("adaptive avgpool: rows and columns mixed up", "adaptive_avgpool", {
        "adaptive_avgpool_forward": arguments(lambda x, y: (np.ascontiguousarray(x.transpose(0, 2, 1, 3)), y))}),
    Mutation("adaptive avgpool: dx added", "adaptive_avgpool", {"adaptive_avgpool_backward": added}),
]
