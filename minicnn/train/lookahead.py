"""Lookahead (Zhang et al., arXiv 1907.08610): slow weights follow the trained ones, which are set back to them.

After every `every` steps, of all parameters and state:

    slow <- r * slow + (1 - r) * fast,    fast <- slow          r = factor * (steps done / steps in all)^power

The slow weights are initialised with the fast ones; the last step of a run ends with fast <- slow. In the paper r is
constant, and parameters alone are averaged; this is the form of KellerJordan/cifar10-airbench.
"""

from __future__ import annotations

import dataclasses

from minicnn.errors import ConfigError
from minicnn.shapes import finite, whole


@dataclasses.dataclass(frozen=True)
class LookaheadRecipe:
    """Settings of Lookahead: see above. ConfigError for those that make no sense."""

    every: int = 5
    factor: float = 0.95**5
    power: float = 3.0

    def __post_init__(self):
        whole(self.every, "Lookahead: every", least=1)
        if not 0 <= finite(self.factor, "Lookahead: factor") <= 1:
            raise ConfigError(f"Lookahead: factor = {self.factor} must be between 0 and 1, the weight of the slow "
                              "weights")
        if not finite(self.power, "Lookahead: power") >= 0:
            raise ConfigError(f"Lookahead: power = {self.power} must be 0 or more")

    def make(self, net) -> Lookahead:
        return Lookahead(net, self)


class Lookahead:
    """The slow weights of `net`.   arrays: by name, as in net.arrays(); none before `begin`."""

    def __init__(self, net, recipe: LookaheadRecipe):
        self._net, self.recipe, self.arrays = net, recipe, {}

    def begin(self) -> None:
        """Before the first step of a new run: the slow weights are the fast ones."""
        self.arrays = {name: fast.copy() for name, fast in self._fast().items()}

    def step(self, step: int, steps: int) -> None:
        """After a step of training.   step: how many are done, of `steps` in all."""
        due = step % self.recipe.every == 0
        if not due and step < steps:
            return
        kept = self.recipe.factor * (step / steps) ** self.recipe.power
        for name, fast in self._fast().items():
            slow = self.arrays[name]
            if due:
                slow += fast.dtype.type(1 - kept) * (fast - slow)
            fast[...] = slow

    def _fast(self) -> dict:
        return {name: array for name, array in self._net.arrays().items() if array.dtype.kind == "f"}
