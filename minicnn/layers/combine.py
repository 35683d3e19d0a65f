"""Layers that join or reshape: Concat along channels, Add, Flatten, Subsample.

    Concat     y = [x_1, x_2, ...] along the last axis     dx_i = its slice of dy
    Add        y = x_1 + x_2 + ...                         dx_i = dy
    Flatten    (N, H, W, C) -> (N, H*W*C)                  a view of the same memory
    Subsample  y = [x[::u, ::v], 0, ...]                   dx[::u, ::v] = its channels of dy, 0 elsewhere

Nothing is saved. The gradients of a value that several layers read are accumulated by the network.
"""

from __future__ import annotations

from math import prod

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, LayerPlan, need_axes
from minicnn.shapes import pair, whole


class Concat(Layer):
    """Inputs with equal shapes except for the last axis."""

    capturable = True
    takes_x_again = True

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
    takes_x_again = True

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
        pixels = tuple(shape[1:3]) if len(shape) == 4 else (1, 1)
        return LayerPlan((shape[0], prod(shape[1:])), window=(pixels, pixels))


class Subsample(Layer):
    """(N, H, W, C) -> (N, ceil(H / u), ceil(W / v), channels): every stride-th pixel, and channels of zeros.

    Shortcut A of ResNets: an identity without parameters where size and number of channels change.   before: how many
    of the channels of zeros come before those of x; the others follow.
    """

    capturable = True
    takes_x_again = True

    def __init__(self, channels: int, stride=2, *, before: int = 0):
        super().__init__()
        self.channels = whole(channels, "Subsample: channels", least=1)
        self.stride = pair(stride, "Subsample: stride", least=1)
        self.before = whole(before, "Subsample: before", least=0)

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        N, H, W, C = shape
        if self.before + C > self.channels:
            raise ShapeError(f"Subsample to {self.channels} channels, {self.before} of them before those of x, cannot "
                             f"hold the {C} channels of shape {tuple(shape)}")
        u, v = self.stride
        return LayerPlan((N, -(-H // u), -(-W // v), self.channels), window=((1, 1), self.stride))

    def forward(self, ctx, xs, y, saved):
        ctx.ops.subsample_forward(xs[0], y, stride=self.stride, first=self.before)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.subsample_backward(dy, dxs[0], stride=self.stride, first=self.before)

    def describe(self):
        before = f", {self.before} channels of zeros before" if self.before else ""
        return f"{self.channels} channels, stride {self.stride[0]}{before}"
