"""Layers that join or reshape: Concat along channels, Add, Flatten.

    Concat   y = [x_1, x_2, ...] along the last axis     dx_i = its slice of dy
    Add      y = x_1 + x_2 + ...                         dx_i = dy
    Flatten  (N, H, W, C) -> (N, H*W*C)                  a view of the same memory

Nothing is saved. The gradients of a value that several layers read are accumulated by the network.
"""

from __future__ import annotations

from math import prod

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, LayerPlan


class Concat(Layer):
    """Inputs with equal shapes except for the last axis."""

    capturable = True

    def plan(self, in_shapes, dtype, ops):
        first = tuple(in_shapes[0])
        for shape in in_shapes[1:]:
            if tuple(shape[:-1]) != first[:-1]:
                raise ShapeError("Concat expects inputs that agree in all axes but the last, "
                                 f"got {first} and {tuple(shape)}")
        return LayerPlan((*first[:-1], sum(shape[-1] for shape in in_shapes)))

    def forward(self, ctx, xs, y, saved):
        ctx.ops.concat_forward(xs, y)

    def backward(self, ctx, dy, saved, dxs):
        ctx.ops.concat_backward(dy, dxs, widths=[shape[-1] for shape in saved["in_shapes"]])


class Add(Layer):
    """Two or more inputs of equal shape."""

    capturable = True

    def plan(self, in_shapes, dtype, ops):
        first = tuple(in_shapes[0])
        for shape in in_shapes[1:]:
            if tuple(shape) != first:
                raise ShapeError(f"Add expects inputs of one shape, got {first} and {tuple(shape)}")
        return LayerPlan(first)

    def forward(self, ctx, xs, y, saved):
        ctx.ops.add_forward(xs, y)

    def backward(self, ctx, dy, saved, dxs):
        ctx.ops.add_backward(dy, dxs)


class Flatten(Layer):
    """Height, width and channels become one axis, in this order (channels-last: a unit of fc6 reads H x W x C)."""

    is_view = True
    capturable = True

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        return LayerPlan((shape[0], prod(shape[1:])))
