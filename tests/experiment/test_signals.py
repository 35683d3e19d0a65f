"""Ctrl-C, SIGTERM and a lost terminal at every kind of moment of a command.

What was finished is kept, nothing is left behind, and the same run goes on. kill -9: tests/train/test_kill.py.
"""

import contextlib
import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time

import pytest

from minicnn.cli.main import main
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.tiny_command import tiny_command, tiny_set
from tests.train.test_loop import state

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
DONE = ["best.safetensors", "conv1.png", "curves.png", "last.safetensors", "metrics.jsonl", "predictions.png",
        "test.json"]
STOPPED = "stopped before the first step: nothing was saved\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("signals")
    tiny_set(root)
    return root


@pytest.fixture(scope="module")
def undisturbed(root):
    assert main(tiny_command(root, "--device", "reference", "--run-name", "undisturbed")) == 0
    return root / "runs/undisturbed"


def signalled(monkeypatch, where, number):
    """The function, which first sends a signal to this process."""
    module, _, name = where.rpartition(".")
    real = getattr(__import__(module, fromlist=[name]), name)

    def first(*arguments, **options):
        os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(where, first)


def moments(*places, quick):
    """(place, signal), of which a few belong to the quick suite."""
    return pytest.mark.parametrize(("where", "number"), [
        pytest.param(where, number, marks=[] if (where, number) in quick else [pytest.mark.slow],
                     id=f"{where.rpartition('.')[2]}-{number.name}") for where in places for number in SIGNALS])


@moments("minicnn.experiment.run.recipe_of", "minicnn.train.state.measure_and_keep", "minicnn.train.loop.check_memory",
         "minicnn.train.state.scan", "minicnn.train.state.first_kernels",
         quick=[("minicnn.train.state.measure_and_keep", number) for number in SIGNALS])
def test_before_the_first_step_nothing_is_left(root, monkeypatch, capsys, where, number):
    before = sorted(root.glob("runs*"))
    signalled(monkeypatch, where, number)
    assert main(tiny_command(root, "--device", "reference")) == 130
    said = STOPPED if where != "minicnn.experiment.run.recipe_of" else "stopped\n"
    assert capsys.readouterr().err == said and sorted(root.glob("runs*")) == before


@moments("minicnn.graph.Net.loss", quick=[("minicnn.graph.Net.loss", signal.SIGTERM)])
def test_in_the_first_step(root, monkeypatch, capsys, where, number):
    """Which may compile kernels for a minute, longer than a scheduler waits: there is nothing to save yet."""
    before, calls = sorted(root.glob("runs*")), []

    def loss(net, *arguments, **options):
        calls.append(number)
        os.kill(os.getpid(), number)
        return 1.0

    monkeypatch.setattr("minicnn.graph.Net.loss", loss)
    assert main(tiny_command(root, "--device", "reference")) == 130
    assert capsys.readouterr().err == STOPPED and sorted(root.glob("runs*")) == before and len(calls) == 1


@moments("minicnn.train.loop.evaluate", "minicnn.train.state.save_checkpoint", "minicnn.experiment.run.draw_progress",
         "minicnn.experiment.evaluation.evaluate", "minicnn.visualize.report.draw_filters",
         "minicnn.experiment.evaluation.write_json",
         quick=[("minicnn.experiment.evaluation.evaluate", signal.SIGHUP)])
def test_later_the_same_run_goes_on(root, request, monkeypatch, capsys, where, number):
    """Validation, a checkpoint, a picture, the test images, the last pictures, and the results."""
    name = f"{where}-{number}"
    with monkeypatch.context() as patch:
        signalled(patch, where, number)
        assert main(tiny_command(root, "--device", "reference", "--run-name", name)) == 130
    again = f"--resume {root / 'runs' / name}\n"
    assert capsys.readouterr().out.endswith(again)
    left = set(os.listdir(root / "runs" / name))
    assert {"last.safetensors", "metrics.jsonl"} <= left <= {*DONE, "previous.safetensors"}
    assert main(["train", "--resume", str(root / "runs" / name)]) == 0
    assert sorted({*os.listdir(root / "runs" / name)} - {"previous.safetensors"}) == DONE
    if request.node.get_closest_marker("slow"):         # the other one costs some seconds
        undisturbed = request.getfixturevalue("undisturbed")
        assert state(root / "runs" / name / "last.safetensors") == state(undisturbed / "last.safetensors")


