"""Launches of depthwise.cu: convolution in which every channel has a kernel of its own."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.kinds.pool import window_of
from minicnn.backend.cuda.launcher import THREADS, ceil_div, vector

CHUNKS = 1024               # at most, of the pixels that dw sums over: several blocks for each multiprocessor


def is_depthwise(w_shape, groups: int) -> bool:
    """Whether each group of a convolution has one input and one output channel."""
    return groups > 1 and w_shape[2] == 1 and w_shape[3] == groups


class Depthwise(Kind):
    """Depthwise convolution: forward and both gradients."""

    def _depthwise_forward(self, x, w, y, bias, relu: bool, stride, pads) -> None:
        N, P, Q, C = y.shape
        packs, width = self._width(C, x, w, y)
        self._gpu.launch("depthwise", "depthwise_forward", (N * P, ceil_div(Q * C, THREADS * width)),
                         (x, w, y, bias, int(relu), _window(x, y, w, stride, pads), packs))

    def _depthwise_backward_data(self, dy, w, dx, stride, pads) -> None:
        N, H, W, C = dx.shape
        packs, width = self._width(C, dy, w, dx)
        self._gpu.launch("depthwise", "depthwise_backward_data", (N * H, ceil_div(W * C, THREADS * width)),
                         (dy, w, dx, _window(dx, dy, w, stride, pads), packs))

    def _depthwise_backward_weights(self, x, dy, dw, stride, pads, add: bool) -> None:
        (N, P, Q, C), (R, S, *_) = dy.shape, dw.shape
        packs, width = self._width(C, x, dy)
        wide, pixels = min(32, C // width), N * P * Q
        tall, across = THREADS // wide, ceil_div(C // width, wide)
        chunk = max(4 * tall, ceil_div(pixels, max(1, CHUNKS // across)))
        chunks = ceil_div(pixels, chunk)
        (partial,) = self._gpu.scratch([(chunks, R * S * C)], dw.dtype)
        name, taps = ("depthwise_sums_3x3", 1) if (R, S) == (3, 3) else ("depthwise_sums", R * S)
        self._gpu.launch("depthwise", name, (across, chunks, taps),
                         (x, dy, partial, pixels, chunk, _window(x, dy, dw, stride, pads), packs), block=(wide, tall))
        self._gpu.launch("epilogue", "epilogue_add", ceil_div(dw.size, 32), (partial, dw, chunks, dw.size, int(add)),
                         block=(32, 32))

    def _width(self, C: int, *arrays) -> tuple[int, int]:
        """Whether a thread takes 16 bytes, and how many channels that are."""
        packs = self._gpu.packs(C, *arrays)
        return packs, vector(arrays[0]) if packs else 1


def _window(x, y, w, stride, pads) -> dict[str, int]:
    return window_of(x.shape, y.shape, w.shape[:2], stride, pads)
