"""minicnn evaluate with the images of a run, and with others: of a folder without a split, all of them."""

from __future__ import annotations

import argparse
import shutil

import pytest

from minicnn.cli.main import main
from minicnn.experiment.looking.asked import held_out
from minicnn.experiment.trained import load_trained
from tests.helpers.small_run import save_tree
from tests.helpers.tiny_command import NET, tiny_command


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("others")
    save_tree(root / "set", per_class=10, size=48)
    (root / "own.py").write_text(NET)
    shutil.copytree(root / "set", root / "moved")
    assert main(tiny_command(root, "--device", "reference", "--run-name", "run")) == 0
    shutil.copytree(root / "runs/run", root / "runs/fresh")
    return root


@pytest.mark.parametrize(("data", "count"), [([], 2), (["set"], 2), (["moved"], 2), (["others"], 20)])
def test_images_that_are_evaluated(root, capsys, data, count):
    """A tenth of the run's own, wherever they lie: the others were trained on."""
    if data == ["others"]:
        save_tree(root / "others", per_class=10, size=40)
    run, words = root / "runs/run", ["--data", str(root / data[0])] if data else []
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["evaluate", str(run), *words, "--protocol", "crop"]) == 0
    out = capsys.readouterr().out
    assert f": {count} test images, centre crop" in out and f"evaluating   {count} test images: centre crop\n" in out
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == ({"predictions.png"} if data == ["moved"] else set())     # whose title has the folder's name
    assert after.keys() - before.keys() == ({"predictions-others.png"} if data == ["others"] else set())


def test_what_looks_inside_takes_them_too(root):
    checkpoint = root / "runs/run/best.safetensors"
    save_tree(root / "more", per_class=6, size=40)
    _, pipeline, _ = load_trained(checkpoint, "reference")
    counts = [len(held_out(argparse.Namespace(data=str(root / data), out="runs"), checkpoint, pipeline))
              for data in ("set", "moved", "more")]
    assert counts == [2, 2, 12]


@pytest.mark.parametrize(("words", "drawn"), [
    ([], []), (["--protocol", "dense"], ["predictions-dense.png"]),
    (["--protocol", "ten-crop", "--scales", "32,40"], ["predictions-ten-crops-at-32-40.png"])])
def test_the_picture_of_training_stays(root, words, drawn):
    """Whatever the protocol; by default the centre crop is the first, as in training."""
    run = root / "runs/fresh"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["evaluate", str(run), "--data", str(root / "set"), *words]) == 0
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert sorted(after.keys() - before.keys()) == drawn and all(after[name] == before[name] for name in before)
