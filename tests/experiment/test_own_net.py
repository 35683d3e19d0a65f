"""FILE.py:FUNCTION: a network of one's own, trained, evaluated and predicted with; and mistakes in the file."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicnn.builder import Builder
from minicnn.cli import main as cli
from minicnn.errors import CheckpointError
from minicnn.experiment import own_net
from minicnn.experiment.nets import name_of
from minicnn.experiment.settings import fitting_batch
from minicnn.experiment.trained import load_trained
from minicnn.train.loop import Outcome, Trainer
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.metrics import read_metrics
from tests.helpers.small_run import save_tree
from tests.helpers.tiny_command import tiny_set

FILE = '''
import numpy as np
from minicnn import Builder
from minicnn.layers import Layer, LayerPlan, Normal


class Half(Layer):
    """y = x / 2."""

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]))

    def forward(self, ctx, xs, y, saved):
        y[...] = xs[0] / 2

    def backward(self, ctx, dy, saved, dxs):
        dxs[0][...] = dy / 2


def build(num_classes, device="auto", seed=0, values=None):
    b = Builder((24, 24, 3), name="mine")
    b.conv("conv1", 4, 5, stride=2, init=Normal(0.02))
    b.relu("relu1")
    b.layer("half", Half())
    b.flatten("flatten")
    b.linear("fc2", num_classes, init=Normal(0.05))
    b.loss("loss")
    return b.net(seed=seed, device=device, values=values)


def plain():
    b = Builder((24, 24, 3), name="plain")
    b.flatten("flatten")
    b.linear("fc", 2, init=Normal(0.01))
    b.loss("loss")
    return b.net(seed=7)


def branches(num_classes, device="auto", seed=0, values=None):
    b = Builder((24, 24, 3), name="branches")
    flat = b.flatten("flat")
    side = b.linear("side", num_classes, init=Normal(0.05), input=flat)
    b.conv("conv1", 4, 5, stride=4, init=Normal(0.02), input="image")
    b.flatten("flatten")
    main = b.linear("fc2", num_classes, init=Normal(0.05))
    b.add("sum", [side, main])
    b.loss("loss")
    return b.net(seed=seed, device=device, values=values)


def wide():
    b = Builder((24, 32, 3))
    b.flatten("flatten")
    b.linear("fc", 2)
    b.loss("loss")
    return b.net()


def lossless():
    b = Builder((24, 24, 3))
    b.flatten("flatten")
    b.linear("fc", 2)
    return b.net()


def broken():
    return {}["nothing"]


def misfit():
    b = Builder((24, 24, 3))
    b.conv("conv1", 4, 55)
    return b.net()


def number():
    return 7


def asks(depth):
    return depth


_private = build
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    (root / "mine.py").write_text(FILE)
    (root / "typo.py").write_text("def build(:\n    pass\n")
    (root / "raises.py").write_text("\n\nimport nothing_like_it\n")
    (root / "taken").mkdir()
    (root / "taken/queue.py").write_text("def build(): pass\n")
    save_tree(root / "photos", per_class=12)
    return root


@pytest.fixture(scope="module")
def run(place):
    """The folder of a run of build(), which has a layer of the file."""
    assert cli.main(["train", f"{place}/mine.py:build", "--data", f"{place}/photos", "--epochs", "2", "--batch", "4",
                     "--device", "reference", "--out", f"{place}/runs", "--run-name", "first"]) == 0
    return place / "runs/first"


def fresh(*arguments, cwd) -> subprocess.CompletedProcess:
    """The command in a process of its own, which has not seen the file."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, "-m", "minicnn.cli", *map(str, arguments)], cwd=cwd, env=env, text=True,
                          capture_output=True, timeout=120)


