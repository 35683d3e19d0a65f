"""What happens beside the training ends nothing and costs nothing: pictures, printing, caches, signals, other runs."""

import os
import signal
import sys
import warnings

import numpy as np
import pytest

from minicnn.data.dataset import ImageError
from minicnn.errors import ConfigError
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.visualize.report import draw_progress
from tests.helpers.small_run import small_trainer
from tests.train.test_loop import StopAfter, log, state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Three epochs of twelve steps in one go."""
    run_dir = tmp_path_factory.mktemp("run") / "undisturbed"
    small_trainer(run_dir).fit(3)
    return run_dir


@pytest.mark.parametrize("error", [ValueError("Key backend: no such"), RuntimeError("in FT2Font")])
def test_a_picture_that_fails_is_said_once(tmp_path, error):
    said = []

    def draw():
        warnings.warn("as raw as it gets", stacklevel=1)
        raise error

    assert small_trainer(tmp_path / "run", images=16, on_epoch=draw, say=said.append).fit(3).epochs == 3
    assert [line for line in said if "training goes on" in line] == [
        "after epoch 1: as raw as it gets; training goes on",
        f"after epoch 1: {type(error).__name__}: {error}; training goes on"]


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"),
                                   UnicodeEncodeError("ascii", "a", 0, 1, "no such character")])
def test_an_epoch_is_saved_before_it_is_printed_and_printing_ends_nothing(undisturbed, tmp_path, error):
    printed = []

    def lost(text):
        if text.startswith("epoch"):
            printed.append(load_checkpoint(tmp_path / "run/last.safetensors").meta["epoch"])
        raise error

    assert small_trainer(tmp_path / "run", say=lost).fit(3).epochs == 3
    assert list(dict.fromkeys(printed)) == [1, 2, 3]
    assert log(tmp_path / "run") == log(undisturbed)


def test_two_trainers_do_not_share_a_folder(tmp_path):
    """The one that comes later is refused, and a run that is being trained is not resumed."""
    tried = []

    def meanwhile():
        new, resumed = (small_trainer(tmp_path / "run", images=16) for _ in range(2))
        for trainer in (new, resumed.resume()):
            with pytest.raises(ConfigError, match="run is in use by process") as refused:
                trainer.fit(3)
            tried.append(refused)

    small_trainer(tmp_path / "run", images=16, on_epoch=meanwhile).fit(1)
    assert len(tried) == 2
    assert sorted(os.listdir(tmp_path / "run")) == ["best.safetensors", "last.safetensors", "metrics.jsonl"]


def test_a_run_without_a_step_leaves_nothing(tmp_path):
    trainer = small_trainer(tmp_path / "runs/run", images=16)
    trainer.prepare()
    trainer.train.keep_decoded(0)
    trainer.train.decode = lambda item: (_ for _ in ()).throw(ImageError(str(item), "gone"))
    with pytest.raises(ImageError, match="gone"):
        trainer.fit(1)
    assert os.listdir(tmp_path) == []


def test_a_scheduler_that_sends_it_twice(undisturbed, tmp_path):
    """SIGTERM and SIGHUP, in any number, end the run as one of them does: saved."""
    trainer = small_trainer(tmp_path / "run")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        StopAfter(trainer, 2, number)
    assert trainer.fit(3).interrupted and (trainer.epoch, trainer.step) == (0, 2)
    small_trainer(tmp_path / "run").resume().fit(3)
    assert state(tmp_path / "run" / "last.safetensors") == state(undisturbed / "last.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(tmp_path, number):
    """As in `sh -c 'job &'` and under nohup."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        trainer = small_trainer(tmp_path / "run")
        StopAfter(trainer, 2, number)
        assert not trainer.fit(1).interrupted and signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_signal_when_nobody_can_be_told(tmp_path, monkeypatch):
    """The terminal that was lost is where it would be said."""
    monkeypatch.setattr(sys, "__stderr__", open(os.devnull))        # write() to it fails
    trainer = small_trainer(tmp_path / "run")
    StopAfter(trainer, 2, signal.SIGHUP)
    assert trainer.fit(1).interrupted and trainer.step == 2
    sys.__stderr__.close()


@pytest.mark.parametrize("kept", [b"", b"cut short", b"\x02" + bytes(7) + b"{}"])
def test_a_kept_mean_image_that_cannot_be_read_is_measured_again(tmp_path, monkeypatch, kept):
    """It costs a line, and is kept again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said, means = [], []
    for damage in (False, True, False):
        trainer = small_trainer(tmp_path / "run", keep_statistics=True, say=said.append)
        if damage:
            next((tmp_path / "cache/minicnn").iterdir()).write_bytes(kept)
        trainer.prepare()
        means.append(trainer.statistics.mean.tobytes())
    assert len(set(means)) == 1
    assert [line.startswith("the mean image that was kept cannot be used, and is measured again: ") for line in said
            if "mean image" in line] == [True]


@pytest.mark.parametrize("where", ["mkdir", "write"])
def test_a_cache_that_fails_when_it_is_written_costs_a_line(tmp_path, monkeypatch, where):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if where == "mkdir":
        (tmp_path / "cache").write_text("")
    else:
        monkeypatch.setattr("minicnn.data.statistics.write_safetensors",
                            lambda *_: (_ for _ in ()).throw(OSError(13, "Permission denied")))
    said = []
    trainer = small_trainer(tmp_path / "run", keep_statistics=True, say=said.append)
    trainer.prepare()
    assert trainer.statistics is not None
    assert [line for line in said if line.startswith("the mean image will be measured again in the next run: ")]


def test_a_user_without_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home directory")))
    said = []
    small_trainer(tmp_path / "run", keep_statistics=True, say=said.append).prepare()
    assert said[0] == "the mean image will be measured again in the next run: no home directory"


def test_pictures_are_drawn_as_it_goes(tmp_path):
    """After every epoch, with its metrics; what cannot be written is reported and ends nothing."""
    seen, said = [], []

    def draw():
        seen.append(draw_progress(tmp_path / "run", "small").stat().st_size)
        if len(seen) == 2:
            raise OSError(28, "No space left on device")

    outcome = small_trainer(tmp_path / "run", images=16, on_epoch=draw, say=said.append).fit(3)
    assert not outcome.interrupted and outcome.epochs == len(seen) == 3
    assert [line for line in said if "No space" in line] == [
        "after epoch 2: [Errno 28] No space left on device; training goes on"]


def test_statistics_are_kept_for_the_next_run(tmp_path, monkeypatch):
    """The second run on the same images decodes those of validation only before its first step, and trains the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    means, decoded = [], []
    for run in ("first", "second"):
        trainer = small_trainer(tmp_path / run, keep_statistics=True)
        read = trainer.train.read_at
        trainer.train.read_at = lambda i, read=read, run=run: (decoded.append(run), read(i))[1]
        trainer.prepare()
        means.append(trainer.statistics.mean)
    assert set(decoded) == {"first"}
    np.testing.assert_array_equal(*means)
    assert len(list((tmp_path / "cache" / "minicnn").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = []
    small_trainer(tmp_path / "run", keep_statistics=True, say=said.append).prepare()
    assert said[0].startswith("the mean image will be measured again in the next run: ")
