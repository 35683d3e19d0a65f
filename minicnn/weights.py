"""Saving and loading parameters ("conv1.w") and state ("state/bn1.mean"), as files and as arrays by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.system.files import cannot_write, read_safetensors, write_safetensors

STATE = "state/"            # prefix of the names of state, in files
AVERAGE = "average/"        # and of averaged parameters and state (minicnn/train/average.py)


def arrays_of(net) -> dict:
    """Name -> backend array, of everything that is saved."""
    return {name: param.data for name, param in net.params.items()} | \
           {STATE + name: array for name, array in net.state.items()}


def save(net, path, metadata: dict[str, str] | None = None) -> None:
    """Write parameters and state as safetensors, atomically."""
    full = net.ranks.gather(arrays_of(net))
    if net.ranks.is_main:
        try:
            write_safetensors(path, full, {"format": "minicnn", "net": net.name, **(metadata or {})})
        except OSError as error:
            raise cannot_write(path, error) from error


def load(net, path) -> None:
    """Load a file written by `save`, or a checkpoint of a run, with its averaged weights where it has some.

    Nothing is changed if anything does not match.
    """
    found, _ = read_safetensors(path, lambda name: "/" not in name or name.startswith((STATE, AVERAGE)))
    averaged = {name.removeprefix(AVERAGE): array for name, array in found.items() if name.startswith(AVERAGE)}
    own = {name: array for name, array in found.items() if not name.startswith(AVERAGE)}
    net.load_arrays(own | averaged, str(path))


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
