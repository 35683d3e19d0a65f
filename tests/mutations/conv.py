"""Mistakes in convolution, and in what follows it in one pass: bias and ReLU."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import (
    Mutation,
    added,
    afterwards,
    arguments,
    flipped,
    option,
    shifted,
    swapped,
    without_last,
    written,
)


def first_group_only(op, ops):
    """Every kernel reads the channels of the first group."""
    def call(x, w, y, *, groups=1, **options):
        op(np.concatenate([x[..., :x.shape[3] // groups]] * groups, axis=3), w, y, groups=groups, **options)
    return call


def weights_of_another_group(op, ops):
    def call(dy, w, dx, *, groups=1, **options):
        op(dy, np.roll(w, w.shape[3] // groups, axis=3), dx, groups=groups, **options)
    return call


def stride_forgotten(op, ops):
    """dx as if the kernel had moved by one pixel."""
    def call(dy, w, dx, *, stride, pads, groups=1, work=None):
        P = pads[0] + dx.shape[1] + pads[2] - w.shape[0] + 1
        Q = pads[1] + dx.shape[2] + pads[3] - w.shape[1] + 1
        dense = np.zeros((dy.shape[0], P, Q, dy.shape[3]), dy.dtype)
        dense[:, :dy.shape[1], :dy.shape[2]] = dy
        op(dense, w, dx, stride=(1, 1), pads=pads, groups=groups)
    return call


def neighbours_kernel(a, w, result):
    return a, np.roll(w, 1, axis=3), result


def last_channel_forgotten(*args, **options):
    args[2][..., -1] = 0


def bias_after_relu(op, ops):
    def call(x, w, y, *, epilogue=(None, False), **options):
        op(x, w, y, epilogue=(None, epilogue[1]), **options)
        y += epilogue[0]
    return call


def bias_before_mask(op, ops):
    """db summed up before the ReLU's mask is applied to dy."""
    def call(dy, db, *, y=None, add=True):
        op(dy, db, y=None, add=add)
        op(dy, None, y=y)
    return call


MUTATIONS = [
    Mutation("conv: kernel flipped in forward", "conv", {
        "conv_forward": arguments(lambda x, w, y: (x, flipped(w), y))}),
    Mutation("conv: kernel transposed in forward", "conv", {
        "conv_forward": arguments(lambda x, w, y: (x, swapped(w), y))}),
    Mutation("conv: groups forgotten in forward", "conv_groups", {"conv_forward": first_group_only}),
    Mutation("conv: padding off by one in forward", "conv", {"conv_forward": option("pads", shifted)}),
    Mutation("conv: padding off by one everywhere", "conv", {
        op: option("pads", shifted) for op in ("conv_forward", "conv_backward_data", "conv_backward_weights")}, True),
    Mutation("conv: bias forgotten in forward", "conv", {"conv_forward": option("epilogue", lambda e: (None, e[1]))}),
    Mutation("conv: ReLU forgotten in forward", "conv_relu", {
        "conv_forward": option("epilogue", lambda e: (e[0], False))}),
    Mutation("conv: bias added after the ReLU", "conv_relu", {"conv_forward": bias_after_relu}),
    Mutation("conv: kernel flipped in dx", "conv", {
        "conv_backward_data": arguments(lambda dy, w, dx: (dy, flipped(w), dx))}),
    Mutation("conv: kernel transposed in dx", "conv", {
        "conv_backward_data": arguments(lambda dy, w, dx: (dy, swapped(w), dx))}),
    Mutation("conv: groups mixed up in dx", "conv_groups", {"conv_backward_data": weights_of_another_group}),
    Mutation("conv: padding off by one in dx", "conv", {"conv_backward_data": option("pads", shifted)}),
    Mutation("conv: stride forgotten in dx", "conv", {"conv_backward_data": stride_forgotten}),
    Mutation("conv: dx added", "conv", {"conv_backward_data": added}),
    Mutation("conv: last row of dy forgotten in dx", "conv", {
        "conv_backward_data": arguments(lambda dy, w, dx: (without_last(1)(dy), w, dx))}),
    Mutation("conv: padding off by one in dw", "conv", {"conv_backward_weights": option("pads", shifted)}),
    Mutation("conv: groups forgotten in dw", "conv_groups", {"conv_backward_weights": first_group_only}),
    Mutation("conv: dw written", "conv", {"conv_backward_weights": written}),
    Mutation("conv: last image forgotten in dw", "conv", {
        "conv_backward_weights": arguments(lambda x, dy, dw: (without_last(0)(x), dy, dw))}),
    Mutation("conv: dw averaged over the batch", "conv", {
        "conv_backward_weights": arguments(lambda x, dy, dw: (x, dy / len(dy), dw))}),
    Mutation("depthwise: kernel flipped in forward", "conv_depthwise", {
        "conv_forward": arguments(lambda x, w, y: (x, flipped(w), y))}),
    Mutation("depthwise: another channel's kernel in forward", "conv_depthwise", {
        "conv_forward": arguments(neighbours_kernel)}),
    Mutation("depthwise: last channel forgotten in forward", "conv_depthwise", {
        "conv_forward": afterwards(last_channel_forgotten)}),
    Mutation("depthwise: kernel flipped in dx", "conv_depthwise", {
        "conv_backward_data": arguments(lambda dy, w, dx: (dy, flipped(w), dx))}),
    Mutation("depthwise: another channel's kernel in dx", "conv_depthwise", {
        "conv_backward_data": arguments(neighbours_kernel)}),
    Mutation("depthwise: stride forgotten in dx", "conv_depthwise", {"conv_backward_data": stride_forgotten}),
    Mutation("depthwise: padding off by one in dx", "conv_depthwise", {"conv_backward_data": option("pads", shifted)}),
    Mutation("depthwise: last channel forgotten in dx", "conv_depthwise", {
        "conv_backward_data": afterwards(last_channel_forgotten)}),
    Mutation("depthwise: padding off by one in dw", "conv_depthwise", {
        "conv_backward_weights": option("pads", shifted)}),
    Mutation("depthwise: dw written", "conv_depthwise", {"conv_backward_weights": written}),
    Mutation("depthwise: last channel forgotten in dw", "conv_depthwise", {
        "conv_backward_weights": afterwards(last_channel_forgotten)}),
    Mutation("epilogue: bias gradient missing", "conv", {"epilogue_backward": arguments(lambda dy, db: (dy, None))}),
    Mutation("epilogue: db written", "conv", {"epilogue_backward": written}),
    Mutation("epilogue: mask forgotten", "conv_relu", {"epilogue_backward": option("y", lambda y: None)}),
    Mutation("epilogue: mask taken from dy", "conv_relu", {
        "epilogue_backward": lambda op, ops: lambda dy, db, *, y=None, add=True: op(dy, db, y=dy.copy(), add=add)}),
    Mutation("epilogue: db summed before the mask", "linear_relu", {"epilogue_backward": bias_before_mask}),
    Mutation("epilogue: last unit of db forgotten", "linear", {
        "epilogue_backward": arguments(lambda dy, db: (without_last(1)(dy), db))}),
]
