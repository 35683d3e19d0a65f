"""Other networks under the names of the registry."""

import dataclasses
from functools import partial

from minicnn.models.registry import MODELS, Model, Variant


def change_model(patch, name: str, **knobs) -> None:
    """Let the model of this name be built with these knobs: small, where a test does not want 61 million weights."""
    patch.setitem(MODELS, name, dataclasses.replace(MODELS[name], function=partial(MODELS[name].function, **knobs)))


def add_model(patch, name: str, function, **declared) -> None:
    """A further model without variants."""
    patch.setitem(MODELS, name, Model(name, function, {"": Variant("default", 0, "none", "a test")}, **declared))
