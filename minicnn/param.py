"""A trained array with its gradient.

`data` is the master copy in float32 (float64 in checks). Backward passes add to `grad`; the network zeroes it. Zeroing
only notes that the gradient counts as zero: it costs a pass over memory, which a backward that writes instead of adding
saves (AlexNet's fully connected layers, 234 MB a step). Whoever asks for `grad` sees zeros.
The two multipliers belong to the recipe: Krizhevsky's own code, for one, trains biases at twice the rate, undecayed.
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
    rate and on the weight decay (0 leaves the array untrained, or undecayed).
    """

    def __init__(self, name: str, data, lr_mult: float = 1.0, decay_mult: float = 1.0):
        self.name, self.data = name, data
        self.lr_mult, self.decay_mult = lr_mult, decay_mult
        self._grad = None
        self._counts_as_zero = False

    @property
    def grad(self):
        """Gradient like `data`; made on first use, so that a network that only predicts does not pay for it."""
        if self._grad is None:
            self._grad = self.data * 0 if not isinstance(self.data, np.ndarray) else np.zeros_like(self.data)
        elif self._counts_as_zero:
            self._grad[...] = 0
        self._counts_as_zero = False
        return self._grad

    def grad_to_fill(self):
        """(the gradient's array, whether to add to it): for a backward pass that will write or add every value.

        Where the gradient counts as zero, the array may hold anything.
        """
        if self._grad is None or not self._counts_as_zero:
            return self.grad, True
        self._counts_as_zero = False
        return self._grad, False

    @grad.setter
    def grad(self, value) -> None:
        """Lets `param.grad += part` be written; the array itself stays the same one."""
        if value is not self._grad:
            self.grad[...] = value

    def zero_grad(self) -> None:
        """From now on the gradient is zero."""
        self._counts_as_zero = self._grad is not None

    def __repr__(self) -> str:
        return f"Param({self.name!r}, {'x'.join(map(str, self.data.shape))}, {self.data.dtype})"


class Named(dict):
    """A dict by name, of parameters for instance, which answers an unknown name with the nearest known one."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, name):
        raise ConfigError(f"no {self.what} is called {name!r}; {expected(name, self)}")
