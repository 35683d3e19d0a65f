"""Statistics of a data set that are kept in the user's cache from run to run."""


import numpy as np
import pytest

from tests.helpers.small_run import small_trainer


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


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = []
    small_trainer(tmp_path / "run", keep_statistics=True, say=said.append).prepare()
    assert said[0].startswith("the mean image will be measured again in the next run: ")
