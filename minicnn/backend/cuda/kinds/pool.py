"""Launches of pool.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div, vector
from minicnn.backend.ops import address


class Pool(Kind):
    """Maximum, average, global and adaptive average pooling."""

    def _windows(self, kernel_name: str, rows: int, columns: int, arrays: tuple, x_shape, y_shape, kernel, stride, pads,
                 *more) -> None:
        """A pooling kernel: a row of blocks for each of `rows`, of `columns` pixels and C channels."""
        C, given = x_shape[-1], [array for array in arrays if array is not None]
        packs = self._gpu.packs(C, *(array for array in given if array.dtype != "uint8"))
        packs &= all(address(array) % 4 == 0 for array in given)                # argmax: four bytes at a time
        width = vector(arrays[0]) if packs else 1
        window = window_of(x_shape, y_shape, kernel, stride, pads)
        self._gpu.launch("pool", kernel_name, (rows, ceil_div(columns * C, THREADS * width)),
                         (*arrays, window, *more, packs))

    def maxpool_forward(self, x, y, argmax, *, kernel, stride, pads):
        """y (N, P, Q, C), the largest cell of each window; argmax (uint8, or None): its index r*S + s."""
        N, P, Q, _ = y.shape
        self._windows("maxpool_forward", N * P, Q, (x, y, argmax), x.shape, y.shape, kernel, stride, pads)

    def maxpool_backward(self, dy, argmax, dx, *, kernel, stride, pads):
        """dx (N, H, W, C), overwritten, from dy and argmax (N, P, Q, C)."""
        N, H, W, _ = dx.shape
        self._windows("maxpool_backward", N * H, W, (dy, argmax, dx), dx.shape, dy.shape, kernel, stride, pads)

    def avgpool_forward(self, x, y, *, kernel, stride, pads, counted):
        """y (N, P, Q, C), the mean of each window, of its cells in the image or the border `counted`."""
        N, P, Q, _ = y.shape
        self._windows("avgpool_forward", N * P, Q, (x, y), x.shape, y.shape, kernel, stride, pads, _border(counted))

    def avgpool_backward(self, dy, dx, *, kernel, stride, pads, counted):
        """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
        N, H, W, _ = dx.shape
        self._windows("avgpool_backward", N * H, W, (dy, dx), dx.shape, dy.shape, kernel, stride, pads,
                      _border(counted))

    def global_avgpool_forward(self, x, y):
        """y (N, C), the mean over the pixels of x (N, H, W, C)."""
        N, H, W, C = x.shape
        packs = self._gpu.packs(C, x, y)
        width = vector(x) if packs else 1
        self._gpu.launch("pool", "global_avgpool_forward", (N, ceil_div(C, 32 * width)), (x, y, H * W, C, packs),
                         block=(32, 8))

    def global_avgpool_backward(self, dy, dx):
        """dx (N, H, W, C), overwritten, from dy (N, C): dy / (H*W) at every pixel."""
        _, H, W, C = dx.shape
        self._gpu.each("pool", "global_avgpool_backward", dx.size, dy, dx, dx.size, H * W * C, C, 1 / (H * W),
                       self._gpu.packs(C, dy, dx))

    def adaptive_avgpool_forward(self, x, y):
        """y (N, P, Q, C), the means of windows that cover x (N, H, W, C)."""
        (_, H, W, _), (_, P, Q, C) = x.shape, y.shape
        self._gpu.each("pool", "adaptive_avgpool_forward", y.size, x, y, y.size, C, Q, P, H, W)

    def adaptive_avgpool_backward(self, dy, dx):
        """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
        (_, P, Q, _), (_, H, W, C) = dy.shape, dx.shape
        self._gpu.each("pool", "adaptive_avgpool_backward", dx.size, dy, dx, dx.size, C, W, H, P, Q)


def window_of(x_shape, y_shape, kernel, stride, pads) -> dict[str, int]:
    """The struct Window of window.cuh."""
    (_, H, W, C), (_, P, Q, _) = x_shape, y_shape
    return {"W": W, "Q": Q, "R": kernel[0], "S": kernel[1], "top": pads[0], "left": pads[1], "H": H, "P": P, "C": C,
            "stride_h": stride[0], "stride_w": stride[1]}


def _border(counted) -> dict[str, int]:
    """The struct Border of pool.cu."""
    return dict(zip(("top", "left", "bottom", "right"), counted, strict=True))
