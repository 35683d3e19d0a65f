"""Run folders: one for each run, made before anything slow, and removed again where no step was taken."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pydoc import locate
from threading import Barrier

import pytest

from minicnn.errors import ConfigError
from minicnn.system.lock import Lock
from minicnn.train.runs.folder import LOCK, RunFolder, new_run


def test_runs_that_begin_at_once_get_a_folder_each(tmp_path):
    together, together_too = Barrier(8), Barrier(8)

    def begin(_):
        together.wait()
        with new_run(tmp_path / "runs", None, "set-net") as folder:
            together_too.wait()
            return folder.path.name

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(begin, range(8))) == [f"set-net-{number}" for number in range(1, 9)]
    assert not list(tmp_path.glob("runs/*"))


def test_below_a_dangling_link_no_folder_can_be_made(tmp_path):
    """A disk that is not mounted, say."""
    (tmp_path / "disk").symlink_to("/nowhere/deep")
    for path in (tmp_path / "disk", tmp_path / "disk" / "runs"):
        with pytest.raises(ConfigError, match="cannot be written to.*No such file or directory; choose another folder"):
            RunFolder(path).__enter__()
    assert os.listdir(tmp_path) == ["disk"]


def test_folders_that_are_left_and_made_anew_all_the_time(tmp_path):
    """Nobody is disturbed by another's tidying up."""
    def begin(number):
        for _ in range(30):
            with new_run(tmp_path / "deep" / "runs", None, "x") as folder:
                (folder.path / "metrics.jsonl").write_text(str(number))
                assert (folder.path / "metrics.jsonl").read_text() == str(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    assert not list(tmp_path.glob("deep/runs/*"))


@pytest.mark.parametrize("where", ["pathlib.Path.unlink", "os.close", "os.listdir"])
def test_an_interrupt_while_a_folder_is_left(tmp_path, monkeypatch, where):
    """Nothing is left of it in any case, and the interrupt goes on."""
    done, calls = locate(where), []

    def interrupted(*arguments):
        calls.append(arguments)
        result = done(*arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return result

    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path / "run") as folder:
        (folder.path / "metrics.jsonl").write_text("")
        monkeypatch.setattr(where, interrupted)
    monkeypatch.undo()
    assert calls and not os.listdir(tmp_path)
    with RunFolder(tmp_path / "run"):
        pass


def test_a_folder_in_use_is_refused_by_name(tmp_path):
    used = rf"run is in use by process {os.getpid()} on .*; wait for it"
    with RunFolder(tmp_path / "run"), pytest.raises(ConfigError, match=used):
        RunFolder(tmp_path / "run").__enter__()


def test_only_what_a_step_was_taken_in_stays(tmp_path):
    with new_run(tmp_path, None, "run") as folder, folder:
        (folder.path / "metrics.jsonl").write_text("a run\n")
    assert os.listdir(tmp_path) == []
    with new_run(tmp_path, None, "run") as folder:
        (folder.path / "last.safetensors").write_text("a run\n")
        folder.begun = True
    assert os.listdir(tmp_path / "run-1") == ["last.safetensors"]
    with new_run(tmp_path, None, "run") as folder:
        assert folder.path == tmp_path / "run-2"


def test_what_somebody_else_puts_there_stays(tmp_path):
    with new_run(tmp_path, None, "run") as folder:
        (folder.path / "metrics.jsonl").write_text("a run\n")
        (folder.path / "note.txt").write_text("mine")
    assert os.listdir(tmp_path / "run-1") == ["note.txt"]


def test_a_run_that_is_resumed_for_no_step_stays_as_it_was(tmp_path):
    for name in ("metrics.jsonl", "last.safetensors"):
        (tmp_path / name).write_text("a run")
    with RunFolder(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["last.safetensors", "metrics.jsonl"]


def test_metrics_without_a_lock_are_no_early_run(tmp_path):
    """Of version 0.1.0, or somebody's own."""
    (tmp_path / "metrics.jsonl").write_text("a run")
    with RunFolder(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_folder_that_another_process_has_is_not_removed_later(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "take", lambda lock: False)
        with pytest.raises(ConfigError, match="is in use by another process"):
            folder.__enter__()
    with folder:
        pass
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_that_another_process_fills_meanwhile(tmp_path, monkeypatch):
    """Between the look into it and the lock."""
    real = Lock.take

    def take(lock):
        if lock.path.parent.name == "run-1":
            (lock.path.parent / "last.safetensors").write_text("another run")
        return real(lock)

    monkeypatch.setattr(Lock, "take", take)
    with new_run(tmp_path, None, "run") as folder:
        assert folder.path.name == "run-2"
    assert os.listdir(tmp_path / "run-1") == ["last.safetensors"]


@pytest.mark.parametrize("killed", [False, True])
def test_files_of_other_kinds_are_left_alone(tmp_path, killed):
    """A folder of one's own that was given for a run, and a run of it that was killed early, or failed."""
    (tmp_path / "thesis.txt").write_text("mine")
    if killed:
        (tmp_path / LOCK).write_text(json.dumps({"process": 1, "machine": "gone"}))
        (tmp_path / "metrics.jsonl").write_text("a run\n")
    with RunFolder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="exists and is not empty"):
        new_run(tmp_path.parent, tmp_path.name, "").__enter__()


BEGIN = ("import sys, time; from minicnn.train.runs.folder import new_run\n"
         "with new_run(sys.argv[1], None, 'run') as folder:\n"
         "    (folder.path / 'metrics.jsonl').write_text('a run'); print('begun', flush=True); time.sleep(60)")


def test_a_run_that_failed_before_its_first_checkpoint_leaves_its_name(tmp_path):
    """Its metrics may say why, until the next run has the folder."""
    with new_run(tmp_path, None, "run") as folder:
        (folder.path / "metrics.jsonl").write_text("a run")
        folder.begun = True
    assert sorted(os.listdir(tmp_path / "run-1")) == [LOCK, "metrics.jsonl"]
    with new_run(tmp_path, None, "run") as folder:
        assert folder.path.name == "run-1"
        (folder.path / "last.safetensors").write_text("a run")
        folder.begun = True
    assert sorted(os.listdir(tmp_path / "run-1")) == ["last.safetensors", "metrics.jsonl"]


def test_a_run_that_was_killed_early_leaves_its_name(tmp_path):
    """kill -9 before the first checkpoint: the same command begins in the same folder again."""
    with subprocess.Popen([sys.executable, "-c", BEGIN, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        with new_run(tmp_path, None, "run") as other:
            assert other.path.name == "run-2"
        process.kill()
    assert sorted(os.listdir(tmp_path / "run-1")) == [LOCK, "metrics.jsonl"]
    with ExitStack() as stack:
        assert stack.enter_context(new_run(tmp_path, "run-1", "")).path.name == "run-1"
        assert stack.enter_context(new_run(tmp_path, None, "run")).path.name == "run-2"
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_that_was_there_before_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    with new_run(tmp_path, "mine", "") as folder:
        (folder.path / "metrics.jsonl").write_text("a run")
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(tmp_path / "mine") == []


def test_a_run_with_a_checkpoint_is_never_taken(tmp_path):
    (tmp_path / "run-1").mkdir()
    for name in (LOCK, "metrics.jsonl", "last.safetensors"):
        (tmp_path / "run-1" / name).write_text("")
    with new_run(tmp_path, None, "run") as folder:
        assert folder.path.name == "run-2"
    assert len(os.listdir(tmp_path / "run-1")) == 3


@pytest.mark.parametrize("out", ["file", "file/deeper"])
def test_runs_below_a_file(tmp_path, out):
    """Are an error at once: no number makes a folder of that."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="set-net-1 cannot be written to: .*file: Not a directory; choose another"):
        with new_run(tmp_path / out, None, "set-net"):
            pass
    assert (tmp_path / "file").stat().st_size == 0
