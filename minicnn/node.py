"""The nodes of a network's graph: named layers, and what they read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minicnn.errors import ConfigError, expected
from minicnn.layers.base import Layer

LABELS = "labels"                           # what loss layers read besides logits: the (N,) integers given to `loss`
NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Node:
    """A named layer, and the names of the nodes or network inputs that it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


def check_names(nodes: Sequence[Node], inputs: Iterable[str]) -> None:
    """ConfigError unless every name is a plain word of its own, and every node reads inputs or nodes before it."""
    known = {*inputs, LABELS}
    for name in (*inputs, *(node.name for node in nodes)):
        check_name(name)
    for node in nodes:
        if node.name in known:
            raise ConfigError(f"layer {node.name!r}: the name is taken; every layer needs its own")
        for source in node.inputs:
            if source not in known:
                raise ConfigError(f"layer {node.name!r} reads {source!r}, which no layer before it is called")
        known.add(node.name)


def check_name(name: str) -> None:
    """ConfigError for a name that cannot be part of an array's name in files, such as "conv1.w" or "state/bn1.mean"."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be the name of a layer or input: use letters, digits and _ only")


def copied(nodes: Sequence[Node]) -> list[Node]:
    """The same nodes with copies of their layers; a layer of several nodes is copied once, and stays theirs."""
    copies: dict[int, Layer] = {}
    for node in nodes:
        if id(node.layer) not in copies:
            copies[id(node.layer)] = node.layer.copy()
    return [Node(node.name, copies[id(node.layer)], tuple(node.inputs)) for node in nodes]


def unknown_layer(name: str, nodes: Sequence[Node]) -> ConfigError:
    """The error for a name that no layer has."""
    return ConfigError(f"no layer is called {name!r}; {expected(name, (node.name for node in nodes))}")
