"""Checkpoints: one safetensors file that holds all a run needs to go on as if it had never stopped.

    conv1.w ...            the parameters, in the network's master precision
    velocity/conv1.w ...   the optimiser's velocities
    data/...               arrays computed from the training set (the mean image, the colour covariance)
    metadata "minicnn"     JSON: where the run is, what it has counted, its recipe, seed and data

A checkpoint is written beside its place and renamed: whoever is killed at any moment leaves either the old file or the
new one. Random numbers need no state here, since they are a function of seed, epoch and image (minicnn/rng.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError

FORMAT = 1
PREFIXES = {"velocities": "velocity/", "data": "data/", "params": ""}


@dataclass
class Checkpoint:
    """What a file held: `params` and `velocities` by parameter name, `data` by name, `meta` the JSON metadata."""

    path: Path
    params: dict[str, np.ndarray]
    velocities: dict[str, np.ndarray]
    data: dict[str, np.ndarray]
    meta: dict

    def check_classes(self, classes: Collection[str]) -> None:
        """CheckpointError unless it was trained on these classes, in this order."""
        if self.meta["classes"] != list(classes):
            raise CheckpointError(f"{self.path}: was trained on {_some(self.meta['classes'])}, the data has "
                                  f"{_some(classes)}; use it with data of the same class folders")


def save_checkpoint(path: str | os.PathLike, params: Mapping[str, np.ndarray], velocities: Mapping[str, np.ndarray],
                    data: Mapping[str, np.ndarray], meta: dict, also: str | os.PathLike | None = None) -> None:
    """Write `path`, and the same file under the name `also` (a second name of one file, not a copy).

    `also` is put in place first: a run killed between the two goes on from the older `path` and arrives here again.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    tensors = dict(params)
    tensors.update({PREFIXES["velocities"] + name: array for name, array in velocities.items()})
    tensors.update({PREFIXES["data"] + name: array for name, array in data.items()})
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps({"format": FORMAT, **meta}, allow_nan=False)
    beside = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, beside, metadata={"minicnn": text})
        os.chmod(beside, 0o666 & ~_umask())             # the library leaves it readable by the owner alone
        _to_disk(beside)
        if also is not None:
            _second_name(beside, Path(also))
        os.replace(beside, path)
        _to_disk(path.parent)
    except (OSError, SafetensorError) as error:         # the library calls a full disk by a name of its own
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise CheckpointError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}; "
                              "make room or choose another folder, the checkpoint before it is intact") from error


def _second_name(existing: Path, name: Path) -> None:
    """Put a hard link to `existing` in place of `name`; a copy where the file system has no links."""
    beside = name.with_name(f".{name.name}.part")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    try:
        os.link(existing, beside)
    except OSError:
        shutil.copyfile(existing, beside)
        _to_disk(beside)
    os.replace(beside, name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(path: str | os.PathLike, parts: Collection[str] = ("params", "velocities", "data")) -> Checkpoint:
    """Read these parts of a checkpoint, and its metadata; raises CheckpointError when it cannot be used."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; expected a .safetensors file written by a minicnn run")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; use another checkpoint")
    found = Checkpoint(path, {}, {}, {}, {})
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("minicnn")
            for name in file.keys():
                part, prefix = next((part, prefix) for part, prefix in PREFIXES.items() if name.startswith(prefix))
                if part in parts:
                    getattr(found, part)[name.removeprefix(prefix)] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cut short or damaged, {path.stat().st_size:,} bytes do not make a safetensors "
                              f"file ({error}); use another checkpoint") from error
    if text is None:
        raise CheckpointError(f"{path}: holds tensors but no minicnn metadata; it was not written by a minicnn run")
    found.meta = json.loads(text)
    if found.meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is in format {found.meta.get('format')}, this minicnn reads {FORMAT}")
    return found


def _some(names: Collection[str]) -> str:
    """Such as "3 classes (cat, dog, fish)"."""
    first = ", ".join(list(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} classes ({first})"
