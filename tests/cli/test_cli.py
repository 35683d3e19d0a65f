"""The `minicnn` command: exit codes, and what it prints."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import __version__
from minicnn.backend import select as backend
from minicnn.cli import main as cli
from minicnn.gradcheck.cases import NetCase
from minicnn.models.registry import MODELS


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, output and errors of a call in this process."""
    code = cli.main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(("arguments", "words"), [
    ([], ["train", "evaluate", "predict", "gradcheck", "summary", "models", "doctor", "minicnn train alexnet"]),
    (["train"], ["MODEL", "FILE.py:FUNCTION", "what is trained:", "how:", "runs:", "Ctrl-C", "my_net.py:build"]),
    (["evaluate"], ["RUN", "--data", "ten"]),
    (["explore"], ["RUN", "--port", "--no-browser", "127.0.0.1", "photograph", "minicnn[web]"]),
    (["gradcheck"], ["--device", "--list", "conv", "alexnet", "Exit code 1"]),
    (["summary"], ["--batch", "alexnet:caffe", "FILE.py:FUNCTION"]),
])
def test_help(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and all(word in printed for word in words)
    assert max(map(len, printed.splitlines())) <= 120


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
    assert out.count("Linear(") == 5 and out.count("LRN(") == 4 and "all 9 checks passed" in out


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
    code, out, _ = run(capsys, "summary", "alexnet:torchvision", "--batch", "2", "--device", "reference")
    assert code == 0 and "61,100,840 parameters" in out and "batch 2" in out and "27 x 27 x 64" in out
    assert "\nfield, step: receptive field of an element" in out
    _, out, _ = run(capsys, "summary", "resnet20", "--size", "16", "--device", "cpu")
    assert "image 16 x 16 x 3 conv1" in " ".join(out.split())


def test_summary_of_a_net_of_ones_own(capsys, tmp_path):
    example = Path(__file__).parents[2] / "examples/own_net_and_layer.py"
    code, out, _ = run(capsys, "summary", f"{example}:own_net", "--classes", "3", "--device", "reference")
    assert code == 0 and "PReLU" in out and "batch 128" in out
    code, _, err = run(capsys, "summary", f"{example}:own_net", "--device", "reference")
    assert code == 2 and "own_net needs num_classes: add --classes K" in err and err.count("\n") == 1
    code, _, err = run(capsys, "summary", f"{example}:own_net", "--size", "64")
    assert code == 2 and "own_net is given in its file; leave --size out" in err and err.count("\n") == 1


def test_models(capsys):
    """The table has every variant; of one model, what differs from the paper and how it is trained."""
    code, out, _ = run(capsys, "models")
    assert code == 0 and len(out.splitlines()) == 2 + sum(len(model.variants) for model in MODELS.values()) + 3
    assert all(word in out for word in ("alexnet:caffe", "60,965,224", "42.9 / 19.8, centre crop", "cifar_18pct"))
    code, out, _ = run(capsys, "models", "alexnet")
    assert code == 0 and "alexnet:paper, the default: 60,965,224 parameters" in out
    assert all(word in out for word in ("LRN, groups of maps: 1 (paper: 2)", "224", "    long         26 epochs"))
    assert run(capsys, "variants") == (code, out, "")                   # what it was called in version 0.1.0
    code, out, _ = run(capsys, "models", "cifar_18pct")
    assert code == 0 and "other names" not in out and "quick" in out
    code, out, _ = run(capsys, "models", "vgg")
    assert code == 0 and "other names: vgg11 is vgg:a" in out


def test_models_of_a_family(capsys):
    """What is no network, but the beginning of several names: their rows of the table, counted."""
    code, out, _ = run(capsys, "models", "airbench")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[2:4]] == ["airbench93", "airbench94"]
    assert "2 variants of 2 networks. Errors in % are those of CIFAR-10's test images." in out
    assert "vgg:e-bn" in run(capsys, "models", "vg")[1] and "1 network." in run(capsys, "models", "vg")[1]
    assert f"variants of {len(MODELS)} networks" in run(capsys, "models")[1]


