"""A network as JSON-serialisable data, and back: `net.description()`, `Net.from_description`.

    {"format": 1, "name": "small", "inputs": {"image": [9, 9, 3]}, "output": "fc4", "nodes": [
        {"name": "conv1", "kind": "Conv2d", "inputs": ["image"], "options": {"in_channels": 3, ...}}, ...]}

A node holds the kind of its layer and its constructor arguments; "multipliers" where its parameters have factors on
the learning rate and the weight decay; "tied" instead of these where it shares the layer of an earlier node. Weights
are not included.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from minicnn.errors import ConfigError, expected
from minicnn.init import INITIALISERS
from minicnn.layers.base import Layer
from minicnn.plan import Node

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


def nodes_of(description: dict) -> list[Node]:
    """The nodes of a description, with new layers. ConfigError for a wrong format or an unknown kind of layer."""
    if description.get("format") != FORMAT:
        raise ConfigError(f"a network's description is in format {description.get('format')}, this minicnn reads "
                          f"{FORMAT}")
    layers: dict[str, Layer] = {}
    for entry in description["nodes"]:
        layers[entry["name"]] = layers[entry["tied"]] if "tied" in entry else _layer(entry)
    return [Node(entry["name"], layers[entry["name"]], tuple(entry["inputs"])) for entry in description["nodes"]]


def _layer(entry: dict) -> Layer:
    kind, name = entry["kind"], entry["name"]
    if kind not in Layer.KINDS:
        file = kind.partition(":")[0]
        what = f"import {file!r}, which defines it, first" if ":" in kind else expected(kind, Layer.KINDS)
        raise ConfigError(f"layer {name!r} is of the kind {kind!r}, which is not defined here; {what}")
    try:
        layer = Layer.KINDS[kind](**{option: _value(value) for option, value in entry["options"].items()})
    except TypeError as error:
        raise ConfigError(f"layer {name!r}: {kind} cannot be made from {entry['options']}: {error}") from None
    layer.multipliers = {local: tuple(pair) for local, pair in entry.get("multipliers", {}).items()}
    return layer


def _plain(value):
    """Convert to JSON types. TypeError for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
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
