"""kill -9 at any moment, then resume: the files of a run that was never disturbed, byte for byte.

The gate is thirty kills. Runs follow one another; each is killed and resumed until it reaches its end. Checkpoints are
written after every second step, so that many kills fall into the writing of one.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.small_run import RunProcess, save_tree
from tests.train.test_loop import log, state

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/alexnet_imagenet.py"
KILLS = 30


def start(run_dir, **settings):
    """A process that is about to take its first step."""
    return RunProcess(run_dir, **{"epochs": 4, "save_every": 2, **settings})


def finish(process):
    """Its exit code, once it has ended."""
    return process.finish()


def assert_same_run(run_dir, other):
    for name in ("last.safetensors", "best.safetensors"):
        assert state(run_dir / name) == state(other / name)
    assert log(run_dir) == log(other)
    assert sorted(os.listdir(run_dir)) == sorted(os.listdir(other))


def test_killed_thirty_times(tmp_path):
    """Moments are drawn by what has been noted, not by the clock: any line of the log, and some milliseconds."""
    assert finish(start(tmp_path / "undisturbed")) == 0
    length = noted(tmp_path / "undisturbed")
    moments, runs, kills_with_checkpoint = random.Random(4), 0, 0
    for _ in range(KILLS):
        process, until = start(tmp_path / f"run{runs}"), moments.randint(0, length)
        while process.poll() is None and noted(tmp_path / f"run{runs}") < until:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        if finish(process) == 0:                        # it had come to its end before
            assert_same_run(tmp_path / f"run{runs}", tmp_path / "undisturbed")
            runs += 1
        else:
            kills_with_checkpoint += (tmp_path / f"run{runs}" / "last.safetensors").exists()
    assert finish(start(tmp_path / f"run{runs}")) == 0
    assert_same_run(tmp_path / f"run{runs}", tmp_path / "undisturbed")
    assert kills_with_checkpoint >= KILLS // 4, "too few kills fell between the first checkpoint and the end"


def noted(run_dir) -> int:
    """Lines of a run's log."""
    path = run_dir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_ctrl_c_ends_cleanly_and_goes_on(tmp_path):
    assert finish(start(tmp_path / "undisturbed", save_every=0)) == 0
    for number in (signal.SIGINT, signal.SIGTERM):
        run_dir = tmp_path / number.name
        process = start(run_dir, save_every=0, epochs=1000)
        while not (run_dir / "metrics.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(number)
        assert finish(process) == 130
        assert "stopping after this step" in process.errors and "Traceback" not in process.errors
        if load_checkpoint(run_dir / "last.safetensors").meta["epoch"] < 4:         # else the machine was too quick
            assert finish(start(run_dir, save_every=0)) == 0
            assert_same_run(run_dir, tmp_path / "undisturbed")


def alexnet(run_dir, *arguments, kill_after=None, delay=0.0):
    """The main example, killed `delay` seconds after so many steps are in its metrics; its exit code."""
    process = subprocess.Popen([sys.executable, EXAMPLE, *arguments], stdout=subprocess.DEVNULL)
    while kill_after is not None and process.poll() is None:
        if (run_dir / "metrics.jsonl").exists() and sum(r["kind"] == "step" for r in log(run_dir)) >= kill_after:
            time.sleep(delay)
            process.kill()
        time.sleep(0.05)
    return process.wait()


@pytest.mark.slow
def test_alexnet_killed_twice(tmp_path):
    save_tree(tmp_path / "photos", per_class=12)
    common = ["--data", tmp_path / "photos", "--out", tmp_path]
    new = [*common, "--batch", "4", "--epochs", "2", "--save-every", "2", "--run-name"]      # four steps an epoch
    assert alexnet(tmp_path / "undisturbed", *new, "undisturbed") == 0
    run_dir, delays = tmp_path / "run", random.Random(1)
    assert alexnet(run_dir, *new, "run", kill_after=3, delay=delays.random()) == -signal.SIGKILL
    assert alexnet(run_dir, *common, "--resume", "run", kill_after=6, delay=delays.random()) == -signal.SIGKILL
    assert alexnet(run_dir, *common, "--resume", "run") == 0
    assert_same_run(run_dir, tmp_path / "undisturbed")
