"""Atomic writes: order of operations, kills, full disks, concurrent writers."""

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from minicnn.errors import DataError
from minicnn.system.files import (
    NewFile,
    atomic,
    cannot_write,
    signed,
    unsigned,
    write_bytes,
    write_json,
    write_text,
)

try:
    import resource
except ImportError:                                         # not a Unix
    resource = None


# ---- whole or absent
def test_the_order_is_write_sync_rename_sync(tmp_path, monkeypatch):
    events, real_sync, real_replace = [], os.fsync, os.replace

    def sync(descriptor):
        about = os.fstat(descriptor)
        events.append("sync folder" if stat.S_ISDIR(about.st_mode) else f"sync {about.st_size} bytes")
        real_sync(descriptor)

    def replace(source, target):
        events.append(f"rename to {os.path.basename(target)}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    write_bytes(tmp_path / "a", b"12345")
    assert events == ["sync 5 bytes", "rename to a", "sync folder"]
    events.clear()
    with atomic(tmp_path / "last", "w", also=tmp_path / "best") as file:
        file.write("한국")
    assert events == ["sync 6 bytes", "rename to best", "sync folder", "rename to last", "sync folder"]
    events.clear()
    with atomic(tmp_path / "last", "w", also=tmp_path / "best", keep=tmp_path / "previous") as file:
        file.write("new")
    assert events == ["sync 3 bytes", "rename to best", "sync folder", "rename to previous", "sync folder",
                      "rename to last", "sync folder"]
    assert [(tmp_path / name).read_text() for name in ("best", "previous", "last")] == ["new", "한국", "new"]


def test_text_bytes_and_json(tmp_path):
    write_text(tmp_path / "text", "한 \udcff\n", errors="surrogateescape")
    write_json(tmp_path / "json", {"a": [1, None]})
    write_bytes(str(tmp_path / "bytes"), b"\0")
    assert (tmp_path / "text").read_bytes() == "한 ".encode() + b"\xff\n"
    assert (tmp_path / "json").read_text() == '{\n "a": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "json", float("nan"))
    assert sorted(os.listdir(tmp_path)) == ["bytes", "json", "text"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "old")
    for error in (KeyError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic(tmp_path / "a", "w") as file:
            file.write("new")
            raise error
        assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_new_files_have_the_permissions_of_any_new_file(tmp_path):
    for mask in (0o022, 0o027, 0o077):
        before = os.umask(mask)
        try:
            write_bytes(tmp_path / f"{mask}", b"")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}").stat().st_mode) == 0o666 & ~mask


PROGRAM = """
import os, signal, sys
from minicnn.system import files

folder, stage = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def dies_at(count, function):
    calls = iter(range(count))
    return lambda *arguments: function(*arguments) if next(calls, None) is not None else die()

os.fsync = dies_at({"file": 0, "second folder": 1, "folder": 2}.get(stage, 9), os.fsync)
os.link = dies_at({"link": 0}.get(stage, 9), os.link)
os.replace = dies_at({"second rename": 0, "rename": 1}.get(stage, 9), os.replace)
with files.atomic(f"{folder}/last", also=f"{folder}/best") as file:
    file.write(b"new")
    if stage == "write":
        file.flush()
        die()
"""


@pytest.mark.parametrize("stage", ["write", "file", "link", "second rename", "second folder", "rename", "folder"])
def test_killed_anywhere_each_name_is_old_or_new_and_the_next_write_clears_up(tmp_path, stage):
    for name in ("last", "best"):
        write_text(tmp_path / name, "old")
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path, stage], check=False)
    assert done.returncode == -signal.SIGKILL
    found = [(tmp_path / name).read_text() for name in ("best", "last")]
    assert found == {"second folder": ["new", "old"], "rename": ["new", "old"],
                     "folder": ["new", "new"]}.get(stage, ["old", "old"])
    left = [name for name in os.listdir(tmp_path) if name.endswith(".part")]
    assert len(left) == {"second rename": 2, "folder": 0}.get(stage, 1)
    with atomic(tmp_path / "last", "w", also=tmp_path / "best") as file:
        file.write("newer")
    assert sorted(os.listdir(tmp_path)) == ["best", "last"]
    assert os.path.samefile(tmp_path / "best", tmp_path / "last") and (tmp_path / "best").read_text() == "newer"


def test_a_folder_that_cannot_be_listed_can_be_written_to(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda _: (_ for _ in ()).throw(PermissionError(errno.EACCES, "denied")))
        write_text(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize(("number", "advice"), [
    (errno.ENOSPC, "make room or choose another folder"), (errno.EDQUOT, "make room or choose another folder"),
    (errno.ENOENT, "make its folder or choose another folder"), (errno.EISDIR, "choose another name or choose another"),
    (errno.EACCES, "choose another folder"), (errno.ENOTDIR, "choose another folder"),
    (errno.ENAMETOOLONG, "choose a shorter name or choose another folder")])
def test_the_advice_fits_the_cause(number, advice):
    text = str(cannot_write("x", OSError(number, os.strerror(number))))
    assert f"; {advice}" in text and ("make room" in text) == ("make room" in advice)


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "gone" / "a", "")
    assert str(cannot_write(tmp_path / "gone" / "a", caught.value)) == (
        f"{tmp_path}/gone/a: cannot be written: No such file or directory; make its folder or choose another folder")
    assert caught.value.filename == f"{tmp_path}/gone/a"


def test_leftovers_of_earlier_versions_are_removed_too(tmp_path):
    (tmp_path / ".last.safetensors.part").write_text("half")
    (tmp_path / ".other.part").write_text("of another target")
    write_text(tmp_path / "last.safetensors", "whole")
    assert sorted(os.listdir(tmp_path)) == [".other.part", "last.safetensors"]


