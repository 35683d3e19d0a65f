"""Damaged files of a run are named, and a damaged last checkpoint is replaced by the one before it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minicnn.errors import CheckpointError, DataError
from minicnn.system.files import read_safetensors, write_safetensors
from minicnn.train.runs.checkpoint import SHAPE, load_checkpoint, misfit
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.runs.run_dir import last_intact
from tests.helpers.small_run import small_trainer

SETTINGS, EPOCHS = {"images": 24}, 3
LAST, PREVIOUS, BEST = (f"{name}.safetensors" for name in ("last", "previous", "best"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of three epochs."""
    run_dir = tmp_path_factory.mktemp("run") / "run"
    small_trainer(run_dir, **SETTINGS).fit(EPOCHS)
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path) -> Path:
    """A copy of it in which best is a file of its own."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_the_checkpoint_before_the_last_is_kept(finished):
    assert [load_checkpoint(finished / name).meta["epoch"] for name in (LAST, PREVIOUS)] == [3, 2]


def test_a_damaged_last_checkpoint_loses_an_epoch_and_no_more(finished, run_dir):
    damage(run_dir / LAST)
    said = []
    trainer = small_trainer(run_dir, say=said.append, **SETTINGS).resume()
    assert trainer.epoch == 2
    assert "last.safetensors: damaged: the array" in said[0]
    assert "going on from" in said[1] and "previous.safetensors (epoch 3, step 1)" in said[1]
    trainer.fit(EPOCHS)
    again, before = load_checkpoint(run_dir / LAST), load_checkpoint(finished / LAST)
    for name, array in before.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    assert not (run_dir / PREVIOUS).exists()            # it would have been the damaged file


def test_without_a_whole_one_before_it_the_best_is_used_and_then_none(run_dir):
    damage(run_dir / LAST)
    damage(run_dir / PREVIOUS)
    assert last_intact(run_dir / LAST, lambda text: None) == run_dir / BEST
    damage(run_dir / BEST)
    with pytest.raises(CheckpointError, match="last.safetensors: damaged"):
        last_intact(run_dir / LAST, lambda text: None)


def test_any_other_checkpoint_has_no_substitute(run_dir):
    damage(run_dir / BEST)
    with pytest.raises(CheckpointError, match="best.safetensors: damaged"):
        small_trainer(run_dir, **SETTINGS).resume(run_dir / BEST)


def unsigned(run_dir: Path, change) -> Path:
    """last.safetensors as an earlier version would have written it, without checksums, and with changed metadata."""
    tensors, metadata = read_safetensors(run_dir / LAST)
    write_safetensors(run_dir / "old", tensors, {"minicnn": change(json.loads(metadata["minicnn"]))}, checksums=False)
    return run_dir / "old"


WRONG = ("3", [1], {"a": {}}, True, -1.5)


@pytest.mark.parametrize("name", [name for name in SHAPE])
def test_wrong_metadata_without_checksums_are_named(run_dir, name):
    trainer = small_trainer(run_dir, **SETTINGS)
    for wrong in WRONG:
        path = unsigned(run_dir, lambda meta, wrong=wrong: json.dumps(meta | {name: wrong}))
        if name in ("schedule", "tally", "about", "net", "loss_scale") and isinstance(wrong, dict):
            continue                                    # whose entries are others' affair
        with pytest.raises(CheckpointError, match="old: damaged: its metadata have "):
            trainer.resume(path)


@pytest.mark.parametrize("name", [name for name in SHAPE if name not in ("loss_scale", "about", "net", "steps")])
def test_missing_metadata_are_named(run_dir, name):
    path = unsigned(run_dir, lambda meta: json.dumps({key: value for key, value in meta.items() if key != name}))
    with pytest.raises(CheckpointError, match=f"old: its metadata have no '{name}'"):
        small_trainer(run_dir, **SETTINGS).resume(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1, "recipe": {"net": {}, "sgd": 3}}'])
def test_what_is_no_metadata_is_named(run_dir, text):
    with pytest.raises(CheckpointError, match="old: "):
        small_trainer(run_dir, **SETTINGS).resume(unsigned(run_dir, lambda meta: text))


def test_misfits_are_described():
    assert misfit({"epoch": 3, "best": None, "classes": ["a"]}, SHAPE) is None
    assert misfit({"best": {"epoch": 3, "top1": 1}}, SHAPE) == "have best = \"{'epoch': 3, 'top1': 1}\""
    assert misfit({"classes": ["a", 1]}, SHAPE) == "have classes.1 = '1'"
    assert misfit({"identity": {"data": {"train": "a"}}}, SHAPE) == "have identity.data.val = 'None'"
    assert misfit([], SHAPE) == "have as a whole = '[]'"


@pytest.mark.parametrize("wrong", ["{", "[]", '{"kind": []}', '{"kind": "step"}', '{"a": 1}'])
def test_a_damaged_line_of_the_metrics_is_named(run_dir, wrong):
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], wrong, *lines[2:]]) + "\n")
    with pytest.raises(DataError, match="metrics.jsonl, line 2: damaged"):
        read_metrics(path)


def test_metrics_that_changed_end_nothing(run_dir):
    path = run_dir / "metrics.jsonl"
    path.write_text(path.read_text().replace("loss", "lost"))
    said = []
    small_trainer(run_dir, say=said.append, **SETTINGS).resume().fit(EPOCHS + 1)
    assert any("metrics.jsonl has changed since the last checkpoint" in line for line in said)
