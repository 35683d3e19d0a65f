"""examples/fine_tuning.py on a small tree and a narrow net: what the page of its runs says."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from minicnn.experiment.trained import load_trained
from minicnn.interop.graphs import HWIO
from minicnn.models.registry import build
from tests.helpers.models import change_model
from tests.helpers.small_run import load_example, save_tree

NARROW = {"width": 0.0625, "input_size": 64}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("animals") / "small"
    for part in ("train", "val"):
        save_tree(root / part, 16, size=80)
    return root


def test_runs_and_their_page(tree, tmp_path, monkeypatch):
    """The weights as the package has them, of 1,000 classes; frozen layers keep them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net = build("squeezenet1_1", seed=7, device="cpu", **NARROW)
    weights = {name.removesuffix(".w").replace("_", "/", 1): [param.data, net.params[f"{name[:-2]}.b"].data]
               for name, param in net.params.items() if name.endswith(".w")}
    file, page = tmp_path / "weights.pkl", tmp_path / "page"
    file.write_bytes(pickle.dumps(weights, protocol=3))
    change_model(monkeypatch, "squeezenet1_1", **NARROW)
    monkeypatch.setitem(HWIO, "squeezenet1_1", ("fire2/squeeze1x1", (1, 1, 4, 1), (104.0, 117.0, 123.0)))
    example = load_example("fine_tuning")
    options = ["--epochs", "1", "--threads", "1", "--out", str(tmp_path / "runs"), "--results", str(page), "--note",
               "Drawn, not taken."]
    assert example.main([str(tree), str(file), *options]) == 0
    assert example.main([str(tree), str(file), "--ways", "frozen", "--seeds", "1", *options]) == 0
    reports = json.loads(page.with_suffix(".json").read_text())
    assert [(report["way"], report["seed"]) for report in reports] == [
        ("frozen", 0), ("frozen", 1), ("free", 0), ("scratch", 0)]
    text = page.with_suffix(".md").read_text()
    assert "| frozen | 32 | 1 | 0.005 | 0 |" in text and "**mean of 2**" in text and "Drawn, not taken." in text
    (frozen, expected), (free, same), (scratch, other) = (
        _first_kernels(tmp_path / f"runs/{way}-seed0-1") for way in ("frozen", "free", "scratch"))
    assert np.array_equal(frozen, net.params["conv1.w"].data)
    assert 0 < np.abs(free - frozen).max() < 0.1 < np.abs(scratch - frozen).max()
    assert expected.order == same.order == "bgr" and other.order == "rgb"


def _first_kernels(run):
    net, pipeline, _ = load_trained(run / "last.safetensors", "cpu")
    return net.params["conv1.w"].data, pipeline.preprocess
