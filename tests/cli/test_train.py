"""minicnn train and evaluate: models by name, runs by their folder alone, and runs that were made in Python."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

from minicnn.cli import main as cli
from minicnn.experiment.evaluation import evaluate_held_out
from minicnn.experiment.trained import load_trained
from minicnn.train.recipe import AverageRecipe
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.small_run import save_tree, small_recipe, small_trainer


@pytest.fixture(autouse=True, scope="module")
def a_cache_of_its_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photographs, and a run of cifar_18pct on them with a page of results."""
    root = tmp_path_factory.mktemp("cli")
    save_tree(root / "photos", per_class=24, size=32)
    arguments = ["--data", str(root / "photos"), "--recipe", "quick", "--epochs", "1", "--warmup", "0.5",
                 "--batch", "4", "--threads", "1"]
    assert cli.main(["train", "cifar_18pct", *arguments, "--out", str(root / "runs"), "--results",
                     str(root / "page")]) == 0
    return root


def test_a_model_by_its_name(place):
    """It is in the run's folder, in the recipe, on the page, and in the command that starts the run again."""
    [run] = (place / "runs").iterdir()
    meta = load_checkpoint(run / "best.safetensors", parts=()).meta
    assert run.name == "photos-cifar_18pct-1" and meta["about"]["model"] == "cifar_18pct"
    assert meta["recipe"]["net"] == {"model": "cifar_18pct", "num_classes": 2}
    assert meta["recipe"]["schedule"]["epochs"] == 1 and meta["recipe"]["optimiser"]["lr"] == 0.004
    assert meta["recipe"]["schedule"]["warmup"] == meta["about"]["warmup"] == 0.5
    [report] = json.loads((place / "page.json").read_text())
    assert report["command"].startswith("minicnn train cifar_18pct --data=photos --recipe=quick --epochs=1 --batch=4")
    text = (place / "page.md").read_text()
    assert "| photos | 2 | 38 | cifar_18pct | quick | 1 | 0 |" in text and str(place) not in text


def test_evaluate_and_resume_by_the_folder_alone(place, capsys):
    run = str(place / "runs/photos-cifar_18pct-1")
    assert cli.main(["evaluate", run, run, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("\ntest ") == 4 and "2 networks, ten crops" in out
    assert cli.main(["train", "--resume", run]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cuda-convnet's 18 % net" in out and "cosine over 1 epoch, with 0.5 epochs of warm-up from 0" in out
    assert cli.main(["train", "cifar_paper", "--resume", run]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "is a run of cifar_18pct, and cifar_paper was named; leave the model out" in err
    assert cli.main(["train", "cifar-18pct", "--resume", run]) == 0                     # its other name
    assert cli.main(["predict", run, str(place / "photos")]) == 2
    assert "photos is a folder; name its photographs: " in capsys.readouterr().err


@pytest.mark.parametrize("average", [AverageRecipe(0.9), None])
def test_an_average_is_mentioned(tmp_path, capsys, average):
    """By whatever uses it."""
    run = small_trainer(tmp_path / "run", recipe=dataclasses.replace(small_recipe(), average=average), images=16)
    run.fit(1)
    net, pipeline, meta = load_trained(run.last_path, "reference")
    splits = SimpleNamespace(test=run.val, classes=run.val.classes)
    evaluate_held_out(net, pipeline, splits, run.last_path, meta, 8, ten_crop=False)
    assert ("(epoch 1, averaged weights)" in " ".join(capsys.readouterr().out.split())) == bool(average)
    save_tree(tmp_path / "photos", per_class=1, classes=1, size=32)
    assert cli.main(["predict", str(tmp_path / "run"), *map(str, tmp_path.glob("photos/*/*.png"))]) == 0
    assert ("weights: their moving average over the steps" in capsys.readouterr().err) == bool(average)


def test_a_run_without_a_best_checkpoint(place, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.safetensors").write_bytes(b"")
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 2
    assert "run was stopped in its first epoch, and has no best.safetensors yet" in capsys.readouterr().err


def test_a_best_checkpoint_that_was_deleted(tmp_path, capsys):
    small_trainer(tmp_path / "run", images=16).fit(1)
    (tmp_path / "run/best.safetensors").unlink()
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'run'}: best.safetensors is missing, though 1 epoch is " \
        f"done; it may have been removed; name {tmp_path / 'run/last.safetensors'}\n"


def test_a_run_made_in_python_is_evaluated_by_its_description(tmp_path, capsys):
    """Trainer alone, whose recipe names a model that nobody knows."""
    small_trainer(tmp_path / "run").fit(1)
    save_tree(tmp_path / "photos", per_class=4, classes=4, size=32)
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "photos")]) == 2
    assert "was trained on 4 classes (stripes, checks, rings ...)" in capsys.readouterr().err    # in another order
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", "synthetic"]) == 0
    assert "640 test images, ten crops" in capsys.readouterr().out
    for command in (["train", "--resume"], ["evaluate"]):
        assert cli.main([*command, str(tmp_path / "run")]) == 2
        assert "does not say where its images are: add --data DIR (it was trained on synthetic train" in \
            capsys.readouterr().err
    assert cli.main(["train", "--resume", str(tmp_path / "run"), "--data", "synthetic"]) == 2
    assert "unknown model 'small'" in capsys.readouterr().err
