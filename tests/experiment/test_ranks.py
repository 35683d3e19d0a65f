"""The main example on several ranks: one command, the same run folder, and mistakes in one line."""

from __future__ import annotations

import json

import pytest

from minicnn.system.files import unsigned
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.models import change_model
from tests.helpers.small_run import load_example, save_tree


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        change_model(patch, "alexnet", fc=16, kernels=(8, 8, 8, 8, 8), input_size=67)
        yield load_example()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    save_tree(folder, per_class=6)
    return folder


def test_columns_and_then_alone(example, photos, tmp_path, capsys):
    """Two ranks train an epoch; the ledger and the picture are there; one rank goes on."""
    runs = ["--out", str(tmp_path), "--threads", "2", "--recipe", "paper"]
    assert example.main(["--data", str(photos), "--parallel", "columns", "--epochs", "1", "--batch", "4", "--run-name",
                         "run", *runs]) == 0
    text = capsys.readouterr().out
    assert "columns on 2 ranks" in text and "exchange point" in text and "1 of " in text
    for point in ("conv3", "fc6", "fc7", "fc8"):
        assert f"\n{point} " in text
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"last.safetensors", "columns.png", "curves.png",
                                                                    "test.json"}
    ledger = unsigned(json.loads((tmp_path / "run/ledger.json").read_text()))
    assert (ledger["rank"], ledger["ranks"], ledger["scheme"]) == (0, 2, "columns")
    assert {row["point"] for row in ledger["rows"]} >= {"conv3", "fc6", "fc7", "fc8"}
    saved = load_checkpoint(tmp_path / "run/last.safetensors")
    assert saved.params["conv2.w"].shape == (5, 5, 4, 8) and saved.meta["about"]["ranks"] == 2
    assert example.main(["--resume", "run", "--parallel", "none", "--epochs", "2", *runs]) == 0
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2


MISTAKES = {
    "no such way": (["--parallel", "rows"], "unknown --parallel 'rows': expected one of none, columns, data, hybrid"),
    "a batch that does not come out even": (["--parallel", "data", "--ranks", "3", "--batch", "4"],
                                            "3 ranks do not divide a batch of 4 images"),
    "channels that do not": (["--parallel", "columns", "--ranks", "3", "--batch", "4"],
                             "3 ranks do not divide its 8 kernels"),
    "no rank": (["--parallel", "columns", "--ranks", "0", "--batch", "4"], "ranks must be at least 1, got 0"),
    "no time": (["--parallel", "columns", "--comm-timeout", "0", "--batch", "4"], "must be positive"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(example, photos, tmp_path, capsys, case):
    arguments, message = MISTAKES[case]
    assert example.main(["--data", str(photos), "--epochs", "1", "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


def test_mpiexec_without_a_way_to_share(example, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    assert example.main(["--data", str(photos), "--out", str(tmp_path)]) == 2
    assert "add --parallel columns" in capsys.readouterr().err


def test_fine_tuning(example, photos, tmp_path, capsys):
    """A run of one rank begins with the weights of another; the frozen layers stay what they were."""
    runs = ["--data", str(photos), "--epochs", "1", "--batch", "4", "--recipe", "paper", "--out", str(tmp_path)]
    assert example.main(["--run-name", "first", *runs]) == 0
    assert example.main(["--init-from", "first", "--new-head", "--freeze", "conv1,conv2", "--run-name", "tuned",
                         *runs]) == 0
    text = capsys.readouterr().out
    assert "weights      7 of 8 layers" in text and "initialised anew: fc8 (a new head)" in text
    assert "(frozen: conv1 conv2)" in " ".join(text.split())
    tuned = load_checkpoint(tmp_path / "tuned/last.safetensors")
    best = load_checkpoint(tmp_path / "first/best.safetensors")
    assert (tuned.params["conv2.w"] == best.params["conv2.w"]).all() and "conv2.w" not in tuned.velocities
    assert (tuned.params["conv3.w"] != best.params["conv3.w"]).any()
    assert example.main(["--init-from", "first", "--freeze", "conv1,fc8", "--parallel", "columns", "--threads", "2",
                         "--run-name", "split", *runs]) == 0                    # rank 1 holds no fc8
    split = load_checkpoint(tmp_path / "split/last.safetensors")
    assert all((split.params[name] == best.params[name]).all() for name in ("conv1.w", "conv1.b", "fc8.w", "fc8.b"))
    assert (split.params["conv3.w"] != best.params["conv3.w"]).any()
    capsys.readouterr()
    assert example.main(["--evaluate", "first", "tuned", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("averaged") and "2 networks" in line for line in lines) == 2     # one crop, and ten
    assert sum(line.startswith("test ") for line in lines) == 4
