"""A network as JSON-serialisable data, and back: `net.description()`, `Net.from_description`.

    {"format": 1, "name": "small", "inputs": {"image": [9, 9, 3]}, "output": "fc4", "nodes": [
        {"name": "conv1", "kind": "Conv2d", "inputs": ["image"], "options": {"in_channels": 3, ...}}, ...]}

A node holds the kind of its layer and its constructor arguments; "multipliers" where its parameters have factors on
the learning rate and the weight decay; "tied" instead of these where it shares the layer of an earlier node. Weights
are not included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import isfinite

import numpy as np

from minicnn.checks import check_layer
from minicnn.errors import ConfigError, MinicnnError, expected
from minicnn.init import INITIALISERS
from minicnn.layers.base import Layer
from minicnn.plan import Node
from minicnn.weights import STATE

FORMAT = 1


def describe(net) -> dict:
    """The description of a network. ConfigError for a layer whose arguments cannot be serialised as JSON."""
    nodes, first = [], {}
    for node in net.nodes:
        entry = {"name": node.name, "inputs": list(node.inputs)}
        if id(node.layer) in first:
            nodes.append(entry | {"tied": first[id(node.layer)]})
            continue
        first[id(node.layer)] = node.name
        try:
            options = {name: _plain(value) for name, value in node.layer.options().items()}
        except TypeError as error:
            raise ConfigError(f"layer {node.name!r} of network {net.name!r} cannot be described: {error}; make it "
                              f"from numbers, strings, lists and the initialisers {', '.join(INITIALISERS)}") from None
        multipliers = {local: list(pair) for local, pair in node.layer.multipliers.items() if tuple(pair) != (1.0, 1.0)}
        nodes.append(entry | {"kind": node.layer.kind(), "options": options}
                     | ({"multipliers": multipliers} if multipliers else {}))
    return {"format": FORMAT, "name": net.name, "inputs": {name: list(shape) for name, shape in net.inputs.items()},
            "output": net.output, "nodes": nodes}


def parts_of(description: dict) -> dict:
    """The arguments of Net, with new layers. ConfigError where it is no description, or names unknown kinds."""
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else type(description).__name__
        raise ConfigError(f"a network's description is in format {found}, this minicnn reads {FORMAT}")
    try:
        inputs = {name: tuple(shape) for name, shape in description["inputs"].items()}
        return {"nodes": _nodes(description["nodes"]), "inputs": inputs, "output": description["output"],
                "name": description["name"]}
    except MinicnnError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"a network's description is damaged: {type(error).__name__}: {error}") from error


def _nodes(entries: list[dict]) -> list[Node]:
    layers: dict[str, Layer] = {}
    for entry in entries:
        layers[entry["name"]] = layers[entry["tied"]] if "tied" in entry else _layer(entry)
    return [Node(entry["name"], layers[entry["name"]], tuple(entry["inputs"])) for entry in entries]


def _layer(entry: dict) -> Layer:
    kind, name = entry["kind"], entry["name"]
    if kind not in Layer.KINDS:
        file = kind.partition(":")[0]
        what = f"import {file!r}, which defines it, first" if ":" in kind else expected(kind, Layer.KINDS)
        raise ConfigError(f"layer {name!r} is of the kind {kind!r}, which is not defined here; {what}")
    try:
        layer = Layer.KINDS[kind](**{option: _value(value) for option, value in entry["options"].items()})
    except MinicnnError as error:
        raise type(error)(f"layer {name!r}: {error}") from None
    except Exception as error:                              # of somebody's own layer: it may be anything
        raise ConfigError(f"layer {name!r}: {kind} cannot be made from {entry['options']}: {type(error).__name__}: "
                          f"{error}") from error
    layer.multipliers = {local: tuple(pair) for local, pair in entry.get("multipliers", {}).items()}
    if unknown := sorted(set(layer.multipliers) - set(layer.initial_values())):
        raise ConfigError(f"layer {name!r}: multipliers name {unknown[0]!r}, which {kind} does not have")
    return layer


def rebuilt(net, nodes: Sequence[Node], *, inputs: dict[str, tuple[int, ...]] | None = None, device: str | None = None,
            seed: int | None = None, dtype: str | None = None, fuse: bool | None = None):
    """A network like `net` of these nodes, which keep the weights and state that their layers have.

    With `seed`, all are drawn anew.   inputs: where they are not those of `net`.
    """
    values, first = {}, {id(node.layer): node for node in reversed(nodes)}.values()
    if seed is None:                                        # by the names that they will have
        values = {f"{node.name}.{local}": net.ops.to_host(param.data)
                  for node in first for local, param in check_layer(node.layer).params.items()}
        values |= {f"{STATE}{node.name}.{local}": net.ops.to_host(array)
                   for node in first for local, array in node.layer.state.items()}
    again = type(net)(nodes, inputs or net.inputs, output=net.output, name=net.name, values=values,
                      seed=net.seed if seed is None else seed, dtype=dtype or net.dtype, device=device or net.ops.spec,
                      fuse=net.fuse if fuse is None else fuse)
    again.freeze(net._frozen.intersection(again.layers_with_arrays))
    return again


def _plain(value):
    """Convert to JSON types. TypeError for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        raise TypeError(f"{value} cannot be written as JSON")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _plain(item) for name, item in value.items()}
    if type(value) in INITIALISERS.values():
        return {"init": type(value).__name__, **dataclasses.asdict(value)}
    raise TypeError(f"{value!r} is not JSON-serialisable")


def _value(value):
    """The inverse of `_plain`; lists become tuples."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    if isinstance(value, dict) and value.get("init") in INITIALISERS:
        return INITIALISERS[value["init"]](**{name: item for name, item in value.items() if name != "init"})
    return {name: _value(item) for name, item in value.items()} if isinstance(value, dict) else value
