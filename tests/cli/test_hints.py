"""Commands that are printed as hints run as they are printed, in a folder whose name needs quotes, too."""

import shlex

import pytest

from minicnn.cli.main import main, parsers
from minicnn.data.elpv import INSTALL
from minicnn.data.source import open_data
from minicnn.experiment import run as experiment
from minicnn.train.runs import tensorboard
from tests.helpers.trees import tree


def parsed(words: list[str]):
    return parsers()[1][words[0]].parse_intermixed_args(words[1:])


@pytest.mark.parametrize("out", ["prep out", "it's", "$HOME", "plain"])
def test_how_to_train_on_a_prepared_set(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "set", {"a": 12, "b": 12})
    assert main(["prepare", "set", out, "--size", "16"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to train:")]
    program, *words = shlex.split(line.removeprefix("to train:"))
    options = parsed(words)
    assert program == "minicnn" and options.data == out and len(open_data(options.data).train) == 20


def test_options_may_come_before_what_is_read():
    look = parsed(["look", "RUN", "--layer", "conv3", "a.jpg", "b.jpg"])
    assert (look.checkpoint, look.layer, look.files) == ("RUN", "conv3", ["a.jpg", "b.jpg"])
    assert parsed(["predict", "RUN", "--device", "cpu", "a.jpg"]).files == ["a.jpg"]
    assert parsed(["train", "--epochs", "3", "alexnet"]).model == "alexnet"


def test_how_to_go_on(tmp_path, monkeypatch, capsys):
    """After Ctrl-C, of a run in a folder with a blank in its name."""
    outcome = type("Outcome", (), {"interrupted": True})
    trained = experiment.Trained(tmp_path / "my photos-paper-1", outcome, None, None, {})
    monkeypatch.setattr(experiment, "train", lambda *_: trained)
    monkeypatch.setattr(experiment, "settle", lambda *_: {})
    assert main(["train", "alexnet", "--data", "my photos"]) == 130
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to go on:")]
    _, *words = shlex.split(line.removeprefix("to go on:"))
    assert parsed(words).resume == str(tmp_path / "my photos-paper-1")


def test_what_to_install_is_quoted():
    """A shell such as zsh takes brackets for a pattern."""
    for hint in (INSTALL, tensorboard.INSTALL):
        assert shlex.join(shlex.split(hint)) == hint
