"""The kernels of the first layer over time: from the checkpoints that a run has kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.errors import MinicnnError
from minicnn.param import layer_of
from minicnn.report.pictures import mosaic
from minicnn.report.run import Run
from minicnn.system.files import read_safetensors
from minicnn.train.runs.checkpoint import PREFIXES, load_checkpoint
from minicnn.train.state import first_kernels

START = PREFIXES["data"] + "start"
COLUMNS, CELL, FRAMES = 16, 33, 8           # kernels in a row; pixels of a kernel, about; checkpoints at most


@dataclass(frozen=True)
class Frame:
    """The kernels after so many epochs, as one image.   moved: how far they are from their initial values, as a share
    of the length of those; None where these are not known."""

    epoch: float
    pixels: np.ndarray
    moved: float | None


@dataclass(frozen=True)
class Filters:
    """layer, shape: of the kernels (R, S, C, K).   frames: the earliest first.   change: the last minus the first,
    where the first are the initial values; else None.   damaged: checkpoints that could not be read."""

    layer: str
    shape: tuple[int, ...]
    frames: list[Frame]
    change: np.ndarray | None
    damaged: list[str]


def filters(run: Run) -> Filters | None:
    """None where the first convolution does not see an image of 1 or 3 channels."""
    name = first_kernels(run.net)
    if name is None or run.net.params[name].data.shape[2] not in (1, 3):
        return None
    kept, damaged = _kept(run, name)
    start = kept.pop("start", None)
    if start is not None and start.shape != run.net.params[name].data.shape:
        start = None
    frames = [] if start is None else [Frame(0, sheet(start), 0.0)]
    epochs = sorted(kept)
    shown = {epochs[n] for n in np.linspace(0, len(epochs) - 1, min(FRAMES, len(epochs))).round().astype(int)}
    frames += [Frame(epoch, sheet(kept[epoch]), _moved(kept[epoch], start)) for epoch in sorted(shown)]
    change = None if start is None else sheet(kept[max(kept)] - start)
    return Filters(layer_of(name), tuple(run.net.params[name].data.shape), frames, change, damaged)


def _kept(run: Run, name: str) -> tuple[dict, list[str]]:
    """Epoch -> kernels, of the checkpoints in a run folder; "start" -> their initial values. And damaged files."""
    found, damaged = {}, []
    wanted = {PREFIXES[part] + name for part in ("params", "average")} | {START}
    for path in sorted({run.checkpoint, *run.folder.glob("*.safetensors"), *run.folder.glob("*/*.safetensors")}):
        try:
            meta = load_checkpoint(path, parts=()).meta
            if meta["identity"] != run.meta["identity"]:                        # of another run
                continue
            arrays, _ = read_safetensors(path, wanted.__contains__)
        except MinicnnError:
            damaged.append(path.name)
            continue
        kernels = arrays.get(PREFIXES["average"] + name, arrays[PREFIXES["params"] + name])
        found[meta["epoch"] + meta["step"] / max(1, meta["steps"])] = kernels
        if START in arrays:
            found["start"] = arrays[START]
    return found, damaged


def _moved(kernels: np.ndarray, start: np.ndarray | None) -> float | None:
    return None if start is None else float(np.linalg.norm(kernels - start) / np.linalg.norm(start))


def sheet(weights: np.ndarray) -> np.ndarray:
    """(R, S, C, K) as one image: each kernel on its own scale, 0 grey."""
    kernels = np.moveaxis(np.asarray(weights, np.float64), 3, 0)
    peak = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    kernels = np.broadcast_to(0.5 + 0.5 * kernels / np.where(peak > 0, peak, 1), (*kernels.shape[:3], 3))
    scale = max(1, round(CELL / kernels.shape[1]))
    return mosaic([kernel.repeat(scale, 0).repeat(scale, 1) for kernel in kernels], min(COLUMNS, len(kernels)), gap=3,
                  clear=True)
