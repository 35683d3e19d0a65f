"""load_trained: networks from checkpoints, those of version 0.1.0 included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minicnn.errors import CheckpointError
from minicnn.evaluate.predict import predict
from minicnn.experiment.settings import settle
from minicnn.experiment.trained import load_trained
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.models import add_model, change_model
from tests.helpers.small_run import load_example, small_net, small_trainer

VECTORS = Path(__file__).parents[1] / "vectors/v0_1"


def test_version_0_1_predicts_the_same():
    """A cifar_18pct of that version, without a description: the probabilities that it gave then."""
    net, pipeline, meta = load_trained(VECTORS / "cifar/best.safetensors", "reference")
    assert "net" not in meta and net.name == "cifar-18pct"
    [(file, guesses)] = predict(net, pipeline, meta["classes"], [str(VECTORS / "cifar/photo.png")], top=10)
    expected = json.loads((VECTORS / "cifar_expected.json").read_text())
    assert file.endswith("photo.png") and [name for name, _ in guesses] == list(expected)
    assert np.allclose([share for _, share in guesses], list(expected.values()), rtol=0, atol=1e-5)


def test_version_0_1_goes_on_with_its_settings(tmp_path):
    """The metadata that a run of the example left: the settings, and the recipe that is compared on resuming."""
    from minicnn.experiment.recipe import recipe_of
    from minicnn.train.recipe import Recipe

    meta = json.loads((VECTORS / "alexnet_meta.json").read_text())
    save_checkpoint(tmp_path / "last.safetensors", {}, {}, {}, meta)
    example = load_example()
    settings = settle(example.parse(["--resume", str(tmp_path)]), tmp_path / "last.safetensors")
    assert settings == {**settings, **meta["about"], "model": "alexnet", "knobs": {}, "size": None}
    recipe = recipe_of(settings, len(meta["classes"]), meta["recipe"]["augment"]["crop"])
    assert recipe == Recipe.from_dict(meta["recipe"])
    fresh = settle(example.parse(["--recipe", "short"]))
    assert recipe_of(fresh, 2, 224) == recipe                   # the recipe of that name is what it was


def test_by_description_alone(tmp_path):
    """No function, no name: the checkpoint says what its net is."""
    small_trainer(tmp_path / "run").fit(1)
    net, pipeline, meta = load_trained(tmp_path / "run/best.safetensors", "cpu")
    saved = load_checkpoint(tmp_path / "run/best.safetensors")
    assert net.ops.name == "cpu" and meta["recipe"]["net"] == {"model": "small"} and net.name == "small"
    assert all(np.array_equal(net.params[name].data, array) for name, array in saved.params.items())
    assert pipeline.net is net


def test_a_name_that_is_gone(tmp_path, monkeypatch):
    """Without a description the recipe's name must be known."""
    small_trainer(tmp_path / "run").fit(1)
    saved = load_checkpoint(tmp_path / "run/best.safetensors")
    del saved.meta["net"]
    save_checkpoint(tmp_path / "old.safetensors", saved.params, {}, saved.data, saved.meta)
    with pytest.raises(CheckpointError, match="is of the net {'model': 'small'}, which minicnn.models does not have"):
        load_trained(tmp_path / "old.safetensors")
    add_model(monkeypatch, "small", lambda device, seed, dtype, values: small_net(device, seed))
    assert load_trained(tmp_path / "old.safetensors", "reference")[0].name == "small"


def test_weights_of_another_net(tmp_path, monkeypatch):
    change_model(monkeypatch, "alexnet", fc=8, kernels=(8, 8, 8, 8, 8), input_size=67)
    small_trainer(tmp_path / "run").fit(1)
    saved = load_checkpoint(tmp_path / "run/best.safetensors")
    del saved.meta["net"]
    saved.meta["recipe"]["net"] = {"model": "alexnet", "variant": "paper", "num_classes": 4}
    save_checkpoint(tmp_path / "old.safetensors", saved.params, {}, saved.data, saved.meta)
    with pytest.raises(CheckpointError, match="old.safetensors: of another network: 'conv1.w'"):
        load_trained(tmp_path / "old.safetensors", "reference")
