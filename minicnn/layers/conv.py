"""Convolution (paper section 3.5), implemented as cross-correlation, as usual in deep learning.

    y[n,p,q,k] = b[k] + sum over r,s,c of  x[n, p*u+r-top, q*v+s-left, c] * w[r,s,c,k]

with stride (u, v). With groups, output channel k of group g reads only the input channels of group g: this
implements "the kernels of the second layer are connected only to those kernel maps which reside on the same GPU".
With as many groups as channels, each of one kernel, it is a depthwise convolution, which has kernels of its own.
Saved: x; also y if the following ReLU is fused, since backward then starts with its mask.
Both gradients are derived in kernels/reference/conv.py.
"""

from __future__ import annotations

from minicnn.errors import ConfigError, ShapeError
from minicnn.init import Normal
from minicnn.layers.base import Layer, LayerPlan, need_axes
from minicnn.shapes import pads4, pair, whole, window_output


class Conv2d(Layer):
    """(N, H, W, in_channels) -> (N, P, Q, out_channels). `ceil` rounds the output size up (shapes.window_output)."""

    absorbs_relu = True
    capturable = True
    has_epilogue = True
    takes_x_again = True
    updates_within = True

    def __init__(self, in_channels: int, out_channels: int, kernel, *, stride=1, padding=0, groups: int = 1,
                 ceil: bool = False, bias: bool = True, init=None, bias_init=0.0):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            whole(value, f"Conv2d: {name}", least=1)
        if in_channels % groups or out_channels % groups:
            raise ConfigError(f"Conv2d: groups = {groups} must divide in_channels = {in_channels} and "
                              f"out_channels = {out_channels}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel, self.stride = (pair(kernel, "Conv2d: kernel", least=1), pair(stride, "Conv2d: stride", least=1))
        self.padding = pads4(padding, "Conv2d: padding", least=0)
        self.groups, self.ceil, self.bias = groups, ceil, bias
        self.init, self.bias_init = Normal(0.01) if init is None else init, bias_init

    def initial_values(self):
        R, S = self.kernel
        values = {"w": (self.init, (R, S, self.in_channels // self.groups, self.out_channels))}
        return values | ({"b": (self.bias_init, (self.out_channels,))} if self.bias else {})

    def geometry(self, shape):
        """Output size (P, Q) and the keyword arguments that every convolution kernel takes."""
        size, pads = window_output(shape[1:3], self.kernel, self.stride, self.padding, self.ceil)
        return size, {"stride": self.stride, "pads": pads, "groups": self.groups}

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        if shape[3] != self.in_channels:
            raise ShapeError(f"Conv2d expects {self.in_channels} input channels, got {shape[3]} (shape {tuple(shape)})")
        (P, Q), window = self.geometry(shape)
        w_shape = (*self.kernel, self.in_channels // self.groups, self.out_channels)
        R, S, Cg, K = w_shape
        return LayerPlan((shape[0], P, Q, K), saves=("x",), work=ops.conv_work(shape, w_shape, dtype, **window),
                         macs=shape[0] * P * Q * K * R * S * Cg,
                         algorithm=ops.conv_algorithm(shape, w_shape, dtype, **window),
                         window=(self.kernel, self.stride))

    def forward(self, ctx, xs, y, saved):
        x, w = xs[0], self.params["w"].data
        b = self.params["b"].data if self.bias else None
        _, window = self.geometry(x.shape)
        ctx.ops.conv_forward(x, w, y, epilogue=(b, ctx.relu), work=ctx.work, **window)

    def backward(self, ctx, dy, saved, dxs):
        x, w = saved["x"], self.params["w"]
        _, window = self.geometry(x.shape)
        if not ctx.epilogue_done:
            db, add = self.params["b"].grad_to_fill() if self.bias and not ctx.frozen else (None, True)
            ctx.ops.epilogue_backward(dy, db, y=saved["y"] if ctx.relu else None, add=add)
        early = ctx.updates.get(w.name)
        if not ctx.frozen:
            dw, add = (early.gradient, False) if early else w.grad_to_fill()
            ctx.ops.conv_backward_weights(x, dy, dw, add=add, work=ctx.work, **window)
        if dxs[0] is not None:
            ctx.ops.conv_backward_data(dy, w.data, dxs[0], work=ctx.work, **window)
        if early:                                           # after dx, which is of the weights before the update
            early.update()
            ctx.updated.add(w.name)

    def describe(self):
        R, S = self.kernel
        parts = [f"{self.out_channels} @ {R}x{S}x{self.in_channels // self.groups}", f"stride {self.stride[0]}"]
        parts += [f"pad {self.padding[0]}"] if any(self.padding) else []
        parts += [f"{self.groups} groups"] if self.groups > 1 else []
        return ", ".join(parts + (["ceil"] if self.ceil else []))
