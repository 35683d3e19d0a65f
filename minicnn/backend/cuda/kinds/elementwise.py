"""Elementwise operations: each is one launch of the kernel of its name, over the elements of its first array."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from minicnn.backend.cuda.kinds.kind import Kind

# Operation -> file of kernels/cuda, and the operation's arguments -> those of its kernel.
ELEMENTWISE = {
    "relu_forward": ("activation", lambda x, y: (x, y, x.size)),
    "relu_backward": ("activation", lambda y, dy, dx: (y, dy, dx, y.size)),
    "leaky_relu_forward": ("activation", lambda x, y, *, slope: (x, y, x.size, slope)),
    "leaky_relu_backward": ("activation", lambda y, dy, dx, *, slope: (y, dy, dx, y.size, slope)),
    "clipped_relu_forward": ("activation", lambda x, y, *, ceiling: (x, y, x.size, ceiling)),
    "clipped_relu_backward": ("activation", lambda y, dy, dx, *, ceiling: (y, dy, dx, y.size, ceiling)),
    "tanh_forward": ("activation", lambda x, y: (x, y, x.size)),
    "tanh_backward": ("activation", lambda y, dy, dx: (y, dy, dx, y.size)),
    "sigmoid_forward": ("activation", lambda x, y: (x, y, x.size)),
    "sigmoid_backward": ("activation", lambda y, dy, dx: (y, dy, dx, y.size)),
    "gelu_forward": ("activation", lambda x, y: (x, y, x.size)),
    "gelu_backward": ("activation", lambda x, dy, dx: (x, dy, dx, x.size)),
    "scale_forward": ("dropout", lambda x, y, *, factor: (x, y, x.size, factor)),
    "find_overflow": ("loss_scale", lambda dw, state: (dw, state, dw.size)),
}


class Elementwise(Kind):
    """The operations of the table above."""


def _elementwise(name: str, file: str, arguments: Callable) -> Callable:
    """The method of CudaOps for one row of ELEMENTWISE, with the signature of its `arguments`."""
    def operation(self, *given, **options):
        values = arguments(*given, **options)
        self._gpu.each(file, name, values[0].size, *values)

    operation.__name__ = operation.__qualname__ = arguments.__qualname__ = name
    own = inspect.signature(operation).parameters["self"]
    operation.__signature__ = inspect.Signature([own, *inspect.signature(arguments).parameters.values()])
    return operation


for _name, _row in ELEMENTWISE.items():
    setattr(Elementwise, _name, _elementwise(_name, *_row))
