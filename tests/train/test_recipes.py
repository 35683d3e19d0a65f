"""The table of published recipes: complete, storable, and each of a network that exists and takes its crops."""

from __future__ import annotations

import pytest

from minicnn import models
from minicnn.errors import ConfigError
from minicnn.models.alexnet_variants import VARIANTS
from minicnn.train.recipe import PAPER, Recipe
from minicnn.train.recipes import RECIPES, published


def test_every_variant_has_one():
    assert set(VARIANTS) <= set(RECIPES)
    assert published("paper").recipe is PAPER


@pytest.mark.parametrize("name", RECIPES)
def test_it_survives_being_stored(name):
    recipe = published(name).recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_its_net_takes_its_crops(name):
    recipe = published(name).recipe
    arguments = {key: value for key, value in recipe.net.items() if key != "model"}
    small = {"fc": 8} if recipe.net["model"] == "alexnet" else {}
    net = getattr(models, recipe.net["model"])(device="reference", **arguments, **small)
    assert net.input_shape == (recipe.preprocess.crop, recipe.preprocess.crop, 3)


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="no recipe is called 'vgg': expected one of paper, authors, "):
        published("vgg")
