"""Elementwise operations: a kernel that goes over whole flat arrays, called on slices of them by all threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn.kernels.cpu.memory import flat
from minicnn.kernels.cpu.threads import parallel_for


def elementwise(kernel: Callable, *arrays: np.ndarray, numbers: tuple = (), cost: int = 1) -> None:
    """Call kernel(*arrays, *numbers) on slices that cover the arrays, which have equally many elements.

    numbers: become scalars of the first array's type, so that nothing is computed in a wider one.
    cost: of an element, see parallel_for.
    """
    arrays, number = [flat(array) for array in arrays], arrays[0].dtype.type
    numbers = [number(value) for value in numbers]

    def on_slices(first: int, last: int) -> None:
        kernel(*[array[first:last] for array in arrays], *numbers)

    parallel_for(arrays[0].size, cost, on_slices)