def test_leftovers_of_other_targets_are_left_alone(tmp_path):
    """`.a.user-notes.part` is nobody's; the others are those of "a.b" and "a.safetensors"."""
    others = [".a.b.part", ".a.b.01234567.part", ".a.safetensors.part", ".a.user-notes.part", "a.part", ".a..part"]
    for name in (*others, ".a.part", ".a.0123abcd.part"):
        (tmp_path / name).touch()
    write_text(tmp_path / "a", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a"])


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    write_text(tmp_path / "a", "old")
    (tmp_path / "a").chmod(mode)
    write_text(tmp_path / "a", "new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode and (tmp_path / "a").read_text() == "new"


def test_a_symbolic_link_remains_and_its_file_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("last", "best"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    write_text(tmp_path / "disk" / "last", "old")                   # "best" points to a file that is not there yet
    with atomic(tmp_path / "last", "w", also=tmp_path / "best") as file:
        file.write("new")
        assert sorted(os.listdir(tmp_path)) == ["best", "disk", "last"]
    for name in ("last", "best"):
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "disk")) == ["best", "last"]


def test_a_second_name_is_one_file_that_the_next_write_leaves_alone(tmp_path):
    with atomic(tmp_path / "last", "w", also=tmp_path / "best") as file:
        file.write("first")
    assert os.path.samefile(tmp_path / "last", tmp_path / "best")
    write_text(tmp_path / "last", "second")
    assert (tmp_path / "best").read_text() == "first"


def test_a_second_name_that_cannot_be_put_in_place_leaves_both_old(tmp_path):
    write_text(tmp_path / "last", "old")
    (tmp_path / "best").mkdir()
    with pytest.raises(IsADirectoryError), atomic(tmp_path / "last", "w", also=tmp_path / "best") as file:
        file.write("new")
    assert (tmp_path / "last").read_text() == "old" and sorted(os.listdir(tmp_path)) == ["best", "last"]


def test_two_writers_at_once_do_not_disturb_each_other(tmp_path):
    with atomic(tmp_path / "a", "w") as slow:
        slow.write("slow ")
        write_text(tmp_path / "a", "quick")
        assert (tmp_path / "a").read_text() == "quick"
        slow.write("one")
    assert (tmp_path / "a").read_text() == "slow one" and os.listdir(tmp_path) == ["a"]


def test_a_new_file_that_another_writer_takes_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    """Before the file is locked: the other writer has locked it and removes it, or has already removed it."""
    def sweep(error):
        [part] = os.listdir(tmp_path)
        (tmp_path / part).unlink()
        if error is not None:
            raise error

    first = [lambda: sweep(BlockingIOError()), lambda: sweep(None), lambda: None]
    monkeypatch.setattr(fcntl, "flock", lambda *_: first.pop(0)())
    write_text(tmp_path / "a", "whole")
    assert first == [] and (tmp_path / "a").read_text() == "whole" and os.listdir(tmp_path) == ["a"]


def test_without_locks_what_nobody_has_written_for_an_hour_is_a_leftover(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name, age in ((".a.00000000.part", 4000), (".a.11111111.part", 3000)):
        (tmp_path / name).touch()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    write_text(tmp_path / "a", "whole")
    assert sorted(os.listdir(tmp_path)) == [".a.11111111.part", "a"]


@pytest.mark.parametrize("function", ["fsync", "replace", "open"])
def test_an_error_of_the_system_names_the_target(tmp_path, monkeypatch, function):
    write_text(tmp_path / "a", "old")

    def fails(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", path if isinstance(path, (str, os.PathLike)) else None)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fails)
        with pytest.raises(OSError, match="No space left") as caught:
            write_text(tmp_path / "a", "new")
    assert os.fspath(caught.value.filename) == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]
    assert str(cannot_write(tmp_path / "a", caught.value, DataError, ", or wait")) == (
        f"{tmp_path / 'a'}: cannot be written: No space left on device; make room or choose another folder, or wait")


@pytest.mark.skipif(resource is None, reason="files cannot be kept short here")
@pytest.mark.parametrize("size", [300, 10**6])                    # in the last flush, and in the middle
def test_a_full_disk(tmp_path, size):
    write_text(tmp_path / "a", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_bytes(tmp_path / "a", bytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.fspath(caught.value.filename) == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    real = os.fsync

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    number = errno.EINVAL
    write_text(tmp_path / "a", "whole")
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "a", "again")


def test_written_in_another_folder_until_it_is_whole(tmp_path):
    (tmp_path / "unfinished").mkdir()
    new = NewFile(tmp_path / "shard", "wb", folder=tmp_path / "unfinished", buffering=0)
    os.pwrite(new.file.fileno(), b"bytes", 3)
    assert os.listdir(tmp_path) == ["unfinished"]
    new.commit()
    new.discard()                                                   # no effect after commit
    assert (tmp_path / "shard").read_bytes() == b"\0\0\0bytes" and os.listdir(tmp_path / "unfinished") == []
    new = NewFile(tmp_path / "shard", folder=tmp_path / "unfinished")
    new.discard()
    assert os.listdir(tmp_path / "unfinished") == [] and new.file.closed


def test_signed_json_is_checked():
    data = {"a": 1, "b": [1.5, "ü"]}
    whole = json.loads(json.dumps(signed(data, "test")))
    assert unsigned(whole) == data
    for name in whole:
        others = {key: value for key, value in whole.items() if key != name}
        for wrong in (others, whole | {name: "x"}, others | {name[1:]: whole[name]}):
            with pytest.raises(ValueError, match="changed since it was written .checksum."):
                unsigned(wrong)
    plain = {"command": "minicnn train alexnet", "top1": 1}
    assert unsigned(plain) == plain
