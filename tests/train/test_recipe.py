"""Recipes as plain data."""

import dataclasses
import json

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.builder import Builder
from minicnn.data.augment import Augment
from minicnn.data.preprocess import Preprocess
from minicnn.errors import ConfigError
from minicnn.param import Param
from minicnn.train.adam import Adam, AdamW
from minicnn.train.recipe import (
    PAPER,
    AdamRecipe,
    AdamWRecipe,
    AverageRecipe,
    Recipe,
    SGDRecipe,
    differences,
    differences_in_words,
    steady_output_lr,
)
from minicnn.train.schedule import Plateau, StepDecay
from minicnn.train.sgd import SGD
from tests.helpers.small_run import small_net, small_recipe

RECIPE = Recipe(net={"model": "alexnet", "variant": "caffe", "num_classes": 10}, calibrate={"fc6": 0.5},
                augment=Augment(crop=227, updown=True), optimiser=SGDRecipe(lr=0.02, batch=32),
                schedule=StepDecay(epochs=(1, 2)))


def test_a_recipe_survives_json():
    assert Recipe.from_dict(json.loads(json.dumps(RECIPE.to_dict()))).to_dict() == RECIPE.to_dict()
    assert Recipe.from_dict(PAPER.to_dict()) == PAPER


def test_a_recipe_of_0_1_0():
    """The crop in augment, no preprocess, and an "init" that had no effect: as the same recipe is written now."""
    old = {"net": {"model": "small"}, "init": {"bias": 0.1}, "augment": {"crop": 24, "flip": True, "colour": "paper"},
           "sgd": {"lr": 0.002, "batch": 8}, "schedule": {"kind": "plateau", "patience": 1}}
    assert Recipe.from_dict(old) == small_recipe()
    assert Recipe.from_dict(old).preprocess == Preprocess(size=None, crop=24)


@pytest.mark.parametrize("optimiser", [AdamRecipe(betas=(0.8, 0.9)), AdamWRecipe(decay=0.1),
                                       SGDRecipe(lr_in_velocity=False, nesterov=True, decoupled=True)])
def test_every_optimiser_survives_json(optimiser):
    recipe = dataclasses.replace(RECIPE, optimiser=optimiser, average=AverageRecipe(0.99, warmup=False))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe != RECIPE


def test_the_name_of_the_optimiser_in_0_1_0():
    """As an argument, and as a part in files."""
    assert Recipe(net={}, sgd=SGDRecipe(lr=0.02)) == Recipe(net={}, optimiser=SGDRecipe(lr=0.02)) != Recipe(net={})
    changed = dataclasses.replace(RECIPE, sgd=SGDRecipe(lr=0.3))
    assert changed.optimiser == SGDRecipe(lr=0.3) and dataclasses.replace(changed, net={}).optimiser.lr == 0.3
    assert Recipe.from_dict({"net": {}, "sgd": {"lr": 0.02, "batch": 8}}).optimiser == SGDRecipe(lr=0.02, batch=8)


def test_a_recipe_makes_its_optimiser():
    """With all of its settings, and none of those that are of the loader."""
    net = small_net()
    sgd = SGDRecipe(lr=0.3, momentum=0.5, decay=0.1, output_lr=0.5, lr_in_velocity=False, nesterov=True,
                    decoupled=True).make(net)
    assert (sgd.lr, sgd.momentum, sgd.decay, sgd.trained["fc3.w"], sgd.trained["fc2.w"]) == (0.3, 0.5, 0.1, 0.5, 1.0)
    assert sgd.form == {"lr_in_velocity": False, "nesterov": True, "decoupled": True}
    assert SGDRecipe().make(net).form == {"lr_in_velocity": True, "nesterov": False, "decoupled": False}
    adam, adamw = AdamRecipe(lr=0.3, betas=(0.5, 0.6), eps=0.1).make(net), AdamWRecipe().make(net)
    assert type(adam) is Adam and (adam.lr, adam.betas, adam.eps, adam.decay) == (0.3, (0.5, 0.6), 0.1, 0.0)
    assert type(adamw) is AdamW and (adamw.lr, adamw.betas, adamw.eps, adamw.decay) == (0.001, (0.9, 0.999), 1e-8, 0.01)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: AverageRecipe(2), "average of the weights must lie in"), (lambda: AverageRecipe("0.9"), "moving average"),
    (lambda: AdamWRecipe(lr=-1), "learning rate must be positive"), (lambda: SGDRecipe(momentum=1), "momentum must"),
    (lambda: AdamRecipe(betas=(0.9,)), "betas must be two"), (lambda: SGDRecipe(decay=-1), "weight decay must not be"),
    (lambda: AdamRecipe(norm_decay=-1), "weight decay must not be negative, it is -1")])
