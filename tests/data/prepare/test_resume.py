"""Preparing continues where it was stopped, and strict preparing reports everything that is wrong first."""

import errno
import os
import stat

import numpy as np
import pytest
from PIL import Image

from minicnn.data.prepare import files, run
from minicnn.data.source import open_data
from minicnn.errors import DataError
from tests.data.prepare.preparing import contents, prepared, report
from tests.helpers import ilsvrc
from tests.helpers.trees import tree


def test_again_does_nothing(tmp_path):
    source = ilsvrc.class_folders(tmp_path / "source", ilsvrc.generated)
    prepared(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    [(label, text)] = prepared(source, tmp_path / "out")
    assert label == "prepared" and "is finished already: 18 train, 7 val" in text
    assert contents(tmp_path / "out") == before
    with pytest.raises(DataError, match=r"holds a set with other options \(32 x 32, pixels, .* images in a shard\) "
                                        r"than were asked for \(48 x 48, pixels, .* in a shard\); choose another"):
        prepared(source, tmp_path / "out", size=48)


@pytest.mark.parametrize("function", ["pwrite", "fsync", "replace"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, mini, monkeypatch, function):
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    with monkeypatch.context() as patch:
        calls, real = [], getattr(os, function)

        def full(*arguments):
            calls.append(arguments)
            if len(calls) > 9:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        patch.setattr(os, function, full)
        with pytest.raises(DataError, match="cannot be written: No space left on device; make room and run the same"):
            prepared(source, tmp_path / "out", workers=1)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.rgb")}
    assert finished
    with pytest.raises(DataError, match="is not fully prepared; run the same `minicnn prepare` again"):
        open_data(tmp_path / "out")
    assert "shards are finished already" in dict(prepared(source, tmp_path / "out"))["space"]
    assert contents(tmp_path / "out") == contents(mini[0])
    assert sum(path.stat().st_mtime_ns == then for path, then in finished.items()) >= len(finished) - 1


def test_a_source_that_changed_meanwhile(tmp_path, monkeypatch):
    """Stopped in val; then a training image is replaced: only its shard is made again."""
    source = tree(tmp_path / "source" / "train", {"a": 8, "b": 8}).parent
    tree(source / "val", {"a": 2, "b": 2}, first=50)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_complete", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(DataError, match="full"):
            prepared(source, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.rgb")}
    Image.fromarray(np.full((50, 60, 3), 9, np.uint8)).save(source / "train" / "b" / "009.png")
    prepared(source, tmp_path / "out")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.rgb")}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["train-00002.rgb"]
    assert (open_data(tmp_path / "out").train.read(9) == 9).all()


@pytest.mark.parametrize("jpeg", [False, True])
def test_a_finished_shard_that_was_cut_short_is_made_again(tmp_path, monkeypatch, jpeg):
    """As by a disk that was full, or a copy that was stopped; the other shards are kept."""
    source = tree(tmp_path / "source" / "train", {"a": 8, "b": 8}).parent
    tree(source / "val", {"a": 2, "b": 2}, first=50)
    prepared(source, tmp_path / "whole", jpeg=jpeg)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_complete", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(DataError, match="full"):
            prepared(source, tmp_path / "out", jpeg=jpeg)
    shards = sorted((tmp_path / "out").glob("*-*.*"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    os.truncate(shards[1], shards[1].stat().st_size - 1)
    prepared(source, tmp_path / "out", jpeg=jpeg)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert [path for path in shards if path.stat().st_mtime_ns != before[path]] == [shards[1]]


def test_shards_are_complete_before_their_records_and_these_before_the_summary(tmp_path, monkeypatch):
    """Each shard is brought to the disk and renamed, then its record, and prepared.json after all of them."""
    source = tree(tmp_path / "source", {"a": 8, "b": 8})
    events, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(
        "sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync"))
    monkeypatch.setattr(os, "replace", lambda old, new: events.append(os.path.basename(new)) or replace(old, new))
    prepared(source, tmp_path / "out")
    for name in (path.name for path in (tmp_path / "out").glob("*.rgb")):
        at, record = events.index(name), events.index(f"{name}.record")
        assert at < record and events[at - 1:at + 2] == ["sync", name, "sync folder"]
    last = events.index("prepared.json")
    assert events[last - 1:last + 2] == ["sync", "prepared.json", "sync folder"]
    assert last > max(events.index(path.name) for path in (tmp_path / "out").iterdir() if path.name in events[:last])
    assert not [name for name in events[last + 1:] if "sync" not in name]


def test_a_large_tar_is_listed_once(tmp_path, mini, monkeypatch):
    """ImageNet's training tar has to be read from end to end to know what is in it."""
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    monkeypatch.setattr(files, "LARGE", 1)
    listed, real = [], files._members
    monkeypatch.setattr(files, "_members", lambda tar: listed.append(tar) or real(tar))

    def stopped(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(run, "_complete", stopped)
        with pytest.raises(DataError, match="full"):
            prepared(source, tmp_path / "out")
    tars = len(listed)
    assert tars == len(set(listed)) > 4                     # the outer tars, and those in the training tar
    os.utime(source / "ILSVRC2012_img_val.tar")             # it may hold other members now
    prepared(source, tmp_path / "out")
    assert [os.path.basename(tar.where) for tar in listed[tars:]] == ["ILSVRC2012_img_val.tar"]
    assert contents(tmp_path / "out") == contents(mini[0])


def test_two_at_once(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", {"a": 3, "b": 3})

    def meanwhile(*_):
        with pytest.raises(DataError, match="is being prepared by another process"):
            prepared(source, tmp_path / "out")
        raise DataError("enough")

    monkeypatch.setattr(run, "_introduce", meanwhile)
    with pytest.raises(DataError, match="enough"):
        prepared(source, tmp_path / "out")


def test_strict_names_everything_and_continues_after_repair(tmp_path):
    images = {"a": 6, "b": 6}
    source = tree(tmp_path / "source", images, ".jpg")
    bad = source / "b" / "007.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(DataError, match=r"--strict: 1 images cannot be read, the first is all/b/007.jpg \(.*[Tt]runc"):
        prepared(source, tmp_path / "out", strict=True)
    assert [row[:2] for row in report(tmp_path / "out")] == [("truncated", "all/b/007.jpg")]
    bad.write_bytes(whole)
    assert "2 of 3 shards are finished already" in dict(prepared(source, tmp_path / "out", strict=True))["space"]


def test_strict_compares_counts_before_any_work(tmp_path):
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    with pytest.raises(DataError, match="--strict: .* 18 train images, 1,281,149 fewer .* 1 empty classes"):
        prepared(source, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
