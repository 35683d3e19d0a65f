"""Dropout (paper section 4.2): each hidden unit is set to zero with probability `rate`.

Paper:      train  y = x * mask               test  y = x * (1 - rate)
Inverted:   train  y = x * mask / (1 - rate)  test  y = x               (what most later code does)

In each convention, the test output is the expectation of the training output over masks. The mask is a function of
(seed, layer, epoch, image, unit), so backward draws it again instead of saving it, and it does not depend on the rest
of the batch.
"""

from __future__ import annotations

from minicnn.errors import ConfigError
from minicnn.layers.base import Layer, LayerPlan
from minicnn.shapes import finite


class Dropout(Layer):
    """Any shape (N, ...)."""

    in_place = True
    capturable = True

    def __init__(self, rate: float = 0.5, *, inverted: bool = False):
        super().__init__()
        if not 0.0 <= finite(rate, "Dropout: rate") < 1.0:
            raise ConfigError(f"Dropout: rate = {rate} must be in [0, 1)")
        self.rate, self.inverted = rate, inverted

    def draw(self, ctx):
        """Keyword arguments that determine the mask and its scale."""
        scale = 1.0 / (1.0 - self.rate) if self.inverted else 1.0
        return {"rate": self.rate, "scale": scale, "seed": ctx.seed, "purpose": ctx.purpose, "epoch": ctx.epoch,
                "sample_ids": ctx.sample_ids}

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]))

    def forward(self, ctx, xs, y, saved):
        if ctx.train:
            ctx.ops.dropout_forward(xs[0], y, **self.draw(ctx))
        else:
            ctx.ops.scale_forward(xs[0], y, factor=self.test_factor)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is None:
            return
        if ctx.train:
            ctx.ops.dropout_backward(dy, dxs[0], **self.draw(ctx))
        else:
            ctx.ops.scale_forward(dy, dxs[0], factor=self.test_factor)

    @property
    def test_factor(self) -> float:
        """The factor of the activations at test time."""
        return 1.0 if self.inverted else 1.0 - self.rate

    def describe(self):
        return f"{self.rate:g}" + (", inverted" if self.inverted else f", x {self.test_factor:g} at test")
