"""Fully connected layer:  y = x w + b,  so  dx = dy w^T,  dw = x^T dy,  db = sum of dy over the batch.

In AlexNet these layers hold nearly all parameters (58.6 of 61 million) but few of the multiply-adds. Saved: x; also y
if the following ReLU is fused.

It is applied to the last axis. On images (N, H, W, C) the formula holds at every pixel, with the sums of dw and db also
over the pixels: that is a 1 x 1 convolution, and is computed as one, with the same weights.
"""

from __future__ import annotations

from math import prod

from minicnn.errors import ShapeError
from minicnn.init import Normal
from minicnn.layers.base import Layer, LayerPlan
from minicnn.shapes import whole

WINDOW = {"stride": (1, 1), "pads": (0, 0, 0, 0)}       # of the 1 x 1 convolution


class Linear(Layer):
    """(N, in_features) -> (N, out_features), or (N, ..., in_features) -> (N, ..., out_features)."""

    absorbs_relu = True
    capturable = True
    takes_x_again = True
    updates_within = True

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init=None, bias_init=0.0):
        super().__init__()
        self.in_features = whole(in_features, "Linear: in_features", least=1)
        self.out_features, self.bias = whole(out_features, "Linear: out_features", least=1), bias
        self.init, self.bias_init = Normal(0.01) if init is None else init, bias_init

    def initial_values(self):
        values = {"w": (self.init, (self.in_features, self.out_features))}
        return values | ({"b": (self.bias_init, (self.out_features,))} if self.bias else {})

    def plan(self, in_shapes, dtype, ops):
        shape, w_shape = self._checked(*in_shapes), (self.in_features, self.out_features)
        plan = LayerPlan((*shape[:-1], self.out_features), saves=("x",), macs=prod(shape) * self.out_features)
        if len(shape) == 2:
            plan.work = ops.linear_work(shape, w_shape, dtype)
        else:
            pixels = (shape[0], prod(shape[1:-2]), *shape[-2:])
            plan.work = ops.conv_work(pixels, (1, 1, *w_shape), dtype, **WINDOW)
            plan.algorithm = ops.conv_algorithm(pixels, (1, 1, *w_shape), dtype, **WINDOW)
        return plan

    def _checked(self, shape) -> tuple[int, ...]:
        """The shape. ShapeError unless it is (N, ..., in_features)."""
        if len(shape) < 2:
            raise ShapeError(f"Linear expects an array (N, ..., {self.in_features}), got shape {tuple(shape)}")
        if shape[-1] != self.in_features:
            hint = "; flatten it first, with Flatten" if prod(shape[1:]) == self.in_features else ""
            raise ShapeError(f"Linear expects {self.in_features} input features, got {shape[-1]} (shape "
                             f"{tuple(shape)}){hint}")
        return tuple(shape)

    def forward(self, ctx, xs, y, saved):
        x, w, epilogue = xs[0], self.params["w"].data, (self.params["b"].data if self.bias else None, ctx.relu)
        if x.ndim == 2:
            ctx.ops.linear_forward(x, w, y, epilogue=epilogue, work=ctx.work)
        else:
            ctx.ops.conv_forward(_maps(x), w[None, None], _maps(y), epilogue=epilogue, work=ctx.work, **WINDOW)

    def backward(self, ctx, dy, saved, dxs):
        db, add = self.params["b"].grad_to_fill() if self.bias and not ctx.frozen else (None, True)
        ctx.ops.epilogue_backward(dy, db, y=saved["y"] if ctx.relu else None, add=add)
        w, x, dx = self.params["w"].data, saved["x"], dxs[0]
        if x.ndim == 2:
            if dx is not None:
                ctx.ops.linear_backward_data(dy, w, dx, work=ctx.work)         # before w is updated
            if not ctx.frozen:
                self._weights(ctx, x, dy)
            return
        if not ctx.frozen:
            dw, add = self.params["w"].grad_to_fill()
            ctx.ops.conv_backward_weights(_maps(x), _maps(dy), dw[None, None], add=add, work=ctx.work, **WINDOW)
        if dx is not None:
            ctx.ops.conv_backward_data(_maps(dy), w[None, None], _maps(dx), work=ctx.work, **WINDOW)

    def _weights(self, ctx, x, dy) -> None:
        """The gradient of w, or at once the update that it leads to."""
        param = self.params["w"]
        if update := ctx.updates.get(param.name):
            update(x, dy, ctx.work)
            ctx.updated.add(param.name)
        else:
            dw, add = param.grad_to_fill()
            ctx.ops.linear_backward_weights(x, dy, dw, add=add, work=ctx.work)

    def describe(self):
        return f"{self.in_features} -> {self.out_features}"


def _maps(array):
    """(N, ..., C) as (N, H, W, C), for the convolution: (N, L, C) as (N, 1, L, C)."""
    return array.reshape(len(array), -1, *array.shape[-2:])