def test_doctor(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and len(out.splitlines()) <= 40
    for word in (f"minicnn       {__version__}", "numpy", "numba", "cores", "reference     works",
                 "cpu           works; ", "vectors of", "cuda          device 'cuda' cannot be used"):
        assert word in out, word
    assert "cupy: " not in out                              # the line of cuda says it


@pytest.mark.parametrize(("arguments", "message"), [
    (["gradcheck", "lnr"], "nothing to check is called 'lnr': did you mean 'lrn'? expected one of layers"),
    (["gradcheck", "lrn", "--device", "gpu"], "unknown device 'gpu'"),
    (["gradcheck", "lrn", "--device", "cuda"], "device 'cuda' cannot be used"),
    (["summary", "lenet5"], "unknown model 'lenet5': did you mean alexnet? `minicnn models` lists all"),
    (["summary", "caffe"], "unknown model 'caffe': 'alexnet' has such a variant: write alexnet:caffe"),
    (["models", "alexnt"], "unknown model 'alexnt': did you mean alexnet?"),
    (["trian", "alexnet"], "unknown command 'trian': did you mean 'train'? expected one of train, evaluate"),
    (["train"], f"no model was named: expected one of the {len(MODELS)} that `minicnn models` lists, such as alexnet"),
    (["train", "alexnet:cafe"], "unknown variant 'cafe' of alexnet: did you mean 'caffe'?"),
    (["train", "alexnet:caffe", "--variant", "paper"], "'alexnet:caffe' is the variant 'caffe', and variant 'paper'"),
    (["evaluate", "nosuch"], "nosuch: no such run; expected a checkpoint"),
    (["summary", "--batch", "0"], "--batch must be at least 1, got 0"),
    (["summary", "--size", "0"], "--size must be at least 1, got 0"),
    (["summary", "--device", "cpu:fp32", "--precision", "bf16"],
     "--device cpu:fp32 and --precision bf16 contradict each other: give one precision"),
    (["predict", "pretrained", "--precision", "fp7"],
     "unknown precision 'fp7' of device 'cpu': expected one of fp32, bf16"),
])
def test_errors_are_one_line_and_exit_with_2(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_alone_it_prints_its_help(capsys):
    code, out, err = run(capsys)
    assert code == 0 and not err and "commands:" in out and "minicnn train alexnet" in out


def test_a_reader_that_has_gone():
    """As of `minicnn models | head -1`, where head ends before the output does: no message."""
    program = "import sys, time; from minicnn.cli.main import main; sys.stdin.read(); sys.exit(main(['models']))"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == "" and process.wait() == 141


@pytest.mark.parametrize(("name", "case"), [("cifar_18pct", "cifar-18pct"), ("cifar-18pct", "cifar-18pct"),
                                            ("alexnet:paper", "alexnet"), ("alexnet:caffe", "alexnet-caffe"),
                                            ("ResNet18", "resnet"), ("resnet50:v1.5", "resnet-bottleneck"),
                                            ("vgg:a-bn", "vgg-bn"), ("vgg16", "vgg"), ("plain110", "plain-cifar")])
def test_gradcheck_takes_the_names_of_models(capsys, monkeypatch, name, case):
    monkeypatch.setattr(NetCase, "run", lambda *arguments: SimpleNamespace(ok=True, faults=[]))
    code, out, err = run(capsys, "gradcheck", name)
    assert code == 0 and not err and f"\n{case}: network in float64" in out
    assert name == case or f"\n{name}: its reduced net {case} is checked, which has the same kinds of blocks\n" in out


def test_the_nearest_option(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "alexnet", "--dta", "photos"])
    err = capsys.readouterr().err
    assert err == "error: unrecognized arguments: --dta photos; did you mean --data?; see minicnn train --help\n"


@pytest.mark.parametrize("arguments", [["train", "--epoch", "3"], ["summary", "--batch", "many"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: ") and err.endswith(f"; see minicnn {arguments[0]} --help\n")
