"""Other networks under the names of the registry, and networks of the registry without their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from math import prod
from unittest.mock import patch

from minicnn.backend.select import get_ops
from minicnn.builder import Builder
from minicnn.models.model import Model, Variant
from minicnn.models.registry import MODELS, build

REFERENCE = get_ops("reference")


def change_model(patch, name: str, **knobs) -> None:
    """Let the model of this name be built with these knobs: small, where a test does not want 61 million weights."""
    patch.setitem(MODELS, name, dataclasses.replace(MODELS[name], function=partial(MODELS[name].function, **knobs)))


def add_model(patch, name: str, function, **declared) -> None:
    """A further model without variants."""
    patch.setitem(MODELS, name, Model(name, function, {"": Variant("default", 0, "none", "a test")}, **declared))


class PlannedError(Exception):
    """Carries the builder of a network that is not made."""


def planned(net: str | Callable, **knobs) -> Planned:
    """The layers of a network of the registry, or of a function, and their shapes; no weights are drawn."""
    def stop(builder, output=None, **options):
        raise PlannedError(builder, output)

    with patch.object(Builder, "net", stop):
        try:
            make = partial(build, net) if isinstance(net, str) else net
            make(device="reference", **knobs)
        except PlannedError as found:
            return Planned(*found.args)


class Planned:
    """What is known of a network without its weights; `in_prediction`: nodes that prediction runs."""

    def __init__(self, builder: Builder, output: str | None):
        self.builder, self.nodes = builder, builder.nodes
        needed = {output or builder.last}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        self.in_prediction = [node for node in self.nodes if node.name in needed]

    @cached_property
    def parameters(self) -> int:
        return sum(map(_parameters, self.nodes))

    @property
    def parameters_in_training_only(self) -> int:
        return self.parameters - sum(map(_parameters, self.in_prediction))

    @property
    def macs(self) -> int:
        shape = self.builder.shape
        return sum(node.layer.plan([shape(name) for name in node.inputs], "float32", REFERENCE).macs
                   for node in self.in_prediction)

    def __getitem__(self, name: str):
        """The layer of this name."""
        return next(node.layer for node in self.nodes if node.name == name)

    def layers(self, kind: type, prefix: str = "") -> list:
        """The layers of a kind that prediction runs."""
        return [node.layer for node in self.in_prediction
                if isinstance(node.layer, kind) and node.name.startswith(prefix)]

    def widths(self, *names: str) -> list[int]:
        """The widths of these layers' outputs."""
        return [self.builder.shape(name)[2] for name in names]

    def channels(self, *names: str) -> list[int]:
        """The numbers of channels of these layers' outputs."""
        return [self.builder.shape(name)[-1] for name in names]


def _parameters(node) -> int:
    return sum(prod(shape) for _, shape in node.layer.initial_values().values())
