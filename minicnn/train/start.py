"""Beginning from another run's weights: fine-tuning.

    Layers of the same name and shape are taken over; the output layer begins anew where the classes are others.
    Layers whose rate is 0 (SGDRecipe.layer_lr) stay as they are.
"""

from __future__ import annotations

import os

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.train.checkpoint import load_checkpoint


def take_over(net, path: str | os.PathLike, new_head: bool = False) -> list[str]:
    """Set the parameters of `net` that a checkpoint holds, by name and shape; says in lines what matched and what not.

    new_head: the output layer keeps its fresh weights. CheckpointError where nothing matches, or where the output layer
    does not and new_head was not asked for. Nothing is changed then.
    """
    theirs = load_checkpoint(path, parts=("params",)).params
    head = set(net.output_params) if new_head else set()
    taken, left = [], {}
    for name, param in net.params.items():
        if name in head:
            left[name] = "a new head"
        elif name not in theirs:
            left[name] = "not there"
        elif theirs[name].shape != tuple(param.data.shape):
            left[name] = f"{_by(theirs[name].shape)} there, {_by(param.data.shape)} here"
        else:
            taken.append(name)
    if not taken:
        raise CheckpointError(f"{path}: none of its arrays has the name and shape of one of {net.name!r}; expected a "
                              "checkpoint of a similar net")
    if wrong := [name for name in net.output_params if name in left and name not in head]:
        raise CheckpointError(f"{path}: its output layer does not fit, {wrong[0]!r} is {left[wrong[0]]}; add "
                              "--new-head to begin that layer anew")
    for name in taken:
        net.params[name].data[...] = net.ops.from_host(theirs[name].astype(net.dtype, copy=False))
    numbers = sum(int(np.prod(theirs[name].shape)) for name in taken)
    lines = [f"{len(taken)} of {len(net.params)} arrays, {numbers:,} numbers, from {path}: {', '.join(_layers(taken))}"]
    return lines + [f"begins anew: {name} ({why})" for name, why in left.items()]


def _layers(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _by(shape) -> str:
    return " x ".join(map(str, shape))
