"""Ranks as processes under mpiexec: bit-identical with threads, and errors when one of them dies or hangs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minicnn.errors import ConfigError
from minicnn.parallel.launch import launch, started_ranks
from minicnn.parallel.threads import run_local
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.metrics import read_metrics
from tests.helpers.small_run import save_tree
from tests.parallel import small_ranks

MPIEXEC = Path(sys.executable).with_name("mpiexec")
if not MPIEXEC.exists():
    MPIEXEC = shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None or not MPIEXEC,
                               reason="needs mpi4py and an MPI: pip install 'minicnn[mpi]'")
ROOT = Path(__file__).parents[2]


def mpiexec(run_dir, ranks=2, **settings) -> tuple[int, str]:
    """Exit code and output."""
    done = subprocess.run([MPIEXEC, "-n", str(ranks), sys.executable, "-m", "tests.parallel.small_ranks", run_dir,
                           json.dumps({"images": 48, **settings})], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)
    return done.returncode, done.stdout + done.stderr


def locally(run_dir, ranks=2, **settings):
    run_local(ranks, lambda comm: small_ranks.train(comm, run_dir, {"images": 48, "quiet": True, **settings}))


def same_checkpoints(one, other):
    one, other = (load_checkpoint(run_dir / "last.safetensors") for run_dir in (one, other))
    assert (one.meta["epoch"], one.meta["step"]) == (other.meta["epoch"], other.meta["step"])
    for name, array in {**one.params, **one.velocities}.items():
        np.testing.assert_array_equal({**other.params, **other.velocities}[name], array, err_msg=name)


@needs_mpi
@pytest.mark.parametrize(("scheme", "ranks"), [("columns", 2), ("data", 2), ("hybrid", 2), ("columns", 4), ("data", 4)])
def test_processes_and_threads_are_bit_identical(tmp_path, scheme, ranks):
    code, text = mpiexec(tmp_path / "mpi", ranks, scheme=scheme)
    assert code == 0, text
    locally(tmp_path / "local", ranks, scheme=scheme)
    same_checkpoints(tmp_path / "mpi", tmp_path / "local")


@needs_mpi
@pytest.mark.parametrize(("ranks", "arrays"), [(2, "host"), (3, "host"), (4, "host"), (2, "device"), (3, "device")])
def test_collectives(ranks, arrays):
    done = subprocess.run([MPIEXEC, "-n", str(ranks), sys.executable, "-m", "tests.parallel.collectives", arrays],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("all as in NumPy") == ranks, done.stdout + done.stderr


@needs_mpi
def test_ranks_with_other_weights_do_not_train(tmp_path):
    code, text = mpiexec(tmp_path / "run", other_seed=1)
    assert code == 2 and "error: rank 1 disagrees with rank 0 on the network" in text, text
    assert text.count("error: ") == 1 and "Traceback" not in text and not (tmp_path / "run").exists()


@needs_mpi
def test_a_killed_rank_ends_all_and_the_run_resumes(tmp_path):
    code, text = mpiexec(tmp_path / "killed", die=[1, 8], save_every=3)
    assert code != 0
    named = re.search(r"rank 1 is process (\d+)", text)
    assert named and f"PID {named[1]}" in text, text        # mpiexec reports the PID of the killed process
    assert load_checkpoint(tmp_path / "killed" / "last.safetensors").meta["step"] in (0, 3)     # of 6, after the 6th
    code, text = mpiexec(tmp_path / "killed", save_every=3)
    assert code == 0, text
    locally(tmp_path / "whole")
    same_checkpoints(tmp_path / "killed", tmp_path / "whole")


@needs_mpi
def test_a_hanging_rank_is_named_and_ends_all(tmp_path):
    code, text = mpiexec(tmp_path / "hung", hang=[1, 8], timeout=5.0, save_every=3)
    assert code == 2 and "error: rank 1 hangs: rank 0 has waited 5 s" in text, text
    assert "Traceback" not in text
    code, text = mpiexec(tmp_path / "hung", save_every=3)
    assert code == 0, text
    locally(tmp_path / "whole")
    same_checkpoints(tmp_path / "hung", tmp_path / "whole")


@pytest.mark.slow
@needs_mpi
def test_twenty_kills(tmp_path):
    """Kill -9 at twenty steps of one run, on either rank; the result is bit-identical with an uninterrupted run."""
    rng = np.random.default_rng(2)
    for kill in range(20):
        step = kill * 24 // 20 + int(rng.integers(0, 2))
        code, text = mpiexec(tmp_path / "killed", die=[kill % 2, step], save_every=1, epochs=4, scheme="data")
        died = float(re.search(r"dies at ([\d.]+)", text)[1])
        assert code != 0 and time.time() - died < 10, text
    code, text = mpiexec(tmp_path / "killed", save_every=1, epochs=4, scheme="data")
    assert code == 0, text
    locally(tmp_path / "whole", epochs=4, scheme="data")
    same_checkpoints(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@needs_mpi
def test_twenty_kills_from_outside(tmp_path):
    """Kill -9 of either rank at twenty random times: all end within 10 s, and the final result is bit-identical."""
    rng, command = np.random.default_rng(3), json.dumps({"images": 48, "epochs": 40, "save_every": 1})
    kills = 0
    for _ in range(60):
        run = subprocess.Popen([MPIEXEC, "-n", "2", sys.executable, "-u", "-m", "tests.parallel.small_ranks",
                                tmp_path / "killed", command], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        processes, output = {}, []
        while len(processes) < 2:
            output.append(run.stdout.readline())
            assert output[-1], f"it ended before both ranks trained: {output}"
            for found in re.finditer(r"rank (\d) trains in process (\d+)", output[-1]):        # two may share a line
                processes[int(found[1])] = int(found[2])
        if kills == 20:
            break
        time.sleep(float(rng.uniform(0, 2)))
        if run.poll() is None:
            os.kill(processes[int(rng.integers(2))], signal.SIGKILL)
            kills += 1
            run.communicate(timeout=10)
            assert run.returncode != 0
        else:                                               # it finished before the kill: start again
            run.communicate()
            shutil.rmtree(tmp_path / "killed")
    run.communicate(timeout=120)
    assert run.returncode == 0 and kills == 20, (run.returncode, kills)
    locally(tmp_path / "whole", epochs=40)
    same_checkpoints(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("scheme", ["columns", "data"])
def test_the_example_under_mpiexec(tmp_path, scheme):
    """All of AlexNet in two processes, four images a step: the same loss as on one, the picture, and one ledger."""
    save_tree(tmp_path / "photos", per_class=8)
    runs = {}
    for name, prefix, more in (("two", [MPIEXEC, "-n", "2"], ["--parallel", scheme]), ("one", [], [])):
        done = subprocess.run([*prefix, sys.executable, "examples/alexnet_imagenet.py", "--data", tmp_path / "photos",
                               "--epochs", "1", "--batch", "4", "--lr", "0.001", "--out", tmp_path, "--run-name", name,
                               *more], cwd=ROOT, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        runs[name] = done.stdout, read_metrics(tmp_path / name / "metrics.jsonl")[-1]
    assert runs["two"][0].count("exchange point") == 1
    assert (tmp_path / "two/columns.png").exists() == (scheme == "columns")
    assert runs["two"][1]["train"]["loss"] == pytest.approx(runs["one"][1]["train"]["loss"], rel=1e-3)


@needs_mpi
def test_an_error_on_all_ranks_is_printed_once(tmp_path):
    code, text = mpiexec(tmp_path, ranks=3, scheme="columns")
    assert code == 2 and text.count("error: ") == 1 and "3 ranks do not divide" in text, text


def test_number_of_started_ranks(monkeypatch):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert started_ranks() is None
    assert launch(3, lambda local_size: local_size, lambda comm, ready: (comm.size, ready)) == (3, 3)
    assert launch(None, lambda local_size: 0, lambda comm, ready: comm.size) == 2
    monkeypatch.setenv("PMI_SIZE", "2")
    assert started_ranks() == 2
    with pytest.raises(ConfigError, match="mpiexec has started 2 ranks, but 4 were requested"):
        launch(4, print, print)
