"""Commands that are printed as hints run as they are printed, in a folder whose name needs quotes, too."""

import shlex

import pytest

from minicnn.cli.main import main, parsers
from minicnn.data.elpv import INSTALL
from minicnn.data.source import open_data
from minicnn.experiment import run as experiment
from minicnn.train.runs import tensorboard
from tests.helpers.tiny_command import tiny_command, tiny_set
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
    assert parsed(words).resume == str(tmp_path / "my photos-paper-1") and parsed(words).model is None


def test_how_to_train_on_with_other_settings(tmp_path, capsys):
    """A run goes on with its own settings; others begin a new one from its weights."""
    root = tmp_path / "my own"
    root.mkdir()
    tiny_set(root)
    assert main(tiny_command(root, "--device", "reference", "--warmup", "0.5", "--run-name", "first")) == 0
    run = str(root / "runs/first")
    assert main(["train", "--resume", run, "--epochs", "3", "--augment", "flip=no", "--warmup", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "augment.flip = True, this one has False; schedule.epochs differs as well; leave out --epochs and " in error
    assert "and --augment to go on" in error and "warmup" not in error
    _, *words = shlex.split(error.partition("from its weights: ")[2])
    options = parsed(words)
    assert (options.epochs, options.augment, options.init_from) == (3, "flip=no", run)
    assert main([*words, "--out", str(tmp_path / "new"), "--device", "reference"]) == 0


@pytest.mark.parametrize("words", [["predict", "RUN"], ["look", "RUN"], ["report", "RUN"], ["explore", "RUN"],
                                   ["summary"], ["gradcheck"], ["train"], ["evaluate", "RUN"]])
def test_every_command_that_computes_takes_threads(words):
    assert parsed([*words, "--threads", "3"]).threads == 3


def test_threads_are_used(monkeypatch):
    monkeypatch.setattr("minicnn.cli.main.set_threads", used := [].append)
    assert main(["gradcheck", "--list", "--threads", "3"]) == 0 and used.__self__ == [3]
    assert main(["gradcheck", "--list"]) == 0 and used.__self__ == [3]


def test_what_to_install_is_quoted():
    """A shell such as zsh takes brackets for a pattern."""
    for hint in (INSTALL, tensorboard.INSTALL):
        assert shlex.join(shlex.split(hint)) == hint
