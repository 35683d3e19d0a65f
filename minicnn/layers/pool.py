"""Pooling (paper section 3.4). AlexNet's windows overlap: 3 x 3, stride 2, so a pixel can be the maximum of up to four
windows.

Max:      y[p,q] = max of window (p,q); backward routes dy to the position of the maximum (the first one on ties) and
          sums over overlapping windows. Saved: the index of the maximum in its window, one byte (the switch).
Average:  y[p,q] = sum of the window / divisor; backward distributes dy / divisor over the window. Saved: nothing.
Max-pooling pads with minus infinity; for average pooling, `count_pad` sets whether padding counts in the divisor.
"""

from __future__ import annotations

from minicnn.errors import ConfigError
from minicnn.layers.base import Layer, LayerPlan, need_axes
from minicnn.shapes import pads4, pair, window_output


class _Pool(Layer):
    """Base of both kinds: the geometry of the window."""

    capturable = True
    channelwise = True

    def __init__(self, kernel, *, stride=None, padding=0, ceil: bool = False):
        super().__init__()
        self.kernel, self.padding, self.ceil = pair(kernel), pads4(padding), ceil
        self.stride = pair(stride if stride is not None else kernel)
        (R, S), (top, left, bottom, right) = self.kernel, self.padding
        if max(top, bottom) >= R or max(left, right) >= S:
            raise ConfigError(f"{type(self).__name__}: padding {self.padding} must be smaller than the window "
                              f"{self.kernel}, since a window could otherwise be outside the image")

    def geometry(self, shape):
        """Output size (P, Q) and the keyword arguments that every pooling kernel takes."""
        size, pads = window_output(shape[1:3], self.kernel, self.stride, self.padding, self.ceil)
        return size, {"kernel": self.kernel, "stride": self.stride, "pads": pads}

    def out_shape(self, in_shapes):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        (P, Q), _ = self.geometry(shape)
        return (shape[0], P, Q, shape[3])

    def describe(self):
        overlap = ", overlapping" if self.stride[0] < self.kernel[0] else ""
        return f"{self.kernel[0]}x{self.kernel[1]}, stride {self.stride[0]}{overlap}"


class MaxPool2d(_Pool):
    """(N, H, W, C) -> (N, P, Q, C), the maximum of each window."""

    def plan(self, in_shapes, dtype, ops):
        if self.kernel[0] * self.kernel[1] > 255:
            raise ConfigError(f"MaxPool2d: the window {self.kernel} has more than 255 pixels; "
                              "the index of the maximum is stored in one byte")
        y_shape = self.out_shape(in_shapes)
        return LayerPlan(y_shape, buffers={"argmax": (y_shape, "uint8")})

    def forward(self, ctx, xs, y, saved):
        _, window = self.geometry(xs[0].shape)
        ctx.ops.maxpool_forward(xs[0], y, saved["argmax"], **window)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            _, window = self.geometry(dxs[0].shape)
            ctx.ops.maxpool_backward(dy, saved["argmax"], dxs[0], **window)

    def kinks(self, y, saved):
        return (saved["argmax"],)


class AvgPool2d(_Pool):
    """(N, H, W, C) -> (N, P, Q, C), the mean of each window; `count_pad`: padding counts in the divisor."""

    def __init__(self, kernel, *, stride=None, padding=0, ceil: bool = False, count_pad: bool = True):
        super().__init__(kernel, stride=stride, padding=padding, ceil=ceil)
        self.count_pad = count_pad

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(self.out_shape(in_shapes))

    def forward(self, ctx, xs, y, saved):
        _, window = self.geometry(xs[0].shape)
        ctx.ops.avgpool_forward(xs[0], y, count_pad=self.count_pad, **window)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            _, window = self.geometry(dxs[0].shape)
            ctx.ops.avgpool_backward(dy, dxs[0], count_pad=self.count_pad, **window)
