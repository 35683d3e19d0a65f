"""Pointwise non-linearities (paper section 3.1): ReLU, and the tanh that Figure 1 compares it with.

    ReLU   y = max(0, x)     dx = dy where y > 0, else 0       (the derivative at 0 is taken as 0)
    LeakyReLU   y = x where x > 0, else slope * x     dx = dy where y > 0, else slope * dy
    ClippedReLU   y = min(max(0, x), ceiling)     dx = dy where 0 < y < ceiling, else 0
    tanh   y = tanh(x)       dx = dy * (1 - y^2)
    sigmoid   y = 1 / (1 + exp(-x))     dx = dy * y * (1 - y)
    GELU   y = x * Phi(x)    dx = dy * (Phi(x) + x * phi(x))       (distribution and density of the normal distribution)
    Multiply   y = factor * x     dx = factor * dy

The derivatives of all but GELU follow from the output, so only y is saved and x may be overwritten. GELU saves x.
"""

from __future__ import annotations

from minicnn.errors import ConfigError
from minicnn.layers.base import Layer, LayerPlan
from minicnn.shapes import finite


class _Activation(Layer):
    """What all of them share: any shape, in place, and a derivative that follows from y."""

    in_place = True
    capturable = True
    channelwise = True

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]), saves=("y",))


class ReLU(_Activation):
    """Any shape. In a network it is usually fused into the preceding convolution or fully connected layer."""

    def forward(self, ctx, xs, y, saved):
        ctx.ops.relu_forward(xs[0], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.relu_backward(saved["y"], dy, dxs[0])

    def kinks(self, y, saved):
        return (y > 0,)


class LeakyReLU(_Activation):
    """Any shape. slope: of the negative part, > 0 (Maas, Hannun and Ng, ICML 2013, who use 0.01)."""

    def __init__(self, slope: float = 0.01):
        super().__init__()
        if not finite(slope, "LeakyReLU: slope") > 0:
            raise ConfigError(f"LeakyReLU: slope = {slope} must be positive, so that y has the sign of x (0 is ReLU)")
        self.slope = slope

    def forward(self, ctx, xs, y, saved):
        ctx.ops.leaky_relu_forward(xs[0], y, slope=self.slope)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.leaky_relu_backward(saved["y"], dy, dxs[0], slope=self.slope)

    def kinks(self, y, saved):
        return (y > 0,)

    def describe(self):
        return f"slope {self.slope:g}"


class ClippedReLU(_Activation):
    """Any shape. ceiling: maximum output, > 0; 6 is the ReLU6 of MobileNets (Krizhevsky, "Convolutional deep belief
    networks on CIFAR-10", 2010)."""

    def __init__(self, ceiling: float = 6.0):
        super().__init__()
        if not finite(ceiling, "ClippedReLU: ceiling") > 0:
            raise ConfigError(f"ClippedReLU: ceiling = {ceiling} must be positive")
        self.ceiling = ceiling

    def forward(self, ctx, xs, y, saved):
        ctx.ops.clipped_relu_forward(xs[0], y, ceiling=self.ceiling)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.clipped_relu_backward(saved["y"], dy, dxs[0], ceiling=self.ceiling)

    def kinks(self, y, saved):
        return (y > 0, y < self.ceiling)

    def describe(self):
        return f"ceiling {self.ceiling:g}"


class Tanh(_Activation):
    """Any shape."""

    def forward(self, ctx, xs, y, saved):
        ctx.ops.tanh_forward(xs[0], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.tanh_backward(saved["y"], dy, dxs[0])


class Sigmoid(_Activation):
    """Any shape. The logistic function; it does not overflow for large |x|."""

    def forward(self, ctx, xs, y, saved):
        ctx.ops.sigmoid_forward(xs[0], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.sigmoid_backward(saved["y"], dy, dxs[0])


class GELU(Layer):
    """Any shape. y = x * Phi(x), not the approximation by tanh (Hendrycks and Gimpel, arXiv 1606.08415)."""

    capturable = True
    channelwise = True

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]), saves=("x",))

    def forward(self, ctx, xs, y, saved):
        ctx.ops.gelu_forward(xs[0], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.gelu_backward(saved["x"], dy, dxs[0])


class Multiply(_Activation):
    """Any shape. y = factor * x, with a constant factor other than 0, such as on logits."""

    def __init__(self, factor: float):
        super().__init__()
        if not finite(factor, "Multiply: factor"):
            raise ConfigError("Multiply: factor = 0 would leave nothing of x; expected another number")
        self.factor = factor

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]))

    def forward(self, ctx, xs, y, saved):
        ctx.ops.scale_forward(xs[0], y, factor=self.factor)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.scale_forward(dy, dxs[0], factor=self.factor)

    def describe(self):
        return f"factor {self.factor:g}"
