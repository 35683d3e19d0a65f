"""Lookahead (Zhang et al., arXiv 1907.08610): slow weights follow the trained ones, which are set back to them.

After every `every` steps, of all parameters and state:

    slow <- r * slow + (1 - r) * fast,    fast <- slow          r = factor * (steps done / steps in all)^power

In the paper r is constant, and parameters alone are averaged; this is the form of KellerJordan/cifar10-airbench. The
slow weights are initialised with the fast ones after `after` epochs. Each epoch ends with fast <- slow.
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
    after: int = 3

    def __post_init__(self):
        whole(self.every, "Lookahead: every", least=1), whole(self.after, "Lookahead: after", least=0)
        if not 0 <= finite(self.factor, "Lookahead: factor") <= 1:
            raise ConfigError(f"Lookahead: factor = {self.factor} must be between 0 and 1, the weight of the slow "
                              "weights")
        if not finite(self.power, "Lookahead: power") >= 0:
            raise ConfigError(f"Lookahead: power = {self.power} must be 0 or more")

    def make(self, net) -> Lookahead:
        return Lookahead(net, self)


class Lookahead:
    """The slow weights of `net`.   arrays: by name, as in net.arrays(); empty until there are some."""

    def __init__(self, net, recipe: LookaheadRecipe):
        self._net, self.recipe, self.arrays = net, recipe, {}

    def step(self, step: int, steps: int, epoch: int) -> None:
        """After a step of training.   step: how many are done, of `steps` in all.   epoch: it was of, from 0 on."""
        if epoch < self.recipe.after or step % self.recipe.every:
            return
        if not self.arrays:
            self.arrays = {name: fast.copy() for name, fast in self._fast().items()}
            return
        kept = self.recipe.factor * (step / steps) ** self.recipe.power
        for name, fast in self._fast().items():
            slow = self.arrays[name]
            slow += fast.dtype.type(1 - kept) * (fast - slow)
            fast[...] = slow

    def end_epoch(self) -> None:
        """The network gets the slow weights, where there are some."""
        fast = self._fast()
        for name, slow in self.arrays.items():
            fast[name][...] = slow

    def _fast(self) -> dict:
        return {name: array for name, array in self._net.arrays().items() if array.dtype.kind == "f"}