def test_what_a_run_holds(place, run, capsys):
    saved = load_checkpoint(run / "best.safetensors", parts=())
    assert saved.meta["about"]["model"] == f"{place}/mine.py:build" and saved.meta["about"]["size"] == 27
    assert saved.meta["recipe"]["net"] == {"model": "mine.py:build", "num_classes": 2}
    assert [node["name"] for node in saved.meta["net"]["nodes"]][:3] == ["conv1", "relu1", "half"]
    assert saved.meta["net"]["nodes"][2]["kind"] == "mine:Half"
    losses = [record["train"]["loss"] for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "epoch"]
    assert losses[0] < 2                                    # the default recipe suits a net that is initialised usually
    assert {path.name for path in run.iterdir()} >= {"test.json", "curves.png", "conv1.png", "predictions.png"}


def test_the_first_lines_say_what_is_run(place, tmp_path, capsys, monkeypatch):
    """The default recipe with what was asked for in its place, and nothing of it that is not so."""
    monkeypatch.setattr(Trainer, "fit", lambda trainer, epochs: Outcome(True, 0, None, tmp_path))
    command = ["train", f"{place}/mine.py:build", "--data", f"{place}/photos", "--batch", "4", "--out", str(tmp_path)]
    assert cli.main(command) == 130
    said = " ".join(capsys.readouterr().out.split())
    assert ("recipe default: 10 epochs, batch 4, SGD with momentum 0.9, learning rate 0.01, weight decay 0.0005, "
            "cosine over 10 epochs, pixels divided by 64 run") in said
    assert cli.main([*command, "--epochs", "3", "--optimiser", "adamw", "--schedule", "step", "--warmup", "1", "--ema",
                     "0.99", "--freeze", "conv1"]) == 130
    said = " ".join(capsys.readouterr().out.split())
    assert ("recipe default: 3 epochs, batch 4, AdamW, learning rate 0.001 (frozen: conv1), weight decay 0.01, step, "
            "times 0.1 at epochs 1 2, with 1 epoch of warm-up from 0, moving average of the weights (EMA) of factor "
            "0.99, pixels divided by 64 run") in said


def test_in_a_fresh_process(place, run):
    """Evaluated, predicted with and resumed by its folder alone."""
    report = json.loads((run / "test.json").read_text())
    done = fresh("evaluate", run, cwd=place)
    assert done.returncode == 0 and not done.stderr
    assert f"accuracy {100 * report['centre crop']['top1']:.1f} %" in done.stdout.replace("% right", "%")
    photo = next((place / "photos/rings").iterdir()) if (place / "photos/rings").exists() else \
        next((place / "photos/checks").iterdir())
    done = fresh("predict", run, photo, "--device", "reference", cwd=place)
    assert done.returncode == 0 and "checks" in done.stdout and "stripes" in done.stdout


def test_resumed_in_a_fresh_process(place, tmp_path, monkeypatch):
    """A run that was stopped after the first of two epochs ends with the weights of one that was not."""
    fit = Trainer.fit
    train = ["train", f"{place}/mine.py:build", "--data", f"{place}/photos", "--epochs", "2", "--batch", "4",
             "--device", "reference", "--threads", "1", "--out", str(tmp_path), "--run-name"]
    assert cli.main([*train, "whole"]) == 0
    monkeypatch.setattr(Trainer, "fit", lambda trainer, epochs: fit(trainer, 1))
    assert cli.main([*train, "stopped"]) == 0
    assert load_checkpoint(tmp_path / "stopped/last.safetensors", parts=()).meta["epoch"] == 1
    done = fresh("train", "--resume", "stopped", "--out", tmp_path, cwd=place)
    assert done.returncode == 0, done.stderr
    ends = [load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "stopped")]
    assert ends[1].meta["epoch"] == 2
    assert all((ends[0].params[name] == ends[1].params[name]).all() for name in ends[0].params)


