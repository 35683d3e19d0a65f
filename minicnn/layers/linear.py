"""Fully connected layer:  y = x w + b,  so  dx = dy w^T,  dw = x^T dy,  db = sum of dy over the batch.

In AlexNet these layers hold nearly all parameters (58.6 of 61 million) but few of the multiply-adds. Saved: x; also y
if the following ReLU is fused.
"""

from __future__ import annotations

from minicnn.errors import ShapeError
from minicnn.init import Normal
from minicnn.layers.base import Layer, LayerPlan, need_axes


class Linear(Layer):
    """(N, in_features) -> (N, out_features)."""

    absorbs_relu = True
    capturable = True

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init=None, bias_init=0.0):
        super().__init__()
        self.in_features, self.out_features, self.bias = in_features, out_features, bias
        self.init, self.bias_init = Normal(0.01) if init is None else init, bias_init

    def initial_values(self):
        values = {"w": (self.init, (self.in_features, self.out_features))}
        return values | ({"b": (self.bias_init, (self.out_features,))} if self.bias else {})

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NC")
        if shape[1] != self.in_features:
            raise ShapeError(f"Linear expects {self.in_features} input features, got {shape[1]} (shape {tuple(shape)})")
        w_shape = (self.in_features, self.out_features)
        return LayerPlan((shape[0], self.out_features), saves=("x",), work=ops.linear_work(shape, w_shape, dtype),
                         macs=shape[0] * self.in_features * self.out_features)

    def forward(self, ctx, xs, y, saved):
        b = self.params["b"].data if self.bias else None
        ctx.ops.linear_forward(xs[0], self.params["w"].data, y, epilogue=(b, ctx.relu), work=ctx.work)

    def backward(self, ctx, dy, saved, dxs):
        w = self.params["w"]
        db, add = self.params["b"].grad_to_fill() if self.bias else (None, True)
        ctx.ops.epilogue_backward(dy, db, y=saved["y"] if ctx.relu else None, add=add)
        dw, add = w.grad_to_fill()
        ctx.ops.linear_backward_weights(saved["x"], dy, dw, add=add, work=ctx.work)
        if dxs[0] is not None:
            ctx.ops.linear_backward_data(dy, w.data, dxs[0], work=ctx.work)

    def describe(self):
        return f"{self.in_features} -> {self.out_features}"
