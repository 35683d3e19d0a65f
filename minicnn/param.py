"""A trainable array with its gradient.

`data` is the master copy in float32 (float64 in checks). Backward passes add to `grad`; the network zeroes it. Zeroing
is lazy: it only sets a flag, so that a backward pass can overwrite the gradient instead of zeroing it and adding, which
saves a pass over memory (234 MB per step for AlexNet's fully connected layers). Reading `grad` always gives zeros then.
The two multipliers belong to the training recipe: Krizhevsky's own code, for example, trains biases with twice the
learning rate and without weight decay.
"""

from __future__ import annotations

import numpy as np

from minicnn.errors import ConfigError, expected


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: "conv1.w" -> "conv1"."""
    return name.rpartition(".")[0]


class Param:
    """One weight or bias array.

    name: unique in the network, such as "conv1.w".   data: the values.   lr_mult, decay_mult: factors on the learning
    rate and on the weight decay (0: the array is not trained, or does not decay).
    """

    def __init__(self, name: str, data, lr_mult: float = 1.0, decay_mult: float = 1.0):
        self.name, self.data = name, data
        self.lr_mult, self.decay_mult = lr_mult, decay_mult
        self._grad = None
        self._is_zero = False

    @property
    def grad(self):
        """Gradient, shaped like `data`; allocated on first use, so that pure inference needs no memory for it.

        Zeros after a step of training that has used it at once (train.step.backward_and_update); `net.backward()` alone
        leaves it.
        """
        if self._grad is None:
            self._grad = self.data * 0 if not isinstance(self.data, np.ndarray) else np.zeros_like(self.data)
        elif self._is_zero:
            self._grad[...] = 0
        self._is_zero = False
        return self._grad

    def grad_to_fill(self):
        """(the gradient's array, whether to add to it): for a backward pass that writes or adds every element.

        If the gradient has been zeroed, the contents of the array are undefined until it is written.
        """
        if self._grad is None or not self._is_zero:
            return self.grad, True
        self._is_zero = False
        return self._grad, False

    @grad.setter
    def grad(self, value) -> None:
        """Makes `param.grad += part` work; copies into the same array."""
        if value is not self._grad:
            self.grad[...] = value

    def zero_grad(self) -> None:
        """Set the gradient to zero, lazily."""
        self._is_zero = self._grad is not None

    def __repr__(self) -> str:
        return f"Param({self.name!r}, {'x'.join(map(str, self.data.shape))}, {self.data.dtype})"


class Named(dict):
    """A dict by name, for example of parameters; the error for an unknown name suggests the nearest one."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, name):
        raise ConfigError(f"no {self.what} is called {name!r}; {expected(name, self)}")
