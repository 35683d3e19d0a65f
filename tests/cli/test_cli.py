"""The `minicnn` command: exit codes, and what it prints."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest

from minicnn import __version__
from minicnn.backend import select as backend
from minicnn.cli import main as cli


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, output and errors of a call in this process."""
    code = cli.main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(("arguments", "words"), [
    ([], ["gradcheck", "summary", "variants", "doctor", "examples/alexnet_imagenet.py"]),
    (["gradcheck"], ["--device", "--list", "conv", "alexnet", "Exit code 1"]),
    (["summary"], ["--batch", "variant"]),
])
def test_help(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and all(word in printed for word in words)


def test_it_is_installed_as_a_command():
    (script,) = entry_points(group="console_scripts", name="minicnn")
    assert script.load() is cli.main


def test_as_a_program():
    """In a process of its own, as a user calls it."""
    done = subprocess.run([sys.executable, "-m", "minicnn.cli", "gradcheck", "relu"], capture_output=True, text=True)
    assert done.returncode == 0 and "all 1 checks passed" in done.stdout and not done.stderr


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_right_gradients_exit_with_0(capsys, device):
    code, out, err = run(capsys, "gradcheck", "linear", "lrn", "linear", "--device", device)
    assert code == 0 and not err and f"on the {device} backend" in out
    assert out.count("Linear(") == 3 and out.count("LRN(") == 4 and "all 7 checks passed" in out


def test_network_and_table(capsys):
    code, out, _ = run(capsys, "gradcheck", "fork", "tanh", "--verbose")
    assert code == 0 and "all 2 checks passed" in out
    for word in ("fork: network", "stem.w", "3x3x3x4", "worst at", "numeric", "Tanh()", "rel. error"):
        assert word in out


def test_wrong_gradients_exit_with_1(capsys, monkeypatch):
    """With the term between channels gone from LRN's backward."""
    broken = copy.copy(backend.get_ops("reference"))
    broken.lrn_backward = lambda x, dy, dx, *, k, beta, **constants: np.copyto(dx, dy * k**-beta)
    monkeypatch.setattr(backend, "get_ops", lambda device: broken)
    code, out, _ = run(capsys, "gradcheck", "lrn", "relu")
    assert code == 1 and "4 of 5 checks FAILED" in out and "differ" in out and "ok  ReLU()" in out


def test_list(capsys):
    code, out, _ = run(capsys, "gradcheck", "--list")
    assert code == 0 and "lrn_within" in out and "alexnet-authors" in out


def test_summary(capsys):
    code, out, _ = run(capsys, "summary", "torchvision", "--batch", "2", "--device", "reference")
    assert code == 0 and "61,100,840 parameters" in out and "batch 2" in out and "27 x 27 x 64" in out


def test_variants(capsys):
    code, out, _ = run(capsys, "variants")
    assert code == 0 and "as printed; the default" in out
    assert all(word in out for word in ("paper\n", "authors\n", "lrn_divide_alpha: yes (paper: no)", "224"))


def test_doctor(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and len(out.splitlines()) <= 24
    for word in (f"minicnn       {__version__}", "numpy", "numba", "cores", "reference     works",
                 "cpu           works; ", "vectors of", "cuda          device 'cuda' cannot be used"):
        assert word in out, word


@pytest.mark.parametrize(("arguments", "message"), [
    (["gradcheck", "lnr"], "nothing to check is called 'lnr': expected one of layers"),
    (["gradcheck", "lrn", "--device", "gpu"], "unknown device 'gpu'"),
    (["gradcheck", "lrn", "--device", "cuda"], "device 'cuda' cannot be used"),
    (["summary", "lenet"], "unknown AlexNet variant 'lenet': expected one of paper"),
    (["summary", "--batch", "0"], "--batch must be at least 1, got 0"),
])
def test_errors_are_one_line_and_exit_with_2(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["train"], ["summary", "--batch", "many"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2 and "usage: minicnn" in capsys.readouterr().err
