"""Launches of linear.cu and linear_hopper.cu."""

from __future__ import annotations

from minicnn.backend.cuda.gemm_tiling import Product, linear_products
from minicnn.backend.cuda.kinds.optimisers import scalar
from minicnn.backend.cuda.kinds.products import Products
from minicnn.backend.cuda.launcher import aligned
from minicnn.backend.cuda.source import real_dtype


class Linear(Products):
    """Fully connected layers: forward and both gradients."""

    def linear_forward(self, x, w, y, *, epilogue=(None, False), work=None):
        """y (N, out) from x (N, in) and w (in, out); epilogue = (bias (out,) or None, apply ReLU)."""
        packs = self._gpu.packs(x.shape[1], x) & self._gpu.packs(w.shape[1], w)
        self._linear("forward", x, w, y, x.shape, w.shape, packs, work, bias=epilogue[0], relu=int(epilogue[1]))

    def linear_backward_data(self, dy, w, dx, *, work=None):
        """dx (N, in), overwritten, from dy (N, out) and w (in, out)."""
        self._linear("backward_data", dy, w, dx, dx.shape, w.shape, self._gpu.packs(w.shape[1], dy, w), work)

    def linear_backward_weights(self, x, dy, dw, *, add=True, work=None):
        """dw (in, out) += from x (N, in) and dy (N, out); without `add`, dw =."""
        packs = self._gpu.packs(dw.shape[0], x) & self._gpu.packs(dw.shape[1], dy)
        self._linear("backward_weights", x, dy, dw, x.shape, dw.shape, packs, work, add=int(add))

    def linear_sgd_step(self, x, dy, w, v, *, lr, momentum, decay, work=None):
        """One step of SGD in the paper's form on w (in, out) and v, by the gradient x' dy, which is not stored."""
        packs = self._gpu.packs(w.shape[0], x) & self._gpu.packs(w.shape[1], dy)
        N, (I, O) = len(x), w.shape                                                                 # noqa: E741
        self._update_by_product(Product(self._version(w.dtype), I, O, N, packs=bool(packs), whole=True), x, dy, w, v,
                                (*scalar(lr), momentum, decay), {"N": N, "I": I, "O": O})

    def _linear(self, operation: str, a, b, result, x_shape, w_shape, packs: int, work, **ending) -> None:
        product = linear_products(x_shape, w_shape, self._version(result.dtype), bool(packs))[operation]
        partial = None
        if product.slices > 1:
            (partial,) = self._gpu.arrays_in(work, [product.partial], real_dtype(result.dtype))
        self._multiply("linear", operation, product, a, b, result, partial,
                       {"N": x_shape[0], "I": w_shape[0], "O": w_shape[1]}, **ending)

    def linear_work(self, x_shape, w_shape, dtype):
        """Bytes of work space for any of the three."""
        return max(aligned(product.most_partial * real_dtype(dtype).itemsize)
                   for product in linear_products(x_shape, w_shape, self._version(dtype)).values())