@moments("minicnn.experiment.evaluation.load_trained", "minicnn.experiment.evaluation.evaluate",
         "minicnn.visualize.report.draw_predictions", quick=[])
def test_evaluate(root, undisturbed, monkeypatch, capsys, where, number):
    """A run that is only evaluated stays as it was, and can be evaluated again."""
    before = {path.name: path.read_bytes() for path in undisturbed.iterdir()}
    with monkeypatch.context() as patch:
        signalled(patch, where, number)
        assert main(["evaluate", str(undisturbed)]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert {path.name: path.read_bytes() for path in undisturbed.iterdir()} == before
    assert main(["evaluate", str(undisturbed)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["data  ", "memory  ", "epoch 1/", "epoch 2/", "test  ", "pictures  "])
def test_a_terminal_that_is_lost(root, undisturbed, seen):
    """Closed once it shows this: the system sends SIGHUP, and everything that is printed after it fails."""
    run_dir, (ours, theirs) = root / "runs" / f"lost {seen.strip(' /')}", pty.openpty()
    command = tiny_command(root, "--device", "reference", "--run-name", run_dir.name)
    with subprocess.Popen([sys.executable, "-m", "minicnn.cli", *command], stdin=theirs, stdout=theirs, stderr=theirs,
                          start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as process:
        os.close(theirs)
        said = ""
        while seen not in said:
            said += os.read(ours, 4096).decode(errors="replace")
        os.close(ours)
        assert process.wait(300) in (0, 130, -signal.SIGHUP)    # the last, once Python has begun to exit
    assert not (run_dir / ".lock").exists()
    words = ["--resume", str(run_dir)] if (run_dir / "last.safetensors").exists() else command[1:]
    assert main(["train", *words]) == 0
    assert sorted({*os.listdir(run_dir)} - {"previous.safetensors"}) == DONE
    assert state(run_dir / "last.safetensors") == state(undisturbed / "last.safetensors")


@pytest.mark.parametrize("number", SIGNALS)
def test_prepare(root, monkeypatch, capsys, number):
    """Before a shard is begun nothing is left; later the same command goes on."""
    command = ["prepare", f"{root / 'set'}", f"{root / 'prepared' / number.name}", "--size", "32", "--per-shard", "4"]
    for where, left in (("minicnn.data.prepare.run.open_source", False), ("minicnn.data.prepare.run._complete", True)):
        with monkeypatch.context() as patch:
            signalled(patch, where, number)
            assert main(command) == 130
        assert capsys.readouterr().err.endswith("stopped; the same command goes on from here\n")
        assert (root / "prepared" / number.name).exists() == left
    assert main(command) == 0 and not (root / "prepared" / number.name / "unfinished").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_at_any_moment_of_the_whole_command(root, undisturbed, number):
    """From the first import to the last picture: killed ten times or more; every run goes on to the same end."""
    draw, kills, runs, whole = random.Random(number), 0, 0, None
    while kills < 10 or runs < 2:
        run_dir = root / "runs" / f"any-{number.name}-{runs}"
        words = ["train", "--resume", str(run_dir)] if (run_dir / "last.safetensors").exists() else tiny_command(
            root, "--device", "reference", "--run-name", run_dir.name)
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "minicnn.cli", *words], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(whole and draw.uniform(0.2, 1) * whole)
        process.send_signal(number)
        errors = process.communicate(timeout=300)[1]
        whole = whole or time.monotonic() - began
        assert process.returncode in (0, 130, -number), errors
        if process.returncode == 0:
            assert sorted({*os.listdir(run_dir)} - {"previous.safetensors"}) == DONE
            assert state(run_dir / "last.safetensors") == state(undisturbed / "last.safetensors")
        runs, kills = runs + (process.returncode == 0), kills + (process.returncode != 0)


def test_handlers_are_put_back(root):
    before = [signal.getsignal(number) for number in SIGNALS]
    assert main(["models"]) == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.slow
def test_killed_between_the_two_names_of_its_first_checkpoint(root, monkeypatch):
    """best.safetensors is put in place first; it is the whole checkpoint."""
    with monkeypatch.context() as patch:
        signalled(patch, "minicnn.experiment.run.draw_progress", signal.SIGTERM)
        assert main(tiny_command(root, "--device", "reference", "--run-name", "halfway")) == 130
    os.unlink(root / "runs/halfway/last.safetensors")
    assert main(["train", "--resume", str(root / "runs/halfway")]) == 0
    assert load_checkpoint(root / "runs/halfway/last.safetensors").meta["epoch"] == 2
