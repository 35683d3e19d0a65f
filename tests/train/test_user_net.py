"""A network made with Builder: its checkpoint alone is enough to resume it, and to predict, in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.data.augment import Augment
from minicnn.data.procedural import draw_image, procedural_sets
from minicnn.graph import Net
from minicnn.init import Normal
from minicnn.layers import Tanh
from minicnn.train.loop import Trainer
from minicnn.train.recipe import Recipe, SGDRecipe
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.small_run import small_trainer

ROOT = Path(__file__).parents[2]
RESUME = """
import sys
from minicnn.data.procedural import procedural_sets
from minicnn.graph import Net
from minicnn.train import Recipe, Trainer
from minicnn.train.runs.checkpoint import load_checkpoint
saved = load_checkpoint(sys.argv[1])
net = Net.from_description(saved.meta["net"], device="reference", seed=saved.meta["identity"]["net_seed"],
                           values=saved.arrays())
train, val, _ = procedural_sets((48, 16, 4), seed=3, size=32)
Trainer(net, Recipe.from_dict(saved.meta["recipe"]), train, val, sys.argv[2], progress=False, say=None).resume().fit(2)
"""
PREDICT = """
import json, sys
from minicnn.evaluate.predict import predict
from minicnn.graph import Net
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.run_dir import restore
meta = load_checkpoint(sys.argv[1], parts=()).meta
net = Net.from_description(meta["net"], device="reference")
pipeline, _ = restore(net, sys.argv[1], meta["classes"])
[(_, guesses)] = predict(net, pipeline, meta["classes"], sys.argv[2:])
print(json.dumps(guesses))
"""


def build() -> Net:
    """No model of this package: two branches that are added, and a kind of non-linearity of its own."""
    b = Builder((24, 24, 3), name="branches")
    stem = b.conv("stem", 6, 5, stride=3, init=Normal(0.02))
    left, right = b.conv("left", 6, 3, padding=1, input=stem), b.conv("right", 6, 1, input=stem)
    b.add("sum", [left, right])
    b.layer("bend", Tanh())
    b.maxpool("pool", 2, stride=2)
    b.flatten()
    b.linear("out", 4, init=Normal(0.1))
    b.loss()
    return b.net(seed=4, device="reference")


def trainer(run_dir) -> Trainer:
    train, val, _ = procedural_sets((48, 16, 4), seed=3, size=32)
    recipe = Recipe(net={}, augment=Augment(crop=24), optimiser=SGDRecipe(lr=0.002, batch=8))
    return Trainer(build(), recipe, train, val, run_dir, progress=False, say=None)


def run(program: str, *arguments) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_resumed_in_a_fresh_process(tmp_path):
    trainer(tmp_path / "whole").fit(2)
    trainer(tmp_path / "run").fit(1)
    run(RESUME, tmp_path / "run/last.safetensors", tmp_path / "run")
    whole, resumed = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "run"))
    assert resumed.meta["epoch"] == 2 and resumed.meta["net"] == build().description()
    for name, array in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], array, err_msg=name)
        np.testing.assert_array_equal(resumed.velocities[name], whole.velocities[name], err_msg=name)


def test_predicted_with_in_a_fresh_process(tmp_path):
    from PIL import Image

    first = trainer(tmp_path / "run")
    first.fit(1)
    Image.fromarray(draw_image(3, 90, 901)).save(tmp_path / "photo.png")
    found = dict(json.loads(run(PREDICT, first.last_path, tmp_path / "photo.png")))
    preprocess = first.recipe.preprocess
    assert preprocess.size == 32
    x = preprocess.load(str(tmp_path / "photo.png")).astype(np.float32) - first.statistics.mean
    logits = first.net.forward(x[None, 4:28, 4:28]).astype(np.float64)[0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert [found[name] for name in first.train.classes] == pytest.approx(probabilities.tolist(), rel=1e-4)


def test_a_net_that_cannot_be_described_trains_all_the_same(tmp_path):
    """An initialiser that is a function is no plain data: the first line says so, and checkpoints have no net."""
    b = Builder((24, 24, 3), name="functions")
    b.flatten()
    b.linear("fc", 4, init=lambda seed, name, shape, dtype: np.zeros(shape, dtype))
    b.loss()
    lines = []
    small_trainer(tmp_path / "run", net=b.net(device="reference"), images=16, say=lines.append).fit(1)
    assert any(line.startswith("network      is not described in checkpoints") for line in lines)
    assert load_checkpoint(tmp_path / "run/last.safetensors").meta["net"] is None
