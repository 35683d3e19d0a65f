"""The exponential moving average (EMA) of the weights over the steps; often better on validation than the weights:

    average <- d * average + (1 - d) * value            d = factor;  with warmup, min(factor, (1 + t) / (10 + t))

of every parameter and of all state (running statistics, say), after each step; t counts the updates. The first one
copies the values. What is trained does not depend on the average; validation uses it, by `in_place`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from minicnn.errors import ConfigError
from minicnn.shapes import finite


class WeightAverage:
    """The average of the arrays of `net`; `optimiser.average = WeightAverage(net)` updates it after each step.

    factor: in [0, 1), d of the formula above.   warmup: begin with a smaller one.   arrays: by name, as in
    net.arrays(), made at the first update; integers are not averaged. t is kept on the device: a captured step counts,
    and a step skipped by an overflow does not.
    """

    def __init__(self, net, factor: float = 0.999, warmup: bool = True):
        if not 0 <= finite(factor, "the factor of the moving average") < 1:
            raise ConfigError(f"the factor of the moving average of the weights must lie in [0, 1), not {factor}")
        self._net, self.factor, self.warmup = net, factor, warmup
        self.arrays: dict = {}
        self._steps, self._counts = 0, None                     # counts: of kernels/reference/ema.py

    def step(self, ops=None, **scaled) -> None:
        """One update.   scaled: `loss_scale`, the state of a LossScale; where a gradient overflowed, it is skipped."""
        ops, values = ops or self._net.ops, self._values()
        if self._counts is None:
            self._counts = ops.from_host(np.array([self._steps, 0.0]))
        if missing := [name for name in values if name not in self.arrays]:
            self.arrays |= {name: values[name].copy() for name in missing}
        ops.ema_advance(self._counts, factor=self.factor, warmup=self.warmup, **scaled)
        with ops.together():
            for name, value in values.items():
                ops.ema_step(value, self.arrays[name], self._counts, **scaled)

    def _values(self) -> dict:
        return {name: array for name, array in self._net.arrays().items() if array.dtype.kind == "f"}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the network has the averaged weights; afterwards its own again, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        values = self._values()
        for name, average in self.arrays.items():
            kept = values[name].copy()
            values[name][...] = average
            average[...] = kept

    # ---- what a checkpoint holds besides `arrays`
    def to_dict(self) -> dict[str, int]:
        """Numbers, as plain data."""
        return {"steps": self._steps if self._counts is None else int(self._net.ops.to_host(self._counts)[0])}

    def load(self, arrays: dict, numbers: dict[str, int]) -> None:
        """Go on from `arrays`, on this backend, and a `to_dict`."""
        self.arrays, self._steps, self._counts = arrays, numbers["steps"], None
