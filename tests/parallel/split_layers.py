"""The single-process network with dx summed per column: a layer computed as two halves of its output channels.

A network in columns differs from the single-process one only in the order of one sum: dx of conv3, fc6 and fc7 is a sum
over all output channels, which in columns is computed per column and then added. With these layers split in halves, the
single-process network gives bit-identical results.
"""

from __future__ import annotations

import numpy as np

from minicnn.graph import Net
from minicnn.layers.base import Layer
from minicnn.param import Param
from minicnn.plan import Node

EXCHANGED = ("conv3", "fc6", "fc7")


class SplitLayer(Layer):
    """`layer` (a convolution without groups, or fully connected) as `parts` layers, each with a part of the outputs."""

    def __init__(self, layer, parts: int):
        super().__init__()
        self.layer, self.parts, self.multipliers = layer.copy(), parts, layer.multipliers

    def initial_values(self):
        return self.layer.initial_values()

    def plan(self, in_shapes, dtype, ops):
        return self.layer.plan(in_shapes, dtype, ops)

    def _each(self):
        for part in range(self.parts):
            layer, width = self.layer.copy(), self.params["b"].data.size // self.parts
            if hasattr(layer, "out_channels"):
                layer.out_channels = width
            else:
                layer.out_features = width
            own = slice(part * width, (part + 1) * width)
            layer.params = {local: Param(local, np.ascontiguousarray(param.data[..., own]))
                            for local, param in self.params.items()}
            yield layer, own

    def forward(self, ctx, xs, y, saved):
        for layer, own in self._each():
            part = np.ascontiguousarray(y[..., own])
            layer.forward(ctx, xs, part, saved)
            y[..., own] = part

    def backward(self, ctx, dy, saved, dxs):
        for number, (layer, own) in enumerate(self._each()):
            parts = [None if dx is None else np.empty_like(dx) for dx in dxs]
            layer.backward(ctx, np.ascontiguousarray(dy[..., own]), saved, parts)
            for dx, part in zip(dxs, parts, strict=True):
                if dx is not None:
                    dx[...] = part if number == 0 else dx + part
            for local, param in self.params.items():
                param.grad[..., own] += layer.params[local].grad


def in_columns(net: Net, parts: int = 2) -> Net:
    """The same network, with the layers before which columns exchange activations split into parts."""
    nodes = [Node(node.name, SplitLayer(node.layer, parts) if node.name in EXCHANGED else node.layer, node.inputs)
             for node in net.nodes]
    return Net(nodes, net.inputs, output=net.output, seed=net.seed, dtype=net.dtype, device=net.ops.spec, fuse=net.fuse,
               name=net.name, values={name: net.ops.to_host(array) for name, array in net.arrays().items()})
