"""Activations stored in bf16 on the host, where the operations take them (kernels/cpu/stored.py)."""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.combine import convert
from minicnn.kernels.cpu.stored import BF16, real


class StoresBf16:
    """A mixin of Ops: networks of float32 store activations and their gradients in bf16, as arrays of uint16."""

    def stored_dtype(self, dtype: str) -> str:
        """See Ops."""
        return str(BF16) if np.dtype(dtype) == np.float32 else dtype

    def widened(self, array: np.ndarray) -> np.ndarray:
        """See Ops; of bf16, a new array of float32."""
        if array.dtype != BF16:
            return array
        convert(array, wide := np.empty(array.shape, real(array)))
        return wide

    def write(self, target: np.ndarray, values: np.ndarray) -> None:
        """See Ops."""
        if target.dtype == BF16 != values.dtype:
            convert(np.ascontiguousarray(values, real(target)), target)
        else:
            target[...] = values
