"""Checkpoints: one safetensors file that holds all a run needs to continue as if it had never stopped.

    conv1.w ...            the parameters, in the network's master precision
    state/bn1.mean ...     the layers' state: saved, not trained (running means, say)
    velocity/conv1.w ...   the optimiser's arrays: of SGD; moment1/ and moment2/ of Adam
    average/conv1.w ...    the moving average of parameters and state, where there is one: average/state/bn1.mean
    data/...               arrays computed from the training set (the mean image, the colour covariance)
    metadata "minicnn"     JSON: the position in the run, its counts, its recipe, seed and data

A run that is killed at any moment leaves either the old file or the new one (minicnn/system/files.py). Random numbers
need no state here, since they are a function of seed, epoch and image (minicnn/rng.py).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError, MinicnnError
from minicnn.system.files import cannot_write, read_safetensors, write_safetensors

FORMAT = 1
SLOTS = ("velocity", "moment1", "moment2", "average", "lookahead")     # of the optimisers, the average, lookahead
PREFIXES = {"state": "state/", "data": "data/", **{slot: f"{slot}/" for slot in SLOTS}, "params": ""}
Arrays = Mapping[str, np.ndarray]
NUMBER, OPTIONAL = (int, float), type(None)
# The metadata of a run: the types of those that are there.
SHAPE = {"epoch": int, "step": int, "steps": int, "best": ({"epoch": int, "top1": NUMBER, "loss": NUMBER}, OPTIONAL),
         "schedule": dict, "loss_scale": (dict, OPTIONAL), "metrics_bytes": int, "recipe": {"net": dict},
         "identity": {"data": {"train": str, "val": str}}, "about": dict, "net": (dict, OPTIONAL), "classes": [str],
         "statistics_count": int, "left_out": {"train": {}, "val": {}}, "tally": dict}


class Meta(dict):
    """The metadata of a checkpoint. CheckpointError for an entry that is not there."""

    def __init__(self, path: Path, entries: dict):
        super().__init__(entries)
        self.path = path

    def __missing__(self, name: str):
        raise CheckpointError(f"{self.path}: its metadata have no {name!r}: damaged, or not of a run; use another "
                              "checkpoint")


@contextlib.contextmanager
def interpreting(path: str | os.PathLike) -> Iterator[None]:
    """CheckpointError in place of what the block raises where metadata or arrays are not those of a run."""
    try:
        yield
    except MinicnnError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, or of another version: {type(error).__name__}: {error}; use another "
                              "checkpoint") from error


@dataclass
class Checkpoint:
    """What a file held: `params` by parameter name, `state` ("bn1.mean") and `data` by name, `meta` the JSON metadata;
    `slots`: slot -> name -> array, of the optimiser and the average."""

    path: Path
    params: dict[str, np.ndarray] = field(default_factory=dict)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    slots: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    meta: Meta = field(default_factory=dict)

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
                    state: Arrays | None = None, also: str | os.PathLike | None = None,
                    keep: str | os.PathLike | None = None) -> None:
    """Write `path`, and the same file under the name `also` (a second name of one file, not a copy).

    `also` is put in place first: a run killed between the two resumes from the older `path` and arrives here again.
    keep: a name for the file that was `path` until now.   CheckpointError where the file cannot be written.
    """
    parts = {"params": params, "state": state or {}, **slots, "data": data}
    tensors = {PREFIXES[part] + name: array for part, arrays in parts.items() for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, **meta}, allow_nan=False)
    try:
        write_safetensors(path, tensors, {"minicnn": text}, also=also, keep=keep)
    except OSError as error:
        intact = ", the checkpoint before it is intact" if os.path.exists(path) else ""
        raise cannot_write(path, error, more=intact) from error


def load_checkpoint(path: str | os.PathLike, parts: Collection[str] = tuple(PREFIXES)) -> Checkpoint:
    """Read these parts of a checkpoint, and its metadata; raises CheckpointError when it cannot be used."""
    path = Path(path)
    tensors, metadata = read_safetensors(path, lambda name: _part(name) in parts)
    if "minicnn" not in metadata:
        raise CheckpointError(f"{path}: holds tensors but no minicnn metadata; it was not written by a minicnn run")
    found = Checkpoint(path, meta=_meta(path, metadata["minicnn"]))
    if found.meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is in format {found.meta.get('format')}, this minicnn reads {FORMAT}")
    for name, array in tensors.items():
        part = _part(name)
        arrays = found.slots.setdefault(part, {}) if part in SLOTS else getattr(found, part)
        arrays[name.removeprefix(PREFIXES[part])] = array
    return found


def _meta(path: Path, text: str) -> Meta:
    """The metadata, from JSON."""
    with interpreting(path):
        meta = json.loads(text)
        if wrong := misfit(meta, SHAPE):
            raise CheckpointError(f"{path}: damaged: its metadata {wrong}; use another checkpoint")
    return Meta(path, meta)


def misfit(value, shape, where: str = "") -> str | None:
    """What is wrong with JSON data, such as "have 'epoch' = 'x'"; None where nothing is.

    shape: a type, a tuple of alternatives, [the shape of each item], or {name: shape}, where outermost names may lack.
    """
    if isinstance(shape, tuple):
        return None if any(misfit(value, one, where) is None for one in shape) else _wrong(value, where)
    if not isinstance(value, shape if isinstance(shape, type) else type(shape)) or isinstance(value, bool):
        return _wrong(value, where)
    parts = []
    if isinstance(shape, dict):
        parts = [(name, value.get(name), inner) for name, inner in shape.items() if where or name in value]
    elif isinstance(shape, list):
        parts = [(k, item, shape[0]) for k, item in enumerate(value)]
    return next((wrong for name, item, inner in parts if (wrong := misfit(item, inner, f"{where}.{name}"))), None)


def _wrong(value, where: str) -> str:
    return f"have {where.lstrip('.') or 'as a whole'} = {str(value)[:40]!r}"


def _part(name: str) -> str:
    """The part that an array of the file belongs to."""
    return next(part for part, prefix in PREFIXES.items() if name.startswith(prefix))


def _some(names: Collection[str]) -> str:
    """Such as "3 classes (cat, dog, fish)"."""
    first = ", ".join(list(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} classes ({first})"
