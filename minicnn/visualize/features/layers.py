"""Which layers the papers mean by layer 1 and fc7, in any network."""

from __future__ import annotations

from minicnn.errors import ConfigError
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.plan import Node
from minicnn.visualize.units import prediction_plan

WITH_IT = (ReLU, ClippedReLU, LeakyReLU, Sigmoid, Tanh, GELU, BatchNorm2d, Affine)      # belong to the layer before


def predicting(net) -> list[Node]:
    """The nodes on which the prediction depends, in order."""
    plan = prediction_plan(net)
    return [node for node in net.nodes if node.name in plan.where]


def first_layer(net) -> str:
    """Layer 1: the first convolution with its normalisation and activation; of AlexNet relu1."""
    nodes = predicting(net)
    name = next((node.name for node in nodes if isinstance(node.layer, Conv2d)), None)
    if name is None:
        raise ConfigError(f"network {net.name!r} has no convolution")
    readers = [node for node in nodes if name in node.inputs]
    while len(readers) == 1 and isinstance(readers[0].layer, WITH_IT):
        name = readers[0].name
        readers = [node for node in nodes if name in node.inputs]
    return name


def features_layer(net) -> str:
    """What the output layer reads, before dropout; of AlexNet relu7, the features called fc7."""
    nodes = {node.name: node for node in predicting(net)}
    name = net.output
    while name in nodes and not nodes[name].layer.params:
        name = nodes[name].inputs[0]
    name = nodes[name].inputs[0] if name in nodes else name
    while name in nodes and (isinstance(nodes[name].layer, Dropout) or nodes[name].layer.is_view):
        name = nodes[name].inputs[0]
    if name not in nodes:
        raise ConfigError(f"network {net.name!r} has no layer before its output layer")
    return name


def depends_on(net, layer: str) -> list[Node]:
    """The nodes on which a layer's output depends, in order, itself included."""
    needed = {layer}
    for node in reversed(net.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return [node for node in net.nodes if node.name in needed]

