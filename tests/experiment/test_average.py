"""Runs are averaged on the same images, wherever their folders lie."""

import shutil

from PIL import Image

from minicnn.cli.main import main
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.experiment.evaluation import _same_images
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from minicnn.train.runs.run_dir import BEST
from tests.helpers.tiny_command import tiny_command, tiny_set
from tests.helpers.trees import picture, tree


def test_runs_on_other_images_are_not_averaged(tmp_path, capsys):
    """The folders' images decide, which is one line."""
    tiny_set(tmp_path)
    other = shutil.copytree(tmp_path / "set", tmp_path / "other")
    Image.fromarray(picture(99)).save(next((other / "test").glob("*/*")))
    assert main(tiny_command(tmp_path, "--epochs", "1", "--device", "reference", "--run-name", "first")) == 0
    second = shutil.copytree(tmp_path / "runs" / "first", tmp_path / "runs" / "second") / BEST
    saved = load_checkpoint(second)
    saved.meta["about"]["data"] = str(other)
    save_checkpoint(second, saved.params, saved.slots, saved.data, saved.meta)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "runs" / "first"), str(second)]) == 2
    errors = capsys.readouterr().err
    assert "runs that are averaged must have the same data" in errors and errors.count("\n") == 1


def test_the_images_decide_not_the_folders(tmp_path):
    tree(tmp_path / "set", {"a": 12, "b": 12})
    held_out = open_data(tmp_path / "set", size=16).test
    scan(held_out, progress=False)
    other = shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert _same_images(held_out, open_data(other, size=16))
    path = other / held_out.path(0)
    path.unlink()
    Image.fromarray(picture(99)).save(path)
    assert not _same_images(held_out, open_data(other, size=16))
