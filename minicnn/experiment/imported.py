"""Checkpoints of imported networks: they are predicted with, evaluated and fine-tuned like those of runs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from minicnn.data.preprocess import IMAGE, Preprocess
from minicnn.errors import ConfigError, MinicnnError
from minicnn.graph import Net
from minicnn.interop.formats.caffe.files import read_mean
from minicnn.interop.read import preprocess_in, read
from minicnn.interop.report import Report
from minicnn.models.registry import find, named
from minicnn.train.recipe import Recipe
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint

ASSUMED = "preprocessing unknown, assumed"


def save_imported(net: Net, path: str | os.PathLike, classes: list[str] | None = None) -> None:
    """Write the network that `interop.read` returned, with its preprocessing and the names of its classes.

    ConfigError where there are not as many names as classes, or the images are not square and in colour.
    """
    report: Report = net.source
    classes = classes or report.classes or [str(k) for k in range(net.num_classes)]
    if len(classes) != net.num_classes:
        raise ConfigError(f"{path}: the network has {net.num_classes:,} classes, and {len(classes):,} names were given")
    preprocess = report.preprocess or assumed(net, path)
    data = {"mean": report.mean_image} if preprocess.mean == IMAGE else {}
    arrays = {name: net.ops.to_host(array) for name, array in net.arrays().items()}
    recipe = Recipe(_named(report.model, len(classes)), preprocess=preprocess)
    meta = {"epoch": 0, "step": 0, "steps": 0, "best": None, "schedule": {}, "loss_scale": None, "metrics_bytes": 0,
            "metrics_crc32": None, "recipe": recipe.to_dict(),
            "identity": {"seed": 0, "net_seed": net.seed, "dtype": net.dtype,
                         "data": {"train": f"imported: {report.about}", "val": "none"}},
            "about": {"data": None}, "net": net.description(), "classes": classes, "statistics_count": 0,
            "left_out": {"train": {}, "val": {}}, "tally": {},
            "imported": {"format": report.format, "lines": report.lines(),
                         "preprocess": ASSUMED if is_assumed(report) else report.preprocess_source}}
    params = {name: array for name, array in arrays.items() if "/" not in name}
    state = {name.removeprefix("state/"): array for name, array in arrays.items() if "/" in name}
    save_checkpoint(path, params, {}, data, meta, state=state)


def is_assumed(report: Report) -> bool:
    """Whether nobody has said what the pixels of an image become."""
    return report.preprocess is None or report.preprocess_source.startswith("assumed")


def _named(model: str, classes: int) -> dict:
    """The network as a recipe has it; one that is no model of ours has only its description."""
    if named(model.partition(":")[0]):
        name, variant = find(model)
        return {"model": name, **({"variant": variant} if variant else {}), "num_classes": classes}
    return {"num_classes": classes}


def assumed(net: Net, where) -> Preprocess:
    """RGB in 0..255 minus nothing, of the size of the network's images."""
    shape = net.input_shape
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise ConfigError(f"{where}: the network takes images of {' x '.join(map(str, shape))}; a checkpoint to "
                          "predict with needs square colour images; use minicnn.interop.read in Python")
    return Preprocess(size=max(round(shape[0] * 256 / 224), shape[0]), crop=shape[0], mean=None)


def with_mean(net: Net, mean: str) -> None:
    """Set the mean of the report: "b,g,r", or a file (.binaryproto, or .npy: (H, W, 3) RGB, (3, H, W) BGR)."""
    report: Report = net.source
    base = report.preprocess or assumed(net, "--mean")
    if os.path.isfile(mean):
        report.mean_image = _mean_image(Path(mean))
        report.preprocess = replace(base, mean=IMAGE, size=max(base.size, report.mean_image.shape[0]))
    else:
        try:
            blue, green, red = map(float, mean.split(","))
        except ValueError:
            raise ConfigError(f"--mean {mean}: expected three numbers b,g,r, such as 104,117,123, or a file") from None
        values = (blue, green, red) if base.order == "bgr" else (red, green, blue)
        report.preprocess = replace(base, mean=values)
    report.preprocess_source = f"--mean {os.path.basename(mean)}"


def _mean_image(path: Path) -> np.ndarray:
    if path.suffix == ".binaryproto":
        return read_mean(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--mean {path}: cannot be read as .npy ({error})") from error
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        array = array.transpose(1, 2, 0)[..., ::-1]                     # (3, H, W), BGR, as Caffe's Python has it
    if array.ndim != 3 or array.shape[2] != 3:
        raise ConfigError(f"--mean {path}: an array of {array.shape}; expected (H, W, 3), RGB")
    return np.ascontiguousarray(array, np.float32)


def preprocess_of(path: str | os.PathLike, model: str | None = None) -> dict | None:
    """The preprocessing that imported weights expect, as plain data; None for those of a run, whose recipe decides.

    Of a foreign file, that of its metadata, or of torchvision where the names of its weights are torchvision's; of
    others, what reading them says.   model: the network that they are for.
    """
    if is_foreign(path):
        known = preprocess_in(path) or _known_when_read(path, model)
        found = None if known is None else known.to_dict()
    else:
        meta = load_checkpoint(path, parts=()).meta
        found = meta["recipe"]["preprocess"] if "imported" in meta else None
    return None if found is None or found.get("mean") == IMAGE else found


def _known_when_read(path: str | os.PathLike, model: str | None) -> Preprocess | None:
    """None also for a file that cannot be read; the error is that of loading its weights."""
    with contextlib.suppress(MinicnnError):
        report: Report = read(path, model=model, device="cpu").source
        return None if is_assumed(report) else report.preprocess
    return None


def is_foreign(path: str | os.PathLike) -> bool:
    """Whether a file was not written by minicnn."""
    with open(path, "rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        start = file.read(min(length, 2**22)) if length < 2**26 else b""
    return not (start[:1] == b"{" and b'"minicnn' in start)
