"""Checkpoints: one safetensors file that holds all a run needs to continue as if it had never stopped.

    conv1.w ...            the parameters, in the network's master precision
    state/bn1.mean ...     the layers' state: saved, not trained (running means, say)
    velocity/conv1.w ...   the optimiser's arrays: of SGD; moment1/ and moment2/ of Adam
    average/conv1.w ...    the moving average of parameters and state, where there is one: average/state/bn1.mean
    data/...               arrays computed from the training set (the mean image, the colour covariance)
    metadata "minicnn"     JSON: the position in the run, its counts, its recipe, seed and data

A run that is killed at any moment leaves either the old file or the new one (minicnn/files.py). Random numbers need no
state here, since they are a function of seed, epoch and image (minicnn/rng.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.files import cannot_write, read_safetensors, write_safetensors

FORMAT = 1
SLOTS = ("velocity", "moment1", "moment2", "average")                  # of the optimisers, and the average
PREFIXES = {"state": "state/", "data": "data/", **{slot: f"{slot}/" for slot in SLOTS}, "params": ""}
Arrays = Mapping[str, np.ndarray]


@dataclass
class Checkpoint:
    """What a file held: `params` by parameter name, `state` ("bn1.mean") and `data` by name, `meta` the JSON metadata;
    `slots`: slot -> name -> array, of the optimiser and the average."""

    path: Path
    params: dict[str, np.ndarray] = field(default_factory=dict)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    slots: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)

    @property
    def velocities(self) -> dict[str, np.ndarray]:
        """Of SGD, by parameter name."""
        return self.slots.get("velocity", {})

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters by name, and state by "state/NAME", as Net.load_arrays takes them."""
        return self.params | {PREFIXES["state"] + name: array for name, array in self.state.items()}

    def averaged(self) -> dict[str, np.ndarray]:
        """The same to predict with: averages where there are any."""
        return self.arrays() | self.slots.get("average", {})

    def check_classes(self, classes: Collection[str]) -> None:
        """CheckpointError unless it was trained on these classes, in this order."""
        if self.meta["classes"] != list(classes):
            raise CheckpointError(f"{self.path}: was trained on {_some(self.meta['classes'])}, the data has "
                                  f"{_some(classes)}; use it with data of the same class folders")


def save_checkpoint(path: str | os.PathLike, params: Arrays, slots: Mapping[str, Arrays], data: Arrays, meta: dict, *,
                    state: Arrays | None = None, also: str | os.PathLike | None = None) -> None:
    """Write `path`, and the same file under the name `also` (a second name of one file, not a copy).

    `also` is put in place first: a run killed between the two resumes from the older `path` and arrives here again.
    CheckpointError where the file cannot be written.
    """
    parts = {"params": params, "state": state or {}, **slots, "data": data}
    tensors = {PREFIXES[part] + name: array for part, arrays in parts.items() for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, **meta}, allow_nan=False)
    try:
        write_safetensors(path, tensors, {"minicnn": text}, also=also)
    except OSError as error:
        raise cannot_write(path, error, more=", the checkpoint before it is intact") from error


def load_checkpoint(path: str | os.PathLike, parts: Collection[str] = tuple(PREFIXES)) -> Checkpoint:
    """Read these parts of a checkpoint, and its metadata; raises CheckpointError when it cannot be used."""
    path = Path(path)
    tensors, metadata = read_safetensors(path, lambda name: _part(name) in parts)
    if "minicnn" not in metadata:
        raise CheckpointError(f"{path}: holds tensors but no minicnn metadata; it was not written by a minicnn run")
    found = Checkpoint(path, meta=json.loads(metadata["minicnn"]))
    if found.meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is in format {found.meta.get('format')}, this minicnn reads {FORMAT}")
    for name, array in tensors.items():
        part = _part(name)
        arrays = found.slots.setdefault(part, {}) if part in SLOTS else getattr(found, part)
        arrays[name.removeprefix(PREFIXES[part])] = array
    return found


def _part(name: str) -> str:
    """The part that an array of the file belongs to."""
    return next(part for part, prefix in PREFIXES.items() if name.startswith(prefix))


def _some(names: Collection[str]) -> str:
    """Such as "3 classes (cat, dog, fish)"."""
    first = ", ".join(list(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} classes ({first})"
