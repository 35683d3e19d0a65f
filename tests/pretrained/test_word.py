"""The word `pretrained` on the command line: what it means, what is written where, and what it cannot be used for."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from minicnn import pretrained
from minicnn.experiment.settings import DEFAULTS, named, settle
from minicnn.report.run import read_run
from tests.cli.test_cli import run
from tests.helpers.small_run import small_trainer


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder. The package is as it was afterwards."""
    def state():
        return [(path, path.stat().st_mtime_ns) for path in sorted(pretrained.CHECKPOINT.parent.rglob("*"))
                if "__pycache__" not in path.parts]

    before = state()
    monkeypatch.chdir(tmp_path)
    yield
    assert state() == before


def test_predict(capsys):
    """A photograph, or the samples."""
    code, out, err = run(capsys, "predict", "pretrained")
    assert code == 0 and not err and out.count("drawn-") == 6 and out.count(" %  ship\n") >= 1
    shutil.copy(pretrained.SAMPLES / "drawn-ship.png", "mine.png")
    code, out, err = run(capsys, "predict", "pretrained", "mine.png")
    assert code == 0 and not err and out.splitlines()[0] == "mine.png" and out.splitlines()[1].endswith("ship")


@pytest.mark.parametrize("what", ["deconv", "occlusion", "top"])
def test_look_without_a_photograph(capsys, what):
    """One picture, in the current folder; the square fits the small image."""
    code, out, err = run(capsys, "look", "pretrained", "--what", what, "--maps", "1", "--step", "8")
    [path] = map(Path, out.splitlines())
    assert code == 0 and not err and path.parent == Path("look") and path.stat().st_size > 20_000


def test_compiled_kernels_are_not_loaded_unless_asked_for(capsys, monkeypatch):
    devices = []
    monkeypatch.setattr("minicnn.cli.predict.load_trained", lambda file, device: devices.append(device) or 1 / 0)
    for options in ([], ["--device", "cpu"]):
        with pytest.raises(ZeroDivisionError):
            run(capsys, "predict", "pretrained", *options)
    assert devices == ["reference", "cpu"]


def test_other_commands(capsys):
    assert run(capsys, "verify", "pretrained")[:2] == (0, f"fine      {pretrained.CHECKPOINT}\n")
    assert run(capsys, "draw", "pretrained") == (0, "net.svg\n", "") and "airbench94" in Path("net.svg").read_text()
    code, out, _ = run(capsys, "export", "pretrained", "net.safetensors")
    assert code == 0 and "1,971,640 parameters" in out and Path("net.safetensors").stat().st_size > 2e6
    read = read_run(argparse.Namespace(which="pretrained", runs="runs", device="reference"))
    assert read.model == "airbench94" and not read.records
    options = argparse.Namespace(**{**dict.fromkeys(DEFAULTS), "out": "runs", "model": "airbench94",
                                    "init_from": "pretrained", "resume": None})
    settings = settle(options)
    assert settings["init_from"] == str(pretrained.CHECKPOINT) and named(settings)["init_from"] == "pretrained"


@pytest.mark.parametrize(("arguments", "words"), [
    (["evaluate", "pretrained"], "does not say where its images are: add --data DIR"),
    (["train", "--resume", "pretrained"], "cannot be resumed; train it further with --init-from pretrained"),
    (["predict", "pretraned", "x.png"], "pretraned: no such run; expected a checkpoint, a run folder, or the name of "
                                        "one in runs (pretrained: the network of this package)"),
    (["predict", "pretrained", "gone.png"], "cannot read the image gone.png"),
    (["look", "pretrained", "--layer", "block2_conv"], "no layer is called 'block2_conv'; did you mean 'block2_conv")])
def test_mistakes(capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith("error: ") and words in err
    assert not out or arguments[-1] == "gone.png"


@pytest.mark.parametrize("folder", ["pretrained", "runs/pretrained"])
def test_where_a_run_has_that_name(capsys, folder):
    """The word is always the packaged network, and a line says so; the run is named by its path."""
    small_trainer(Path(folder), images=16).fit(1)
    capsys.readouterr()
    path = folder if "/" in folder else f"./{folder}"
    code, out, err = run(capsys, "predict", "pretrained")
    assert code == 0 and out.count("drawn-") == 6
    assert err == f"pretrained is the network of this package; the folder of that name is {path}\n"
    code, out, err = run(capsys, "predict", path, str(pretrained.SAMPLES / "drawn-ship.png"), "--device", "reference")
    assert code == 0 and not err and "rings" in out
    code, _, err = run(capsys, "predict", path)
    assert code == 2 and "no photograph is named" in err
