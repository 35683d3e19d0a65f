"""Which unit of a network a picture is of: checks, the strongest one, and its receptive field in the image."""

from __future__ import annotations

from math import prod

import numpy as np

from minicnn.checks import unknown_layer
from minicnn.errors import ConfigError
from minicnn.layers.pool import AdaptiveAvgPool2d
from minicnn.plan import Plan

Box = tuple[int, int, int, int]         # rows and columns of the image: top, left, bottom, right; the last two excluded


def prediction_plan(net) -> Plan:
    """The plan of a forward pass of one image. ConfigError for a network with several inputs."""
    if len(net.inputs) != 1:
        raise ConfigError(f"network {net.name!r} has the inputs {', '.join(net.inputs)}; pictures of what a unit "
                          "responds to need a network with one input, the image")
    return net.compile_plan(1, [net.output], (), grad=False)


def output_shape(net, layer: str) -> tuple[int, ...]:
    """Shape of this layer's output for one image. ConfigError where prediction has no such layer."""
    net_layer, plan = next((node.layer for node in net.nodes if node.name == layer), None), prediction_plan(net)
    if net_layer is None:
        raise unknown_layer(layer, net.nodes)
    if layer not in plan.where:
        raise ConfigError(f"layer {layer!r} is used in training only; expected one that the output {net.output!r} "
                          "depends on")
    return tuple(plan.values[plan.where[layer]].shape[1:])


def check_unit(net, layer: str, unit: int | None) -> tuple[int, ...]:
    """The shape of the layer's output for one image. ConfigError unless it has this unit (channel); None is any."""
    shape = output_shape(net, layer)
    if unit is not None and not 0 <= unit < shape[-1]:
        raise ConfigError(f"layer {layer!r} has no unit {unit}: it has {shape[-1]}, counted from 0; the nearest is "
                          f"{min(max(unit, 0), shape[-1] - 1)}")
    return shape


def strongest(outputs: np.ndarray, unit=None, position=None) -> list[np.ndarray]:
    """Index arrays (N,) of one element per image of a layer's outputs (N, H, W, C) or (N, C): the largest one.

    unit: a channel, or one per image; None: any.   position: (row, column), or one per image (N, 2); None: any.
    ConfigError for a position outside the map.
    """
    free, axes = np.ones(outputs.shape, bool), outputs.shape[1:]
    if position is not None and len(axes) == 3:
        places = np.broadcast_to(np.asarray(position), (len(outputs), 2))
        if (places < 0).any() or (places >= axes[:2]).any():
            raise ConfigError(f"position {position} lies outside a map of {axes[0]} x {axes[1]}, counted from 0")
        for axis in (0, 1):
            free &= _only(places[:, axis], axes[axis], axis + 1, outputs.ndim)
    if unit is not None:
        free &= _only(np.broadcast_to(unit, len(outputs)), axes[-1], outputs.ndim - 1, outputs.ndim)
    flat = np.where(free, outputs, -np.inf).reshape(len(outputs), -1).argmax(axis=1)
    return [np.arange(len(outputs)), *np.unravel_index(flat, axes)]


def _only(chosen: np.ndarray, count: int, axis: int, ndim: int) -> np.ndarray:
    """True at the chosen index along one axis, for each image; broadcasts to the outputs."""
    shape = [1] * ndim
    shape[0], shape[axis] = len(chosen), count
    return (np.arange(count) == chosen[:, None]).reshape(shape)


def receptive_field(net, layer: str, position: tuple[int, int] = (0, 0)) -> Box:
    """The pixels that the element of a layer's output at (row, column) depends on, clipped to the image.

    Of a layer without rows and columns, such as a fully connected one, everything that it reads.
    """
    shape, plan = output_shape(net, layer), prediction_plan(net)
    spans = {layer: tuple((p, p) if len(shape) == 3 else (0, 0) for p in position)}
    for node in reversed(net.nodes):
        if node.name not in spans or node.name not in plan.where:
            continue
        in_shapes = [plan.values[plan.where[name]].shape for name in node.inputs]
        for name, read in zip(node.inputs, in_shapes, strict=True):
            own = _read_by(node.layer, spans[node.name], in_shapes, read, net)
            spans[name] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(own, spans.get(name, own),
                                                                                 strict=True))
    (top, bottom), (left, right) = spans[next(iter(net.inputs))]
    return top, left, bottom + 1, right + 1


def _read_by(layer, spans, in_shapes, read, net) -> tuple:
    """The rows and columns (first, last) of an input of shape `read` on which these of the output depend."""
    plan = layer.plan(in_shapes, net.dtype, net.ops)
    sizes = read[1:3] if len(read) == 4 else (1, 1)
    outs = plan.out_shape[1:3] if len(plan.out_shape) == 4 else (1, 1)
    if isinstance(layer, AdaptiveAvgPool2d):
        return tuple((a * size // out, -(-(b + 1) * size // out) - 1)
                     for (a, b), size, out in zip(spans, sizes, outs, strict=True))
    pads = layer.geometry(in_shapes[0])[1]["pads"][:2] if hasattr(layer, "geometry") else tuple(
        max(0, (out - 1) * step + k - size) // 2 for out, step, k, size in zip(outs, plan.window[1], plan.window[0],
                                                                             sizes, strict=True))
    return tuple((min(max(0, a * step - pad), size - 1), max(0, min(size - 1, b * step - pad + k - 1)))
                 for (a, b), step, pad, k, size in zip(spans, plan.window[1], pads, plan.window[0], sizes, strict=True))


def name_of(layer: str, unit: int, shape: tuple[int, ...]) -> str:
    """Such as "conv5, map 17 of 256", or "fc8, unit 3 of 1000"; counted from 0."""
    return f"{layer}, {'map' if len(shape) == 3 else 'unit'} {unit} of {shape[-1]} (counted from 0)"


def field_words(box: Box, image: tuple[int, ...]) -> str:
    """The receptive field, for a caption."""
    top, left, bottom, right = box
    if prod((bottom - top, right - left)) == prod(image[:2]):
        return "receptive field: the whole image"
    return f"receptive field: rows {top} to {bottom - 1}, columns {left} to {right - 1} of {image[0]} x {image[1]}"
