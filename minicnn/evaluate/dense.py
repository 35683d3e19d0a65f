"""A net at all positions of a larger image: its fully connected layers are applied as convolutions.

    (N, H, W, C) -> Flatten -> Linear -> Linear        at one position:   logits (N, classes)
    (N, H', W', C) -> H x W convolution -> Linear      at P x Q of them:  logits (N, P, Q, classes)

A Linear behind Flatten reads H x W x C values in this order, so its weights (H*W*C, K) are those (H, W, C, K) of an
H x W convolution. The Linears after it are applied to each pixel. (Sermanet et al., "OverFeat", ICLR 2014. How VGG and
ResNet average the map: protocols.py.)
"""

from __future__ import annotations

from dataclasses import replace

from minicnn.description import rebuilt
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.layers.combine import Flatten
from minicnn.layers.conv import Conv2d
from minicnn.layers.linear import Linear
from minicnn.param import Param
from minicnn.plan import Node
from minicnn.shapes import Pair, pair


def dense(net: Net, size: int | Pair) -> Net:
    """A new net with the same weights for images of `size`, without losses; its output is (N, P, Q, classes).

    A net with GlobalAvgPool2d in place of Flatten averages over the larger map: its output is (N, classes) as before.
    Between Flatten and Linear there may be activations and dropout. ConfigError for other layers that read flattened
    maps; ShapeError where `size` is too small.
    """
    name, (_, _, channels) = next(iter(net.inputs.items()))
    return rebuilt(net, _converted(net), inputs={**net.inputs, name: (*pair(size), channels)})


def set_size(wide: Net, size: Pair) -> None:
    """Let a net of `dense` take images of another size from now on; its weights stay. It is planned anew."""
    name, (*before, channels) = next(iter(wide.inputs.items()))
    if tuple(before) != pair(size):
        wide.inputs[name] = (*pair(size), channels)
        wide.forget(())


def _converted(net: Net) -> list[Node]:
    """The nodes that the output depends on, without Flatten. flat: flattened values -> the map's (H, W, C)."""
    plan = net.compile_plan(1, [net.output], (), grad=False)
    flat, renamed, convolutions, found = {}, {}, {}, []
    for node in net.nodes:
        if node.name not in plan.shapes:
            continue
        source, layer = node.inputs[0], node.layer
        shape = plan.shapes[source][1:]
        if type(layer) is Flatten and len(shape) == 3:
            flat[node.name], renamed[node.name] = shape, renamed.get(source, source)
            continue
        if source in flat and type(layer) is Linear:
            layer = convolutions.setdefault(id(layer), _convolution(layer, flat[source]))
        elif flat.keys() & set(node.inputs):
            flat[node.name] = _carried(net, node, flat[source])
        found.append(replace(node, layer=layer, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
    if net.output in flat:
        raise ConfigError(f"network {net.name!r} ends with flattened maps; there is no Linear after them")
    return found


def _carried(net: Net, node: Node, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape of the flattened map behind a layer that reads one. ConfigError unless it is elementwise."""
    if not node.layer.in_place:
        raise ConfigError(f"layer {node.name!r} of network {net.name!r} reads flattened maps; only Linear, "
                          "activations and Dropout can be applied to a larger image then")
    return shape


def _convolution(layer: Linear, image: tuple[int, int, int]) -> Conv2d:
    """The Linear that reads this flattened image (H, W, C), as a convolution with the same weights."""
    (H, W, C), w = image, layer.params["w"]
    conv = Conv2d(C, layer.out_features, (H, W), bias=layer.bias, init=layer.init, bias_init=layer.bias_init)
    conv.params = {**layer.params, "w": Param(w.name, w.data.reshape(H, W, C, -1), w.lr_mult, w.decay_mult)}
    return conv