def test_values_that_no_optimiser_takes_are_refused_at_once(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("kind", [SGDRecipe, AdamRecipe, AdamWRecipe])
def test_batch_normalisation_may_have_a_weight_decay_of_its_own(kind):
    """Its scales and shifts alone; with gradients of 0 a parameter moves by its weight decay."""
    b = Builder((4, 4, 2))
    b.conv("conv1", 3, 3)
    b.batchnorm("bn1")
    b.flatten("flat")
    b.linear("fc2", 2)
    b.loss()
    moved = {}
    for norm_decay in (None, 0, 0.5):
        net = b.net(device="reference", seed=0)
        optimiser = kind(lr=0.1, decay=0.5, norm_decay=norm_decay).make(net)
        net.params["bn1.b"].data[...] = 1.0
        before = {name: param.data.copy() for name, param in net.params.items()}
        for param in net.params.values():
            param.zero_grad()
        optimiser.step()
        moved[norm_decay] = {name for name, param in net.params.items() if (param.data != before[name]).any()}
    assert moved[None] == moved[0.5] >= {"conv1.w", "fc2.w", "bn1.w", "bn1.b"}
    assert moved[0] == moved[None] - {"bn1.w", "bn1.b"}
    recipe = dataclasses.replace(RECIPE, optimiser=kind(norm_decay=0.0))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe != RECIPE


def test_the_crop_is_kept_in_one_place():
    recipe = Recipe({}, preprocess=Preprocess(crop=227), augment=Augment(flip=False))
    assert recipe.preprocess.crop == 227 and recipe.augment == Augment(flip=False)
    changed = dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, crop=224))
    assert changed.preprocess == Preprocess(crop=224) and changed.augment == recipe.augment
    assert "crop" not in changed.to_dict()["augment"] and changed.to_dict()["preprocess"]["crop"] == 224


def test_differences_name_each_knob():
    found = {knob: (ours, theirs) for knob, ours, theirs in differences(RECIPE.to_dict(), PAPER.to_dict())}
    assert found["optimiser.batch"] == (32, 128) and found["augment.colour"] == (None, "paper")
    assert found["schedule.kind"] == ("step", "plateau") and found["schedule.epochs"] == ([1, 2], None)
    assert "optimiser.momentum" not in found and differences(PAPER.to_dict(), PAPER.to_dict()) == []


def test_factors_on_learning_rates_by_layer():
    net = small_net()
    mults = SGDRecipe(layer_lr={"conv1": 0.1, "fc3": 2.0}, output_lr=0.5).lr_mults(net)
    assert mults == {"conv1.w": 0.1, "conv1.b": 0.1, "fc2.w": 1.0, "fc2.b": 1.0, "fc3.w": 1.0, "fc3.b": 1.0}
    with pytest.raises(ConfigError, match="names 'fc9', but no layer .* 'small' is called so; .* conv1, fc2, fc3, or"):
        SGDRecipe(layer_lr={"fc9": 0.1}).lr_mults(net)
    recipe = dataclasses.replace(RECIPE, optimiser=SGDRecipe(layer_lr={"conv1": 0.5, "conv1.w": 0.0, "fc2": 0.0}))
    mults = recipe.optimiser.lr_mults(net)
    assert (mults["conv1.w"], mults["conv1.b"], mults["fc2.w"]) == (0.0, 0.5, 0.0)
    other = dataclasses.replace(recipe, optimiser=SGDRecipe(layer_lr={"conv1": 0.0, "conv1.b": 1.0, "act1.a": 0.0}))
    assert other.frozen(0) == [] and other.optimiser.layer_lr["conv1"] == 0         # conv1.b is trained
    with pytest.raises(ConfigError, match="names 'act1.a', but"):
        other.optimiser.lr_mults(net)
    assert recipe.frozen(0) == ["fc2"] and set(recipe.optimiser.make(net).trained) == {"conv1.b", "fc3.w", "fc3.b"}


