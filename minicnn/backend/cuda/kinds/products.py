"""Launches of matrix products, which conv.cu and linear.cu have in several versions (kernels/README.md)."""

from __future__ import annotations

import numpy as np

from minicnn.backend.cuda.gemm_tiling import Product
from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div

# Version of the matrix products -> version in linear.cu, where 1 and 2 are the same.
LINEAR = {"v1": "v1", "v2": "v1", "v3": "v3", "v4": "v4", "v5": "v5"}


class Products(Kind):
    """What convolutions and fully connected layers share."""

    def _multiply(self, file: str, operation: str, product: Product, a, b, result, partial, sizes: dict,
                  **ending) -> None:
        """A product of conv.cu or linear.cu. ending: those of bias, relu and add that the kernel takes.   partial: for
        the sums of the slices, if there are several; they are added up afterwards."""
        version = LINEAR[product.version] if file == "linear" else product.version
        hopper, slices = version == "v5", product.slices
        given = ending if slices == 1 else dict.fromkeys(ending, 0) | ({"bias": None} if "bias" in ending else {})
        self._gpu.launch(f"{file}_hopper" if hopper else file, f"{file}_{version}_{operation}", product.grid,
                         (a, b, *((result, None) if slices == 1 else (None, partial)), *given.values(), product.slice,
                          *([] if hopper else [int(product.packs)]), sizes),
                         block=product.threads, shared=product.shared(self.products), options=product.options)
        if slices > 1:
            weights = operation == "backward_weights"
            ending = ending or {"bias": None, "relu": 0}
            self._gpu.launch("slices", "add_slices_of_weights" if weights else "add_slices",
                             ceil_div(result.size, THREADS),
                             (partial, result, *ending.values(), slices, result.size, result.shape[-1]))

    def _update_by_product(self, product: Product, a, b, w, v, constants: tuple, sizes: dict) -> None:
        """A product of linear.cu that is the gradient of w, with the step of SGD."""
        version = LINEAR[product.version]
        hopper = version == "v5"
        self._gpu.launch("linear_hopper" if hopper else "linear", f"linear_{version}_sgd_step", product.grid,
                         (a, b, w, v, *constants, *([] if hopper else [int(product.packs)]), sizes),
                         block=product.threads, shared=product.shared(self.products), options=product.options)

    def _version(self, dtype) -> str:
        """The version for products in this type: doubles are not rounded, so they cannot use the tensor cores."""
        return "v3" if self.version in ("v4", "v5") and np.dtype(dtype) == np.float64 else self.version
