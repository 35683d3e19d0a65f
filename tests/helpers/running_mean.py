"""A small layer with state, for tests: it subtracts a running mean per channel and adds a trainable shift."""

from __future__ import annotations

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, LayerPlan


class RunningMean(Layer):
    """y = x - mean + shift, with `mean` the running mean of the channels (..., C), updated in training."""

    channelwise = True

    def __init__(self, channels: int, momentum: float = 0.1):
        super().__init__()
        self.channels, self.momentum = channels, momentum

    def initial_values(self):
        return {"shift": (0.5, (self.channels,))}

    def initial_state(self):
        return {"mean": (0.0, (self.channels,))}

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        if shape[-1] != self.channels:
            raise ShapeError(f"RunningMean expects {self.channels} channels, got {shape[-1]}")
        return LayerPlan(tuple(shape))

    def forward(self, ctx, xs, y, saved):
        x, mean = xs[0], self.state["mean"]
        y[...] = x - mean + self.params["shift"].data
        if ctx.train and ctx.update_state:
            mean += self.momentum * (x.reshape(-1, self.channels).mean(axis=0) - mean)

    def backward(self, ctx, dy, saved, dxs):
        self.params["shift"].grad += dy.reshape(-1, self.channels).sum(axis=0)
        if dxs[0] is not None:
            dxs[0][...] = dy
