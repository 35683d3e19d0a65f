"""Run folders: how one is found, and a trained network loaded from it; how one is made: folder.py.

    runs/elpv-paper-1/    last.safetensors previous.safetensors best.safetensors metrics.jsonl test.json
                          ledger.json (of several ranks) curves.png conv1.png predictions.png
                          weights/epoch-0010.safetensors ... (with keep_every)
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from minicnn import pretrained
from minicnn.data.input import InputPipeline
from minicnn.errors import CheckpointError, ConfigError, plural
from minicnn.train.recipe import Recipe
from minicnn.train.runs.checkpoint import Checkpoint, interpreting, load_checkpoint

LAST, BEST, METRICS = "last.safetensors", "best.safetensors", "metrics.jsonl"
TEST = "test.json"
LEDGER = "ledger.json"                     # what the ranks of a run exchanged
PREVIOUS = "previous.safetensors"          # the one before last, for when that is damaged
WEIGHTS = "weights"                        # folder of what keep_every keeps: checkpoints of the weights alone


def check_writable(folder: Path) -> None:
    """ConfigError unless files can be made in the folder, or in what will hold it; nothing is left there."""
    try:
        tempfile.TemporaryFile(dir=_existing(folder)).close()
    except OSError as error:
        raise cannot_write_to(folder, error) from error


def cannot_write_to(folder: Path, error: OSError) -> ConfigError:
    """The error for a folder in which no file can be made."""
    return ConfigError(f"{folder} cannot be written to: {_existing(folder)}: {error.strerror}; choose another folder")


def _existing(folder: Path) -> Path:
    """The folder, or the innermost one around it that exists."""
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def find_checkpoint(out: str | os.PathLike, which: str, name: str) -> Path:
    """What `which` means: a checkpoint, a run folder or a run in `out` (then `name` in it); "" is the newest run.

    The word `pretrained` is always the network of this package; stderr says so where something else has that name.
    """
    if which == pretrained.WORD:
        return _packaged(out, name)
    if which:
        for candidate in (Path(which), Path(out) / which):
            if candidate.is_file():
                return candidate
            if candidate.is_dir():
                return _in_folder(candidate, name)
        raise CheckpointError(f"{which}: no such run; expected a checkpoint, a run folder, or the name of one in {out} "
                              f"({pretrained.WORD}: the network of this package)")
    runs = sorted(Path(out).glob(f"*/{LAST}"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise CheckpointError(f"no run to resume: {out} holds no */{LAST}; start one, or name its folder")
    return runs[-1].with_name(name)


def kept_path(run_dir: Path, epoch: int) -> Path:
    """Where the weights after this epoch are kept."""
    return run_dir / WEIGHTS / f"epoch-{epoch:04d}.safetensors"


def kept_weights(run_dir: Path) -> dict[int, Path]:
    """Epoch -> file of the weights that a run has kept, in the order of the epochs."""
    found = {path: re.fullmatch(r"epoch-(\d+)\.safetensors", path.name) for path in (run_dir / WEIGHTS).glob("*")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def _packaged(out: str | os.PathLike, name: str) -> Path:
    """The weights of this package. CheckpointError where a run is to go on from them."""
    if name == LAST:
        raise CheckpointError(f"{pretrained.WORD} is the network of this package, which cannot be resumed; train it "
                              f"further with --init-from {pretrained.WORD}")
    for path in (Path(pretrained.WORD), Path(out) / pretrained.WORD):
        if path.exists():
            print(f"{pretrained.WORD} is the network of this package; the folder of that name is "
                  f"{os.path.join(path.parent, path.name)}", file=sys.stderr)
    return pretrained.CHECKPOINT


def folder_for(checkpoint: Path) -> Path:
    """Where pictures of a checkpoint are written: beside it; of the packaged network, in the current folder."""
    return Path() if checkpoint == pretrained.CHECKPOINT else checkpoint.parent


def last_intact(path: Path, say: Callable[[str], None]) -> Path:
    """`path`, or where it is damaged the checkpoint before it; `say` takes what is damaged and what is lost.

    CheckpointError where there is no other, or no other is whole.
    """
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        if path.name != LAST:
            raise
        before = [other for name in (PREVIOUS, BEST) if (other := path.with_name(name)).exists()]
        for other in before:
            with contextlib.suppress(CheckpointError):
                where = load_checkpoint(other).meta
                say(f"{error}")
                say(f"going on from {other} (epoch {where['epoch'] + 1}, step {where['step'] + 1}): what was trained "
                    "after it is lost, and is done again")
                return other
        raise
    return path


def _in_folder(folder: Path, name: str) -> Path:
    """The checkpoint in a run folder; CheckpointError where the folder shows why there is none."""
    if not (folder / name).exists():
        if name == LAST and (folder / BEST).exists():       # killed between the two names of its first checkpoint
            return folder / BEST
        if epochs := _epochs_done(folder / LAST):
            raise CheckpointError(f"{folder}: {name} is missing, though {plural(epochs, 'epoch')} "
                                  f"{'is' if epochs == 1 else 'are'} done; it may have been removed; name "
                                  f"{folder / LAST}")
        if (folder / LAST).exists():
            raise CheckpointError(f"{folder} was stopped in its first epoch, and has no {name} yet; resume it, or name "
                                  f"{folder / LAST}")
        if (folder / METRICS).exists():
            raise CheckpointError(f"{folder} was stopped before its first checkpoint; start it again")
        if runs := sorted(path.parent.name for path in folder.glob(f"*/{LAST}")):
            raise CheckpointError(f"{folder} is a folder of runs; name one of them: {', '.join(runs[:10])}"
                                  + (", ..." if len(runs) > 10 else ""))
    return folder / name


def _epochs_done(path: Path) -> int:
    """Whole epochs before a checkpoint; 0 where it cannot be read."""
    with contextlib.suppress(CheckpointError):
        return read_settings(path)["epoch"]
    return 0


def read_settings(path: Path) -> dict:
    """The metadata of a checkpoint: its recipe, seed, data and position, without the tensors."""
    return load_checkpoint(path, parts=()).meta


def restore(net, path: str | os.PathLike, classes: list[str]) -> tuple[InputPipeline, Checkpoint]:
    """Load a checkpoint into `net`, its averaged weights where it has some; returns the input pipeline with its
    preprocessing, and the checkpoint.

    CheckpointError when it is of another net, or of other classes than `classes`.
    """
    saved = load_checkpoint(path, parts=("params", "state", "average", "data"))
    saved.check_classes(classes)
    net.load_arrays(saved.averaged(), str(path))
    with interpreting(path):
        return InputPipeline(net, saved_recipe(saved).preprocess, saved.data.get("mean")), saved


def saved_recipe(saved: Checkpoint) -> Recipe:
    """The recipe in a checkpoint. Those of 0.1.0 do not say the size of the images: it is that of the mean image."""
    with interpreting(saved.path):
        recipe = Recipe.from_dict(saved.meta["recipe"])
    if recipe.preprocess.size is None and "mean" in saved.data:
        return replace(recipe, preprocess=replace(recipe.preprocess, size=saved.data["mean"].shape[0]))
    return recipe
