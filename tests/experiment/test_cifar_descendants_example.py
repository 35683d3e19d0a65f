"""examples/cifar10_descendants.py on a small tree: what the page of its runs says."""

from __future__ import annotations

import json
import os
import signal
import tarfile

import numpy as np
import pytest

from minicnn.data.source import open_data
from minicnn.errors import DataError
from minicnn.graph import Net
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.small_run import load_example, save_tree


@pytest.fixture(scope="module")
def example():
    return load_example("cifar10_descendants")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar") / "small"
    save_tree(root / "train", 16, size=32)
    save_tree(root / "test", 6, size=32)
    return root


def test_runs_and_their_page(example, tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page, archive = tmp_path / "page", tmp_path / "small.tar.xz"
    with tarfile.open(archive, "w:xz") as files:
        files.add(tree, "small")
    options = ["--archive", str(archive), "--epochs", "1", "--batch", "16", "--threads", "1", "--out",
               str(tmp_path / "runs"), "--results", str(page), "--note", "Drawn, not taken."]
    unpacked = str(tmp_path / "unpacked")
    assert example.main([unpacked, "degradation", "--nets", "plain20", "resnet20", *options]) == 0
    assert example.main([unpacked, "airbench", "--seeds", "0", "1", *options]) == 0
    assert example.main([unpacked, "long", *options]) == 0
    assert example.main([unpacked, "cosine", "--nets", "plain20", *options]) == 0
    reports = json.loads(page.with_suffix(".json").read_text())
    assert [(report["net"], report["seed"], report["steps"]) for report in reports] == [
        ("airbench93", 0, 2), ("airbench93", 1, 2), ("plain20", 0, 2), ("plain20", 0, 2), ("resnet20", 0, 2),
        ("airbench94", 0, 2)]                                                                   # all 32 images
    assert list(reports[0]["test"]) == list(reports[5]["test"]) == ["centre crop", "six views"]
    assert [report["weights"] for report in reports] == ["float32"] * 5 + ["float16"]
    assert len(reports[3]["gradients"]["end"]) == 19 and min(reports[3]["gradients"]["begin"]) > 0
    assert reports[3]["gradients"]["begin"] != reports[3]["gradients"]["end"]
    text = page.with_suffix(".md").read_text()
    for words in ("**mean of 2**", "rounded to float16", "falls to 0", "Drawn, not taken.", "](page.png)"):
        assert words in text
    assert page.with_suffix(".png").stat().st_size > 10_000
    assert example.main([unpacked, "airbench", "--nets", "plain20"]) == 2
    assert "--nets plain20: the experiment airbench is of airbench93" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on(example, tree, tmp_path, capsys, monkeypatch):
    """And ends as one that was not."""
    command = [str(tree), "published", "--epochs", "2", "--batch", "16", "--threads", "1", "--device", "cpu",
               "--out", str(tmp_path)]
    whole, steps = Net.backward, []

    def stopped(net, *arguments, **options):
        steps.append(net)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(net, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Net, "backward", stopped)
        assert example.main(command) == 130
    run = tmp_path / "resnet20-seed0-1"
    assert f"with --resume {run}\n" in capsys.readouterr().out and not (run / "test.json").exists()
    assert example.main([*command, "--seeds", "0", "1", "--resume", str(run)]) == 2
    assert "--resume goes on with one run" in capsys.readouterr().err
    assert example.main([*command, "--seeds", "1", "--resume", str(run)]) == 2
    assert example.main([*command, "--resume", str(run)]) == 0 == example.main(command)
    (ours, theirs) = (load_checkpoint(tmp_path / f"resnet20-seed0-{number}" / "last.safetensors").arrays()
                      for number in (1, 2))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_what_is_tested_has_the_rounded_weights(example, tree, tmp_path, monkeypatch):
    seen = []

    def error(net, *_):
        seen.append({name: np.array(array) for name, array in net.arrays().items()})
        return 0.5

    monkeypatch.setattr(example, "error", error)
    assert example.main([str(tree), "long", "--epochs", "1", "--batch", "16", "--threads", "1", "--out",
                         str(tmp_path)]) == 0
    exact = load_checkpoint(tmp_path / "airbench94-seed0-1" / "last.safetensors").arrays()
    for name, array in seen[0].items():
        kept = np.float16 if array.ndim > 1 else np.float32
        np.testing.assert_array_equal(array, exact[name].astype(kept), err_msg=name)
    assert any((seen[0][name] != exact[name]).any() for name in exact)


def test_the_picture_of_gradients(example, tmp_path, monkeypatch):
    """Powers of ten are written out: pictures of this project read no mathematics in their texts."""
    figures = []
    monkeypatch.setattr(example, "save_png", lambda figure, path: figures.append(figure))
    report = {"net": "plain20", "epochs": 2, "curves": {"train": [0.5, 0.4], "val": [0.6, 0.5]},
              "gradients": {"end": [0.02, 0.1, 0.5]}}
    example.draw([report, {**report, "net": "resnet20"}], tmp_path / "page.png")
    errors, norms = figures[0].axes
    assert [text.get_text() for text in errors.get_legend().get_texts()] == ["plain20", "resnet20"]
    figures[0].canvas.draw()
    words = [text.get_text() for which in ("major", "minor") for text in norms.get_yticklabels(which=which)]
    assert {"0.1", "0.2", "0.5"} <= set(words) and not any("$" in word for word in words)


def test_all_of_train_is_learned_from(tree, tmp_path):
    splits = open_data(tree, size=32, hold_out=False)
    assert len(splits.train) == 32 and splits.val is splits.test and "validated on test/" in splits.description
    save_tree(tmp_path / "train", 2, size=32)
    with pytest.raises(DataError, match="neither val/ nor test/"):
        open_data(tmp_path, size=32, hold_out=False)
