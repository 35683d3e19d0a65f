"""examples/cifar10.py on a small tree: what a run leaves, and the page that collects the runs."""

from __future__ import annotations

import json

import pytest

from minicnn.experiment.recipe import recipe_of
from tests.helpers.small_run import load_example, save_tree


@pytest.fixture(scope="module")
def example():
    return load_example("cifar10")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar") / "small"
    save_tree(root / "train", 72, size=32)
    save_tree(root / "test", 10, size=32)
    return root


def test_runs_and_their_page(example, tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = tmp_path / "new" / "page"
    options = [str(tree), "--epochs", "2", "--threads", "1", "--out", str(tmp_path / "runs")]
    assert example.main([*options, "--seeds", "0", "1", "--results", str(page), "--note", "Drawn, not taken."]) == 0
    assert example.main([*options, "--no-lrn", "--seeds", "1", "--results", str(page)]) == 0
    reports = json.loads(page.with_suffix(".json").read_text())
    assert [(report["lrn"], report["seed"], len(report["val"])) for report in reports] == [
        (True, 0, 2), (True, 1, 2), (False, 1, 2)]
    text = page.with_suffix(".md").read_text()
    assert text.count("| quick | LRN | relu | 2 |") == 3 and text.count("**mean of 2**") == 1
    assert "python examples/cifar10.py small --net 18pct --recipe quick --epochs 2 --seeds 1 --no-lrn" in text
    assert "Drawn, not taken." in text
    run = tmp_path / "runs/cifar-18pct-seed0-1"
    assert sorted(path.name for path in run.iterdir()) == [
        "best.safetensors", "curves.png", "last.safetensors", "metrics.jsonl", "previous.safetensors", "test.json"]
    said = capsys.readouterr().out
    error = reports[0]["test"]["whole image"]
    assert 0 <= error <= 1 and f"test error {100 * error:.2f} % (whole image)" in said

    example.main([*options, "--no-lrn", "--seeds", "1", "--results", str(page)])       # again: replaces, adds nothing
    assert len(json.loads(page.with_suffix(".json").read_text())) == 3


def test_what_would_fail_at_the_end_fails_at_the_beginning(example, tree, tmp_path, capsys):
    (tmp_path / "page.json").write_text("[{}]")
    assert example.main([str(tree), "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "page")]) == 2
    assert "page.json does not hold the runs of an earlier --results" in capsys.readouterr().err
    assert example.main([str(tree), "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "page.json/x")]) == 2
    assert "page.json" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_recipes(example):
    """The published one, stretched over fewer epochs; and the one that gets further in an hour."""
    def recipe(*arguments, classes):
        return recipe_of(example.settings_of(example.parse(["photos", *arguments]), 0), classes, 32)

    published = recipe("--epochs", "70", "--recipe", "published", classes=10)
    assert published.schedule.epochs == (60, 65) and published.optimiser.lr == 0.001 and not published.augment.flip
    quick = recipe("--net", "paper", "--no-lrn", "--activation", "tanh", "--epochs", "30", classes=7)
    assert quick.schedule.epochs == 30 and quick.augment.flip and quick.optimiser.lr == 0.004
    assert quick.net == {"model": "cifar_paper", "lrn": False, "activation": "tanh", "num_classes": 7}


def test_a_tree_without_test_images_is_refused(example, tmp_path, capsys):
    save_tree(tmp_path / "train", 72, size=32)
    assert example.main([str(tmp_path), "--out", str(tmp_path / "runs")]) == 2
    assert "has no test/ with class folders" in capsys.readouterr().err and not (tmp_path / "runs").exists()
