"""The table of recipes: complete, storable, and each of a network that exists and takes its crops."""

from __future__ import annotations

import pytest

from minicnn.errors import ConfigError
from minicnn.models.alexnet_variants import VARIANTS
from minicnn.train.recipe import PAPER, NamedRecipe, Recipe
from minicnn.train.recipes import DEFAULT, RECIPES, named_recipe, recipe_for, recipes_of
from minicnn.train.schedule import OneCycle, StepDecay
from tests.helpers.models import planned

EVERY = [(model, name) for model, recipes in RECIPES.items() for name in recipes]


def test_every_variant_has_one():
    assert set(VARIANTS) <= set(RECIPES["alexnet"])
    assert named_recipe("alexnet", "paper").recipe is PAPER
    assert set(recipes_of("a net of one's own")) == {DEFAULT} < set(recipes_of("alexnet"))


@pytest.mark.parametrize(("model", "name"), EVERY)
def test_it_survives_being_stored(model, name):
    recipe = named_recipe(model, name).recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(("model", "name"), EVERY)
def test_its_net_takes_its_crops(model, name):
    recipe = named_recipe(model, name).recipe
    net = planned(model, **{key: value for key, value in recipe.net.items() if key != "model"})
    crop, with_weights = recipe.preprocess.crop, {node.name for node in net.nodes if node.layer.initial_values()}
    assert recipe.net["model"] == model and net.builder.inputs == {"image": (crop, crop, 3)}
    params = {f"{node.name}.{name}" for node in net.nodes for name in node.layer.initial_values()}
    assert set(recipe.calibrate) <= with_weights and set(recipe.optimiser.layer_lr) <= with_weights | params


def test_torchvisions_has_the_learning_rate_outside_the_velocity():
    """All others are of Caffe and of the authors' code, which have it inside, as the paper."""
    outside = {name for name, entry in RECIPES["alexnet"].items() if not entry.recipe.optimiser.lr_in_velocity}
    assert outside == {"torchvision"} and "lr v" not in RECIPES["alexnet"]["torchvision"].apart


def test_schedules_follow_the_epochs_where_they_may():
    """The published schedules of AlexNet are kept as printed, however long the run is."""
    assert named_recipe("alexnet", "short").schedule(7).epochs == 7
    assert named_recipe("alexnet", "caffe").schedule(10).epochs == (20, 40, 60, 80)
    assert named_recipe("cifar_18pct", "published").schedule(70).epochs == (60, 65)
    assert named_recipe("alexnet", "paper").schedule(10) is PAPER.schedule


def test_a_warm_up_follows_the_epochs_too():
    ours = NamedRecipe(Recipe({}, schedule=OneCycle(epochs=10, warmup=2)), 10, stretched=True)
    assert ours.schedule(25) == OneCycle(epochs=25, warmup=5)
    published = NamedRecipe(Recipe({}, schedule=StepDecay(epochs=(30, 60), warmup=5)), 90)
    assert published.schedule(9) == StepDecay(epochs=(30, 60), warmup=5)


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="unknown recipe 'caffee': did you mean 'caffe'. expected one of short, qui"):
        named_recipe("alexnet", "caffee")


@pytest.mark.parametrize("images, epochs", [(200, 200), (2000, 30), (2300, 26), (20_000, 17), (250_000, 17)])
def test_our_own_recipe_is_fitted_to_the_number_of_images(images, epochs):
    """About as many steps whatever the size of the set is, within limits."""
    assert recipe_for("alexnet", "paper", images) == "long"
    assert named_recipe("alexnet", "long").epochs_for(images) == epochs


def test_a_set_of_imagenets_size_gets_the_published_recipe():
    assert recipe_for("alexnet", "caffe", 1_281_167) == "caffe"
    assert recipe_for("cifar_18pct", "published", 50_000) == "quick"
    assert named_recipe("alexnet", "paper").epochs_for(2000) == 90                  # published ones are not fitted
