"""Pooling (paper section 3.4). AlexNet's windows overlap: 3 x 3, stride 2, so a pixel can be the maximum of up to four
windows.

Max:      y[p,q] = max of window (p,q); backward routes dy to the position of the maximum (the first one on ties) and
          sums over overlapping windows. Saved: the index of the maximum in its window, one byte (the switch).
Average:  y[p,q] = sum of the window / divisor; backward distributes dy / divisor over the window. Saved: nothing.
Global:   y = the mean over all pixels of a channel; backward distributes dy / (H*W). Saved: nothing.
Adaptive: y = the means of P x Q windows that cover an image of any size; backward distributes each dy over its window,
          divided by its pixels. Saved: nothing.
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
    takes_x_again = True

    def __init__(self, kernel, *, stride=None, padding=0, ceil: bool = False):
        super().__init__()
        kind = type(self).__name__
        self.kernel, self.ceil = pair(kernel, f"{kind}: kernel", least=1), ceil
        self.stride = pair(kernel if stride is None else stride, f"{kind}: stride", least=1)
        self.padding = pads4(padding, f"{kind}: padding", least=0)
        (R, S), (top, left, bottom, right) = self.kernel, self.padding
        if max(top, bottom) >= R or max(left, right) >= S:
            raise ConfigError(f"{kind}: padding {self.padding} must be smaller than the window "
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
        return LayerPlan(y_shape, buffers={"argmax": (y_shape, "uint8")}, window=(self.kernel, self.stride))

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
    """(N, H, W, C) -> (N, P, Q, C): the sum of each window over a divisor.

    count_pad: which cells of a window count in the divisor. `padding` is the padding that was asked for; with `ceil`,
    the last windows may also hang over its edge. The last window is that of the values 1..16 as a 4 x 4 image, window
    3, stride 2, padding 1, ceil: one pixel, 16, three cells of padding, five beyond it.

        count_pad    counted                               last window    the same in
        True         all R * S cells                       16 / 9         PyTorch and ONNX, where nothing hangs over
        "padding"    those in the image or in `padding`    16 / 4         PyTorch and ONNX by count_include_pad; Caffe
        False        those in the image                    16 / 1         the same without count_include_pad

    True and "padding" differ only where a window hangs over the edge.
    """

    def __init__(self, kernel, *, stride=None, padding=0, ceil: bool = False, count_pad: bool | str = True):
        super().__init__(kernel, stride=stride, padding=padding, ceil=ceil)
        if count_pad not in (True, False, "padding"):
            raise ConfigError(f"AvgPool2d: count_pad must be True, False or 'padding', got {count_pad!r}")
        self.count_pad = count_pad

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(self.out_shape(in_shapes), window=(self.kernel, self.stride))

    def window(self, shape):
        """The keyword arguments of the kernels; counted: the border of the image that counts in the divisor."""
        _, window = self.geometry(shape)
        pads = window["pads"]
        if self.count_pad == "padding":
            return {**window, "counted": tuple(map(min, self.padding, pads))}
        return {**window, "counted": pads if self.count_pad else (0, 0, 0, 0)}

    def forward(self, ctx, xs, y, saved):
        ctx.ops.avgpool_forward(xs[0], y, **self.window(xs[0].shape))

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.avgpool_backward(dy, dxs[0], **self.window(dxs[0].shape))


class GlobalAvgPool2d(Layer):
    """(N, H, W, C) -> (N, C), the mean of each channel: for images of any size, and no Flatten is needed after it."""

    capturable = True
    channelwise = True
    takes_x_again = True

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        return LayerPlan((shape[0], shape[3]), window=(tuple(shape[1:3]),) * 2)

    def forward(self, ctx, xs, y, saved):
        ctx.ops.global_avgpool_forward(xs[0], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.global_avgpool_backward(dy, dxs[0])


class AdaptiveAvgPool2d(Layer):
    """(N, H, W, C) -> (N, P, Q, C), for images of any size: the mean of rows floor(p H / P) ... ceil((p+1) H / P) - 1,
    and of columns likewise. size: P and Q, or one number for both. Where P divides H, a pooling of H / P rows.
    """

    capturable = True
    channelwise = True
    takes_x_again = True

    def __init__(self, size):
        super().__init__()
        self.size = pair(size, "AdaptiveAvgPool2d: size", least=1)

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        strides = tuple(-(-side // count) for side, count in zip(shape[1:3], self.size, strict=True))
        largest = tuple(max(-(-(i + 1) * side // count) - i * side // count for i in range(count))
                        for side, count in zip(shape[1:3], self.size, strict=True))
        return LayerPlan((shape[0], *self.size, shape[3]), window=(largest, strides))

    def forward(self, ctx, xs, y, saved):
        ctx.ops.adaptive_avgpool_forward(xs[0], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.adaptive_avgpool_backward(dy, dxs[0])

    def describe(self):
        return f"to {self.size[0]}x{self.size[1]}"