def test_differences_in_words():
    words = differences_in_words(dataclasses.replace(RECIPE, optimiser=SGDRecipe(batch=32, layer_lr={"fc6": 0.1})))
    assert ("initial standard deviation of fc6", "0.5", "no") in words
    assert ("factor on the learning rate of fc6", "0.1", "no") in words
    words = differences_in_words(RECIPE)
    assert ("batch", "32", "128") in words and ("colour shift", "no", "as printed") in words
    assert ("vertical flip", "yes", "no") in words and differences_in_words(PAPER) == []
    assert ("learning rate schedule", "step, times 0.1 at epochs 1 2", "plateau, times 0.1 after 3 epochs without "
            "improvement, 3 times at most") in words
    [(_, warmup, _)] = differences_in_words(dataclasses.replace(PAPER, schedule=Plateau(warmup=1)))
    assert warmup.endswith("at most, with 1 epoch of warm-up from 0")


def test_optimiser_and_average_in_words():
    words = differences_in_words(dataclasses.replace(PAPER, optimiser=AdamWRecipe(), average=AverageRecipe()))
    assert ("optimiser", "AdamW", "SGD") in words and ("betas", "0.9 0.999", "no") in words
    assert ("moving average of the weights (EMA), factor", "0.999", "no") in words
    words = differences_in_words(dataclasses.replace(PAPER, optimiser=SGDRecipe(lr_in_velocity=False, nesterov=True)))
    assert words == [("learning rate inside the velocity", "no", "yes"), ("Nesterov momentum", "yes", "no")]


@pytest.mark.parametrize("data, named", [({"net": {}, "sgdd": {}}, "sgdd"), ({"net": {}, "sgd": {"rate": 1}}, "rate"),
                                         ({"net": {}, "optimiser": {"kind": "adma"}}, "adma"),
                                         ({"net": {}, "optimiser": {"kind": "adam", "momentum": 1}}, "momentum"),
                                         ({"net": {}, "average": {"decay": 1}}, "decay"),
                                         ({"net": {}, "augment": {"zoom": 1}}, "zoom"),
                                         ({"net": {}, "preprocess": {"kropp": 1}}, "kropp")])
def test_unknown_parts_are_named(data, named):
    with pytest.raises(ConfigError, match=f"'{named}'"):
        Recipe.from_dict(data)


def test_the_output_layers_learning_rate_keeps_few_classes_steady():
    assert steady_output_lr(0.01, 1000) == 1.0                      # the paper's case is left alone
    for lr, classes in ((0.01, 2), (0.03, 2), (0.01, 10)):
        curvature = 2 * 2048 * (classes - 1) / classes**2           # 2 |h|^2 p (1 - p), half of 4096 units dropped
        assert lr * steady_output_lr(lr, classes) * curvature == pytest.approx(1.0)


def test_the_factor_reaches_the_output_layer_and_no_other():
    param = {name: Param(name, np.ones(3)) for name in ("fc7.w", "fc8.w")}
    for p in param.values():
        p.grad[...] = 1.0
    SGD(param, lr=0.1, decay=0.0, lr_mults={"fc8.w": 0.5}).step(get_ops("reference"))
    np.testing.assert_allclose(param["fc7.w"].data, 0.9)
    np.testing.assert_allclose(param["fc8.w"].data, 0.95)
