"""Recipes as plain data."""

import json

import pytest

from minicnn.data.augment import Augment
from minicnn.errors import ConfigError
from minicnn.train.recipe import PAPER, Recipe, SGDRecipe, differences, differences_in_words
from minicnn.train.schedule import Step

RECIPE = Recipe(net={"model": "alexnet", "variant": "caffe", "num_classes": 10}, init={"std": [0.01, 0.02]},
                augment=Augment(crop=227, updown=True), sgd=SGDRecipe(lr=0.02, batch=32), schedule=Step(epochs=(1, 2)))


def test_a_recipe_survives_json():
    assert Recipe.from_dict(json.loads(json.dumps(RECIPE.to_dict()))).to_dict() == RECIPE.to_dict()
    assert Recipe.from_dict(PAPER.to_dict()) == PAPER


def test_differences_name_each_knob():
    found = {knob: (ours, theirs) for knob, ours, theirs in differences(RECIPE.to_dict(), PAPER.to_dict())}
    assert found["sgd.batch"] == (32, 128) and found["augment.colour"] == (None, "paper")
    assert found["schedule.kind"] == ("step", "plateau") and found["schedule.epochs"] == ([1, 2], None)
    assert "sgd.momentum" not in found and differences(PAPER.to_dict(), PAPER.to_dict()) == []


def test_differences_in_words():
    words = differences_in_words(RECIPE)
    assert "batch 32 (paper: 128)" in words and "colour shift no (paper: as printed)" in words
    assert "mirrored up-down yes (paper: no)" in words and differences_in_words(PAPER) == []


@pytest.mark.parametrize("data, named", [({"net": {}, "sgdd": {}}, "sgdd"), ({"net": {}, "sgd": {"rate": 1}}, "rate"),
                                         ({"net": {}, "augment": {"zoom": 1}}, "zoom")])
def test_unknown_parts_are_named(data, named):
    with pytest.raises(ConfigError, match=f"'{named}'"):
        Recipe.from_dict(data)
