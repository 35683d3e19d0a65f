"""A network's parameters and state as files and as arrays by name: "conv1.w", and "state/bn1.mean" for state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError

STATE = "state/"            # what names of state begin with, in files


def arrays_of(net) -> dict:
    """Name -> array of the backend's, of everything that a file holds."""
    return {name: param.data for name, param in net.params.items()} | \
           {STATE + name: array for name, array in net.state.items()}


def save(net, path, metadata: dict[str, str] | None = None) -> None:
    """Write parameters and state as safetensors: beside `path` first, then renamed, so that no file is half there."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    whole = net.ranks.gather(arrays_of(net))
    if not net.ranks.is_main:
        return
    tensors = {name: np.ascontiguousarray(array) for name, array in whole.items()}
    try:
        save_file(tensors, beside, {"format": "minicnn", "net": net.name, **(metadata or {})})
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}; make room "
                              "or choose another folder") from error


def load(net, path) -> None:
    """Read a file of `save`, or a checkpoint of a run. Nothing is changed unless all fits."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    if not Path(path).is_file():
        raise CheckpointError(f"no such file: {path}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file (cut short?): {error}") from None
    own = {name: array for name, array in tensors.items() if "/" not in name or name.startswith(STATE)}
    net.load_arrays(own, str(path))


def check(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray], source: str) -> None:
    """CheckpointError unless the arrays have these names and shapes."""
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{source} is of another network: it has no {name!r}")
        if tuple(tensors[name].shape) != tuple(shape):
            raise CheckpointError(f"{source} is of another network: {name!r} is {tuple(tensors[name].shape)} there and "
                                  f"{tuple(shape)} here")
    if extra := sorted(set(tensors) - set(expected)):
        raise CheckpointError(f"{source} is of another network: it also has {extra[0]!r}")
