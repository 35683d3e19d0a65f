"""Checkpoint files: what comes back, what is refused, and what a failed write leaves."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minicnn.errors import CheckpointError
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint

try:
    import resource
except ImportError:                                         # not a Unix
    resource = None

PARAMS = {"conv1.w": np.arange(12, dtype=np.float32).reshape(3, 4), "conv1.b": np.float32([1e-45, np.pi])}
VELOCITIES = {"conv1.w": np.full((3, 4), 0.1, np.float32)}
DATA = {"mean": np.linspace(0, 1, 5)}
STATE = {"bn1.mean": np.float32([0.5, -2.0]), "bn1.var": np.array(1.5, np.float32)}
META = {"epoch": 3, "loss": 0.1 + 0.2, "best": None, "classes": ["고양이", "dog"]}


def write(path, **options):
    save_checkpoint(path, PARAMS, {"velocity": VELOCITIES}, DATA, META, **{"state": STATE, **options})
    return path


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


def test_what_is_saved_comes_back(tmp_path):
    found = load_checkpoint(write(tmp_path / "last.safetensors"))
    assert same(found.params, PARAMS) and same(found.velocities, VELOCITIES) and same(found.data, DATA)
    assert same(found.state, STATE) and found.state["bn1.var"].shape == ()
    assert same(found.arrays(), PARAMS | {"state/bn1.mean": STATE["bn1.mean"], "state/bn1.var": STATE["bn1.var"]})
    assert {name: found.meta[name] for name in META} == META
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_names_in_the_file(tmp_path):
    """Parameters by their own names, all else below a prefix; a net without state writes what 0.1.0 wrote."""
    names = {"conv1.w", "conv1.b", "velocity/conv1.w", "data/mean"}
    assert load_file(write(tmp_path / "c")).keys() == names | {"state/bn1.mean", "state/bn1.var"}
    assert load_file(write(tmp_path / "c", state=None)).keys() == names
    assert load_checkpoint(tmp_path / "c").state == {}


def test_only_the_parts_asked_for(tmp_path):
    found = load_checkpoint(write(tmp_path / "c"), parts=("params",))
    assert same(found.params, PARAMS) and found.meta["epoch"] == 3
    assert found.velocities == {} and found.data == {} and found.state == {}
    found = load_checkpoint(tmp_path / "c", parts=("state",))
    assert same(found.state, STATE) and found.params == {} and found.meta["epoch"] == 3


def test_best_is_a_second_name_that_the_next_save_leaves_alone(tmp_path):
    last, best = tmp_path / "last.safetensors", tmp_path / "best.safetensors"
    write(last, also=best)
    assert os.path.samefile(last, best)
    save_checkpoint(last, {"conv1.w": np.zeros(1, np.float32)}, {}, {}, {"epoch": 4})
    assert load_checkpoint(best).meta["epoch"] == 3 and load_checkpoint(last).meta["epoch"] == 4
    write(last, also=best)                              # replaces a file that is there
    assert os.path.samefile(last, best) and sorted(os.listdir(tmp_path)) == ["best.safetensors", "last.safetensors"]


def test_best_is_a_copy_where_there_are_no_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    last, best = tmp_path / "last", tmp_path / "best"
    write(last, also=best)
    assert not os.path.samefile(last, best) and last.read_bytes() == best.read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path / "last")

    def disk_full(_):
        assert any(name.endswith(".part") for name in os.listdir(tmp_path))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(CheckpointError, match="last: cannot be written: No space left on device; make room or choose "
                                              "another folder, the checkpoint before it is intact"):
        write(path)
    monkeypatch.undo()
    assert load_checkpoint(path).meta["epoch"] == 3 and os.listdir(tmp_path) == ["last"]


@pytest.mark.skipif(resource is None, reason="files cannot be kept short here")
def test_a_full_disk(tmp_path):
    """No file may grow beyond 200 bytes."""
    path = write(tmp_path / "last")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(CheckpointError, match="last: cannot be written: File too large; .*before it is intact"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(path).meta["epoch"] == 3 and os.listdir(tmp_path) == ["last"]


def test_a_checkpoint_is_readable_by_those_who_may_read_new_files(tmp_path):
    (tmp_path / "plain").touch()
    assert write(tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_cut_short_at_any_length_is_refused(tmp_path):
    whole = write(tmp_path / "c").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, *range(200, len(whole), 97), len(whole) - 1]:
        (tmp_path / "short").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="short: (the file is empty|cut short or damaged)"):
            load_checkpoint(tmp_path / "short")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "text").write_text("this is not a safetensors file at all")
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        load_checkpoint(tmp_path / "text")
    save_file(PARAMS, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="no minicnn metadata"):
        load_checkpoint(tmp_path / "weights")
    save_file(PARAMS, tmp_path / "future", {"minicnn": '{"format": 99}'})
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(tmp_path / "future")
