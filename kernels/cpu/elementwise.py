"""Elementwise operations: a kernel that goes over whole flat arrays, called on slices of them by all threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.stored import real
from minicnn.kernels.cpu.threads import parallel_for


def elementwise(kernel: Callable, *arrays: np.ndarray, scalars: tuple = (), cost: int = 1) -> None:
    """Call kernel(*arrays, *scalars) on slices that cover the arrays, which have equally many elements.

    scalars: converted to what the first array is computed in, so that nothing is computed in a wider type.
    cost: of an element, see parallel_for.
    """
    arrays = [flat(array) for array in arrays]
    scalars = [real(arrays[0]).type(value) for value in scalars]

    def on_slices(first: int, last: int) -> None:
        kernel(*[array[first:last] for array in arrays], *scalars)

    parallel_for(arrays[0].size, cost, on_slices)
