"""Launches of conv.cu and conv_hopper.cu; and of depthwise.cu, where every channel is a group.

Version 1 writes the matrix X of all windows to the work space, later versions do not store it.
"""

from __future__ import annotations

from math import prod

from minicnn.backend.cuda.gemm_tiling import ConvShape, conv_shape
from minicnn.backend.cuda.kinds.depthwise import Depthwise, is_depthwise
from minicnn.backend.cuda.kinds.products import Products
from minicnn.backend.cuda.launcher import THREADS, aligned, ceil_div
from minicnn.backend.cuda.source import real_dtype


class Conv(Products, Depthwise):
    """Convolution: forward and both gradients."""

    def conv_forward(self, x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
        """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
        if is_depthwise(w.shape, groups):
            return self._depthwise_forward(x, w, y, *epilogue, stride, pads)
        shape = conv_shape(x.shape, w.shape, stride, pads, groups)
        self._convolve("forward", x, w, y, shape, shape.packs(self._gpu, x, w), work, bias=epilogue[0],
                       relu=int(epilogue[1]))

    def conv_backward_data(self, dy, w, dx, *, stride, pads, groups=1, work=None):
        """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
        if is_depthwise(w.shape, groups):
            return self._depthwise_backward_data(dy, w, dx, stride, pads)
        shape = conv_shape(dx.shape, w.shape, stride, pads, groups)
        self._convolve("backward_data", dy, w, dx, shape, self._gpu.packs(shape.sizes["L"], dy, w), work)

    def conv_backward_weights(self, x, dy, dw, *, stride, pads, groups=1, add=True, work=None):
        """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); without `add`, dw =, whatever it held."""
        if is_depthwise(dw.shape, groups):
            return self._depthwise_backward_weights(x, dy, dw, stride, pads, add)
        shape = conv_shape(x.shape, dw.shape, stride, pads, groups)
        self._convolve("backward_weights", x, dy, dw, shape, shape.packs(self._gpu, x, dy), work, add=int(add))

    def _convolve(self, operation: str, a, b, result, shape: ConvShape, packs: int, work, **ending) -> None:
        version = self._version(result.dtype)
        product = shape.products(version, bool(packs))[operation]
        X = partial = None
        if version == "v1" or product.slices > 1:
            X, partial = self._gpu.arrays_in(work, [shape.windows(version), product.partial],
                                               real_dtype(result.dtype))
        to, geometry = result, shape.geometry(operation, version, bool(packs))
        if version == "v1" and operation == "backward_data":
            to = X
        elif version == "v1":
            self._gpu.launch("conv", "conv_im2col", ceil_div(X.size, THREADS), (a, X, geometry))
            a = X
        self._multiply("conv", operation, product, a, b, to, partial, geometry, **ending)
        if to is not result:
            self._gpu.launch("conv", "conv_col2im", ceil_div(result.size, THREADS), (X, result, geometry))

    def conv_work(self, x_shape, w_shape, dtype, *, stride, pads, groups=1):
        """Bytes of work space for any of the three."""
        if is_depthwise(w_shape, groups):
            return 0
        shape, version = conv_shape(x_shape, w_shape, stride, pads, groups), self._version(dtype)
        size = real_dtype(dtype).itemsize
        return aligned(prod(shape.windows(version)) * size) + max(
            aligned(product.most_partial * size) for product in shape.products(version).values())

    def conv_algorithm(self, x_shape, w_shape, dtype, *, stride, pads, groups=1):
        """The name of the algorithm."""
        if is_depthwise(w_shape, groups):
            return "depthwise"
        version = self._version(dtype)
        rounded = f", {self.products.lower()}" if version in ("v4", "v5") else ""
        return ("im2col" if version == "v1" else "implicit im2col") + f" {version}{rounded}"
