"""Folding: a network for inference without its normalisations.

With fixed statistics, a batch normalisation is a scale and a shift of each channel. After a convolution or fully
connected layer, both go into its weights:

    a = gamma / sqrt(var + eps)        a * (x w + b - mean) + beta  =  x (a w) + a * (b - mean) + beta

The logits are the same up to rounding, and a pass over memory is saved for each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minicnn.graph import Net
from minicnn.layers.base import Layer
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.conv import Conv2d
from minicnn.layers.linear import Linear
from minicnn.plan import Node
from minicnn.weights import STATE


def folded(net: Net) -> Net:
    """A copy of `net` for inference, in which BatchNorm2d and Affine are folded into the Conv2d or Linear before them.

    A layer is kept as it is where another node reads the value before it, or shares the weights. The result keeps the
    name of the convolution, and is not to be trained: its statistics do not follow the batch. `net` itself where
    nothing can be folded.
    """
    nodes, output = list(net.nodes), net.output
    arrays = {name: net.ops.to_host(array) for name, array in net.arrays().items()}
    for node in net.nodes:
        before = _foldable(node, nodes)
        if before is None or before.name == output:
            continue
        own = {name: arrays.pop(name) for name in list(arrays) if name.removeprefix(STATE).startswith(f"{node.name}.")}
        scale, shift = _scale_and_shift(node, own)
        w, b = arrays[f"{before.name}.w"], arrays.get(f"{before.name}.b", 0.0)
        arrays |= {f"{before.name}.w": w * scale, f"{before.name}.b": b * scale + shift}
        merged = Node(before.name, _with_bias(before.layer), before.inputs)
        nodes = [_reading(merged if other is before else other, node.name, before.name)
                 for other in nodes if other.name != node.name]
        output = before.name if output == node.name else output
    if len(nodes) == len(net.nodes):
        return net
    return Net(nodes, net.inputs, output=output, seed=net.seed, dtype=net.dtype, device=net.ops.spec, fuse=net.fuse,
               name=net.name, values=arrays)


def _foldable(node: Node, nodes: list[Node]) -> Node | None:
    """The convolution or fully connected layer into which the node can be folded."""
    if type(node.layer) not in (BatchNorm2d, Affine) or len(node.inputs) != 1:
        return None
    before = next((other for other in nodes if other.name == _current(node, nodes).inputs[0]), None)
    if before is None or type(before.layer) not in (Conv2d, Linear):
        return None
    readers = [other for other in nodes if before.name in other.inputs]
    tied = [other for other in nodes if other.layer in (node.layer, before.layer)]
    return before if len(readers) == 1 and len(tied) == 2 else None


def _current(node: Node, nodes: list[Node]) -> Node:
    """The node as it is after earlier ones have been folded."""
    return next(other for other in nodes if other.name == node.name)


def _scale_and_shift(node: Node, own: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The layer as y = scale * x + shift, in float64."""
    array = {name.rpartition(".")[2]: value.astype(np.float64) for name, value in own.items()}
    scale, shift = array.get("w", 1.0), array.get("b", 0.0)
    if isinstance(node.layer, BatchNorm2d):
        scale = scale / np.sqrt(array["var"] + node.layer.eps)
        shift = shift - array["mean"] * scale
    return scale, shift


def _with_bias(layer: Layer) -> Layer:
    """A layer of the same configuration, with a bias."""
    return type(layer)(**layer.options() | {"bias": True})


def _reading(node: Node, name: str, instead: str) -> Node:
    """The node with input `name` replaced."""
    return replace(node, inputs=tuple(instead if source == name else source for source in node.inputs))
