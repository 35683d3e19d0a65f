"""Fine-tuning: loading another run's weights before training.

    Layers of the same name and shape are loaded, with their state; a new output layer is drawn for other classes.
    Layers whose learning rate is 0 (SGDRecipe.layer_lr) are frozen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.param import layer_of
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.weights import STATE


def load_pretrained(net, path: str | os.PathLike, new_head: bool = False,
                    theirs: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """Load the layers of `net` that a checkpoint holds, by name and shape; returns lines that say what matched.

    A layer is loaded whole or not at all. new_head: the output layer keeps its fresh weights.   theirs: the arrays of
    the file, by our names, where it is no checkpoint of minicnn. CheckpointError where nothing matches, or where the
    output layer does not and new_head was not asked for. Nothing is changed then.
    """
    ours = net.arrays()
    if theirs is None:
        theirs = load_checkpoint(path, parts=("params", "state", "average")).averaged()
    head = [layer_of(name) for name in net.output_params]
    loaded, left = [], {}
    for layer in net.layers_with_arrays:
        why = "a new head" if new_head and layer in head else _misfit(ours, layer, theirs)
        if why:
            left[layer] = why
        else:
            loaded.append(layer)
    if not loaded:
        raise CheckpointError(f"{path}: none of its layers has the name and shape of one of {net.name!r}; expected a "
                              "checkpoint of a similar net")
    if not new_head and (wrong := [layer for layer in head if layer in left]):
        raise CheckpointError(f"{path}: its output layer {wrong[0]!r} does not fit, {left[wrong[0]]}; add --new-head "
                              "to initialise that layer anew")
    for name, array in ours.items():
        if _layer(name) in loaded:
            array[...] = net.ops.from_host(theirs[name].astype(net.dtype, copy=False))
    count = sum(param.data.size for name, param in net.params.items() if layer_of(name) in loaded)
    lines = [f"{len(loaded)} of {len(loaded) + len(left)} layers, {count:,} parameters, from {path}: "
             f"{', '.join(loaded)}"]
    return lines + [f"initialised anew: {layer} ({why})" for layer, why in left.items()]


def _misfit(ours: dict, layer: str, theirs: dict[str, np.ndarray]) -> str:
    """Why a layer cannot be loaded, or ""."""
    for name, array in ours.items():
        if _layer(name) == layer:
            if name not in theirs:
                return f"{name} is not there"
            if theirs[name].shape != tuple(array.shape):
                return f"{name} is {_by(theirs[name].shape)} there, {_by(array.shape)} here"
    return ""


def _layer(name: str) -> str:
    """The layer of a parameter or of state: "state/bn1.mean" -> "bn1"."""
    return layer_of(name.removeprefix(STATE))


def _by(shape) -> str:
    return " x ".join(map(str, shape))