def test_without_its_file(place, run, tmp_path):
    """A net of minicnn's layers needs its file no more; one with a layer of the file says which file is gone."""
    (tmp_path / "theirs.py").write_text(FILE)
    for name in ("build", "plain"):
        assert cli.main(["train", f"{tmp_path}/theirs.py:{name}", "--data", f"{place}/photos", "--epochs", "1",
                         "--batch", "4", "--device", "reference", "--out", str(tmp_path), "--run-name", name]) == 0
    os.rename(tmp_path / "theirs.py", tmp_path / "elsewhere.py")
    done = fresh("evaluate", "plain", "--out", tmp_path, cwd=place)
    assert done.returncode == 0, done.stderr
    done = fresh("evaluate", "build", "--out", tmp_path, cwd=place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"layers that {tmp_path}/theirs.py defined, which is gone; put the file back" in done.stderr
    done = fresh("train", "--resume", "build", "--out", tmp_path, cwd=place)
    assert done.returncode == 2 and f"{tmp_path}/theirs.py does not exist" in done.stderr


def test_a_linear_branch_before_the_first_convolution(place, tmp_path):
    """The kernels that are drawn are those whose initial values the checkpoint holds."""
    assert cli.main(["train", f"{place}/mine.py:branches", "--data", f"{place}/photos", "--epochs", "1", "--batch",
                     "4", "--device", "reference", "--out", str(tmp_path), "--run-name", "run"]) == 0
    saved = load_checkpoint(tmp_path / "run/best.safetensors")
    assert next(iter(load_trained(tmp_path / "run/best.safetensors", "reference")[0].params)) == "side.w"
    assert saved.data["start"].shape == saved.params["conv1.w"].shape == (5, 5, 3, 4)
    assert (tmp_path / "run/conv1.png").exists()


def test_its_name_in_a_run_folder(place):
    """The net's own; where it has none, the file's."""
    settings = {"model": f"{place}/mine.py:build", "variant": ""}
    for net, name in (("a b/c", "a-b-c"), ("mine", "mine"), ("net", "mine")):
        b = Builder((4, 4, 3), name=net)
        b.flatten()
        assert name_of(settings, b.net(device="reference")) == name
    assert name_of({"model": "alexnet", "variant": "caffe"}, None) == "caffe"
    assert name_of({"model": "cifar_paper", "variant": ""}, None) == "cifar_paper"
    assert name_of({"model": "resnet50", "variant": "v1.5"}, None) == "resnet50-v1.5"


def test_without_its_ending(place, capsys):
    for command in ("train", "summary"):
        assert cli.main([command, f"{place.name}_elsewhere:build"]) == 2
        assert "did you mean" not in capsys.readouterr().err
    with contextlib.chdir(place):
        for command in ("train", "summary"):
            assert cli.main([command, "mine:build"]) == 2
            assert "unknown model 'mine:build': did you mean mine.py:build?" in capsys.readouterr().err


def test_a_seed_of_its_own(place, tmp_path, capsys):
    """A function that takes no seed keeps its own, and refuses another."""
    train = ["train", f"{place}/mine.py:plain", "--data", f"{place}/photos", "--epochs", "1", "--batch", "4",
             "--device", "reference", "--out", str(tmp_path)]
    assert cli.main([*train, "--run-name", "one"]) == 0
    net, _, meta = load_trained(tmp_path / "one/best.safetensors", "reference")
    assert meta["about"]["seed"] == 7 and net.ops.name == "reference"
    capsys.readouterr()
    assert cli.main([*train, "--seed", "3"]) == 2
    assert "seed 3 was asked for" in capsys.readouterr().err


def test_what_cannot_be_described_is_built_by_its_function(place, run, tmp_path, monkeypatch):
    from minicnn.train.runs.checkpoint import save_checkpoint

    saved = load_checkpoint(run / "best.safetensors")
    save_checkpoint(tmp_path / "best.safetensors", saved.params, {}, saved.data, {**saved.meta, "net": None})
    net, _, _ = load_trained(tmp_path / "best.safetensors", "reference")
    assert (net.params["conv1.w"].data == saved.params["conv1.w"]).all() and net.name == "mine"
    monkeypatch.setattr(own_net, "_LOADED", {})
    monkeypatch.delitem(sys.modules, "mine")
    meta = {**saved.meta, "net": None, "about": {**saved.meta["about"], "model": f"{place}/mine.py:plain"}}
    save_checkpoint(tmp_path / "best.safetensors", saved.params, {}, saved.data, meta)
    with pytest.raises(CheckpointError, match="best.safetensors is of another network"):
        load_trained(tmp_path / "best.safetensors", "reference")


BAD = {
    "no such file": ("nowhere.py:build", "nowhere.py does not exist; expected FILE.py:FUNCTION"),
    "no function named": ("mine.py", "mine.py is a file: expected FILE.py:FUNCTION, a function that returns a Net, "
                          "such as mine.py:build"),
    "no such function": ("mine.py:biuld", "mine.py has no function 'biuld': did you mean 'build'? expected one of"),
    "a syntax error": ("typo.py:build", "typo.py, line 1: SyntaxError: "),
    "the file raises": ("raises.py:build", "raises.py, line 3: ModuleNotFoundError: No module named 'nothing_like_it'"),
    "a name of another module": ("taken/queue.py:build", "queue.py: another module is called 'queue'; rename the "
                                 "file"),
    "the function raises": ("mine.py:broken", "mine.py, line 67: KeyError: 'nothing'"),
    "layers do not fit": ("mine.py:misfit", "mine.py, line 72: ShapeError: layer 'conv1'"),
    "no net": ("mine.py:number", "mine.py: number returned int, expected a minicnn.Net"),
    "an unknown parameter": ("mine.py:asks", "mine.py: asks has a parameter 'depth' without a default"),
    "no square images": ("mine.py:wide", "mine.py:wide: the net takes images of 24 x 32 x 3; expected N x N x 3"),
    "no loss": ("mine.py:lossless", "mine.py:lossless: the net has no loss; end it with Builder.loss()"),
    "a variant": ("mine.py:build --variant paper", "a function of your own, which has no variants"),
    "a recipe of another net": ("mine.py:build --recipe short", "unknown recipe 'short': expected one of default"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_in_the_file(place, tmp_path, capsys, case):
    (model, *more), message = BAD[case][0].split(), BAD[case][1]
    assert cli.main(["train", f"{place}/{model}", "--data", f"{place}/photos", "--out", str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error, error
    assert not list(tmp_path.iterdir())


def test_another_number_of_classes(place, tmp_path, capsys):
    save_tree(tmp_path / "three", per_class=6, classes=3)
    arguments = ["train", f"{place}/mine.py:plain", "--data", f"{tmp_path}/three", "--out", f"{tmp_path}/runs"]
    assert cli.main(arguments) == 2
    assert "mine.py:plain: the net has 2 classes, the data 3; give the function a parameter num_classes" in \
        capsys.readouterr().err


def test_a_set_smaller_than_the_usual_batch(tmp_path, capsys):
    """The batch follows the set, as for the networks of this package."""
    tiny_set(tmp_path)
    command = ["train", f"{tmp_path / 'own.py'}:build", "--data", f"{tmp_path / 'set'}", "--epochs", "1", "--device",
               "reference", "--out", f"{tmp_path}"]
    assert cli.main(command) == 0, capsys.readouterr().err
    assert "batch 8, SGD with momentum 0.9, learning rate 0.0025" in " ".join(capsys.readouterr().out.split())
    assert [fitting_batch(128, images) for images in (80, 128, 200, 255, 256)] == [32, 64, 64, 64, 128]
    assert cli.main([*command, "--batch", "32"]) == 2
    assert "a batch of 32 is larger than set/train, which has 16 images" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_no_mistake_of_the_file(tmp_path, capsys):
    tiny_set(tmp_path)
    assert cli.main(["summary", f"{tmp_path / 'own.py'}:build", "--device", "reference:bf16"]) == 2
    assert capsys.readouterr().err.startswith("error: device 'reference' computes in the precision of its arrays")
