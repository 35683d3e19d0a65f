"""Locally connected layer: a convolution with separate kernels at each position ("local" in cuda-convnet).

    y[n,p,q,k] = b[p,q,k] + sum over r,s,c of  x[n, p*u+r-top, q*v+s-left, c] * w[r,s,c,p,q,k]

Every output pixel (p, q) has its own kernels; the paper's CIFAR-10 net ends with two such layers (models/cifar.py).
After extracting the windows of x (im2col), this is a 1 x 1 convolution with one group per output pixel, so it needs no
kernel of its own: dw is that of the grouped convolution, and dx is its input gradient scattered back to the windows'
positions (col2im). Saved: the windows; also y if the following ReLU is fused.
"""

from __future__ import annotations

from minicnn.errors import ShapeError
from minicnn.init import Normal
from minicnn.layers.base import Layer, LayerPlan, need_axes
from minicnn.shapes import pads4, pair, whole, window_output


class Local2d(Layer):
    """(N, H, W, in_channels) -> (N, P, Q, out_channels), for images of a fixed size in_size = (H, W).

    Weights are (R, S, C, P, Q, K), biases (P, Q, K).
    """

    absorbs_relu = True

    def __init__(self, in_size, in_channels: int, out_channels: int, kernel, *, stride=1, padding=0, init=None,
                 bias_init=0.0):
        super().__init__()
        self.in_shape = (*pair(in_size, "Local2d: in_size", least=1),
                         whole(in_channels, "Local2d: in_channels", least=1))                      # (H, W, C)
        self.kernel = pair(kernel, "Local2d: kernel", least=1)
        self.stride = pair(stride, "Local2d: stride", least=1)
        padding = pads4(padding, "Local2d: padding", least=0)
        (P, Q), self.pads = window_output(self.in_shape[:2], self.kernel, self.stride, padding)
        self.out_shape = (P, Q, whole(out_channels, "Local2d: out_channels", least=1))
        self.init, self.bias_init = Normal(0.01) if init is None else init, bias_init

    def initial_values(self):
        w_shape = (*self.kernel, self.in_shape[2], *self.out_shape)
        return {"w": (self.init, w_shape), "b": (self.bias_init, self.out_shape)}

    @property
    def as_conv(self) -> tuple[tuple[int, ...], dict]:
        """Weight shape and options of the equivalent 1 x 1 convolution with one group per output pixel."""
        (R, S), C, (P, Q, K) = self.kernel, self.in_shape[2], self.out_shape
        return (1, 1, R * S * C, P * Q * K), {"stride": (1, 1), "pads": (0, 0, 0, 0), "groups": P * Q}

    def taps(self):
        """For each tap (r, s) of the window: the indices into y for which it is inside the image, and those into x."""
        for r in range(self.kernel[0]):
            rows = _overlap(r - self.pads[0], self.stride[0], self.in_shape[0], self.out_shape[0])
            for s in range(self.kernel[1]):
                columns = _overlap(s - self.pads[1], self.stride[1], self.in_shape[1], self.out_shape[1])
                yield r, s, (slice(None), rows[0], columns[0]), (slice(None), rows[1], columns[1])

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        if tuple(shape[1:]) != self.in_shape:
            raise ShapeError(f"Local2d expects images {self.in_shape}, got {tuple(shape[1:])}")
        N, (P, Q, K), (w_shape, options) = shape[0], self.out_shape, self.as_conv
        windows = (N, P, Q, *self.kernel, shape[3])
        flat = (N, 1, 1, P * Q * w_shape[2])
        return LayerPlan((N, P, Q, K), buffers={"windows": (windows, dtype), "dwindows": (windows, dtype)},
                         work=ops.conv_work(flat, w_shape, dtype, **options), macs=N * w_shape[2] * P * Q * K,
                         window=(self.kernel, self.stride))

    def forward(self, ctx, xs, y, saved):
        (x,), windows, (w_shape, options) = xs, saved["windows"], self.as_conv
        windows[...] = 0                                                        # taps in the padding stay 0
        for r, s, of_y, of_x in self.taps():
            windows[:, :, :, r, s][of_y] = x[of_x]                              # (N, P, Q, R, S, C)
        N, w, b = len(x), self.params["w"].data, self.params["b"].data
        ctx.ops.conv_forward(windows.reshape(N, 1, 1, -1), w.reshape(w_shape), y.reshape(N, 1, 1, -1),
                             epilogue=(b.reshape(-1), ctx.relu), work=ctx.work, **options)

    def backward(self, ctx, dy, saved, dxs):
        N, w, b, (w_shape, options) = len(dy), self.params["w"], self.params["b"], self.as_conv
        dy = dy.reshape(N, 1, 1, -1)                                            # (N, 1, 1, P*Q*K)
        windows = saved["windows"].reshape(N, 1, 1, -1)                         # (N, 1, 1, P*Q*R*S*C)
        y = saved["y"].reshape(dy.shape) if ctx.relu else None
        db, add = (None, True) if ctx.frozen else b.grad_to_fill()
        ctx.ops.epilogue_backward(dy, None if db is None else db.reshape(-1), y=y, add=add)
        if not ctx.frozen:
            dw, add = w.grad_to_fill()
            ctx.ops.conv_backward_weights(windows, dy, dw.reshape(w_shape), add=add, work=ctx.work, **options)
        if dxs[0] is not None:
            dx, dwindows = dxs[0], saved["dwindows"]
            ctx.ops.conv_backward_data(dy, w.data.reshape(w_shape), dwindows.reshape(windows.shape), work=ctx.work,
                                       **options)
            dx[...] = 0
            for r, s, of_y, of_x in self.taps():
                dx[of_x] += dwindows[:, :, :, r, s][of_y]                       # (N, P, Q, R, S, C) -> (N, H, W, C)

    def describe(self):
        (R, S), (P, Q, K) = self.kernel, self.out_shape
        return f"{K} @ {R}x{S}x{self.in_shape[2]} at each of {P}x{Q} positions"


def _overlap(first: int, stride: int, size: int, count: int) -> tuple[slice, slice]:
    """Of the `count` positions first, first + stride, ...: those in 0..size-1, as slices of positions and of axis."""
    begin = max(0, -(first // stride))                                          # first + begin * stride >= 0
    end = min(count, (size - 1 - first) // stride + 1)
    start = first + begin * stride
    return slice(begin, end), slice(start, start + (end - begin - 1) * stride + 1, stride)
