"""One process at a time has a lock; those of processes that were killed are free."""

import json
import os
import socket
import subprocess
import sys

import pytest

from minicnn.system import lock
from minicnn.system.lock import Lock, waiting
from tests.helpers.full_disk import full_disk

HOLDER = ("import sys, time; from minicnn.system.lock import Lock; "
          "print(Lock(sys.argv[1]).take(), flush=True); time.sleep(60)")


def test_one_at_a_time(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.take() and not second.take()
    assert second.owner() == f"process {os.getpid()} on {socket.gethostname()}"
    first.release()
    assert os.listdir(tmp_path) == []
    assert second.take() and not first.take()


def test_of_a_process_that_was_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "lock"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"True\n"
        mine = Lock(tmp_path / "lock")
        assert not mine.take() and mine.owner().startswith(f"process {holder.pid} on ")
        holder.kill()
    assert (tmp_path / "lock").exists() and mine.take()


@pytest.mark.parametrize(("machine", "alive", "free"), [
    ("here", True, False), ("here", False, True), ("elsewhere", True, False), ("elsewhere", False, False)])
def test_without_locks_in_the_file_system(tmp_path, monkeypatch, machine, alive, free):
    monkeypatch.setattr(lock, "try_lock", lambda descriptor: None)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    signed = {"process": os.getpid() if alive else ended.pid,
              "machine": socket.gethostname() if machine == "here" else "elsewhere"}
    (tmp_path / "lock").write_text(json.dumps(signed))
    assert Lock(tmp_path / "lock").take() == free


def test_of_a_process_of_another_user(tmp_path, monkeypatch):
    """Which may not be sent a signal: it lives."""
    monkeypatch.setattr(lock, "try_lock", lambda descriptor: None)
    (tmp_path / "lock").write_text(json.dumps({"process": 1, "machine": socket.gethostname()}))

    def refuse(process, number):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert not Lock(tmp_path / "lock").take()


def test_a_longer_signature_is_overwritten(tmp_path):
    (tmp_path / "lock").write_text(json.dumps({"process": 1, "machine": 200 * "x"}))
    assert Lock(tmp_path / "lock").take()
    assert Lock(tmp_path / "lock").owner() == f"process {os.getpid()} on {socket.gethostname()}"


def test_on_a_full_disk_it_is_taken_without_a_signature(tmp_path, monkeypatch):
    with full_disk(monkeypatch, tmp_path, lambda n: n > 0):         # the file itself can be made
        assert Lock(tmp_path / "lock").take()
    assert Lock(tmp_path / "lock").owner() == "another process"


def test_a_file_that_its_owner_removes_meanwhile(tmp_path, monkeypatch):
    """A lock on a file that is no longer there is none."""
    first, second, real = Lock(tmp_path / "lock"), Lock(tmp_path / "lock"), lock.try_lock
    assert first.take()

    def released_meanwhile(descriptor):
        first.release()
        return real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(lock, "try_lock", released_meanwhile)
        assert second.take()
    assert not first.take()


def test_two_that_wait_for_a_folder(tmp_path):
    """The second goes on when the first is through."""
    program = ("import sys; from minicnn.system.lock import waiting\n"
               "print('begun', flush=True)\nwith waiting(sys.argv[1]): print('in', flush=True)")
    with waiting(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)
    assert other.communicate(timeout=60)[0] == "in\n"
