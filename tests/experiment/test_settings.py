"""What a recipe gives to the settings of a run."""

import argparse
import re

import numpy as np
import pytest

from minicnn.experiment.introduce import differences
from minicnn.experiment.nets import build_net, data_of
from minicnn.experiment.settings import DEFAULTS, complete, settle
from minicnn.models.registry import MODELS
from minicnn.train.recipes import RECIPES, named_recipe


@pytest.mark.parametrize(("recipe", "bias"), [("long", 1), ("short", 1), ("paper", 0)])
def test_the_net_is_the_recipes(recipe, bias):
    """SqueezeNet's last ReLU needs a start above 0 for a few classes; its authors' is 0."""
    settings = settle(argparse.Namespace(model="squeezenet1_1", data="synthetic", recipe=recipe, device="reference"))
    net = build_net(settings, 2)
    np.testing.assert_array_equal(net.params["conv10.b"].data, np.full(2, bias, "f4"))
    assert data_of(settings, 2) == {**named_recipe("squeezenet1_1", recipe).recipe.net, "num_classes": 2}


def test_knobs_that_were_asked_for_come_first():
    settings = {**DEFAULTS, "model": "squeezenet1_1", "variant": "", "recipe": "long", "knobs": {"last_bias": 0.5}}
    assert complete(settings)["knobs"] == {"last_bias": 0.5}


def test_differences_of_recipes_read_as_words():
    """"no colour shift", not "colour shift no"; what a recipe lacks altogether is named once."""
    said = {(model, name): differences({**DEFAULTS, "model": model, "variant": MODELS[model].default, "epochs": 3},
                                       entry.recipe) for model, recipes in RECIPES.items()
            for name, entry in {**recipes, "default": named_recipe(model, "default")}.items()}
    assert [line for line in said.values() if re.search(r" (no|yes|from|short)(;|$)", line)] == []
    assert said["resnet18", "short"].endswith("here: no colour shift; no scale jitter of the short side; resized by "
                                              "the short side, central square kept")
    assert said["airbench94", "default"].count("no lookahead") == 1


def test_every_recipes_knobs_are_the_nets():
    for model, recipes in RECIPES.items():
        for name in recipes:
            settings = complete({**DEFAULTS, "model": model, "variant": "", "recipe": name})
            assert settings["knobs"] == {} or model == "squeezenet1_1", (model, name)
