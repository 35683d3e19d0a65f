"""Every network by its name: what `build` makes of it, and what it says of names that do not exist."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minicnn import models
from minicnn.errors import ConfigError
from minicnn.models.registry import MODELS, build, find, full_name
from minicnn.train.recipes import RECIPES, recipes_of
from tests.helpers.models import planned

EVERY = [(name, variant) for name, model in MODELS.items() for variant in model.variants]


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_parameters_and_multiply_adds_are_right(name, variant):
    plan, declared = planned(full_name(name, variant)), MODELS[name].variants[variant]
    assert plan.parameters == declared.parameters
    assert plan.parameters_in_training_only == declared.auxiliary
    assert plan.macs == declared.macs


def test_a_name_is_the_function_of_that_name():
    for name in MODELS:
        assert getattr(models, name) is MODELS[name].function
    small = {"fc": 8, "kernels": (8, 8, 8, 8, 8), "input_size": 67, "num_classes": 3, "device": "reference"}
    named, called = build("alexnet:caffe", **small, seed=5), models.alexnet("caffe", **small, seed=5)
    assert named.name == called.name == "alexnet-caffe"
    assert all(np.array_equal(named.params[key].data, called.params[key].data) for key in called.params)


def test_spellings():
    assert find("alexnet") == ("alexnet", "paper")
    assert find("alexnet:caffe") == find("alexnet", "caffe") == find("alexnet:caffe", "caffe") == ("alexnet", "caffe")
    assert find("cifar_18pct") == find("cifar-18pct") == ("cifar_18pct", "")
    assert find("ResNet18") == find("resnet-18") == ("resnet18", "v1") and find("VGG-16:d") == ("vgg", "d")
    names = [*MODELS, *(alias for entry in MODELS.values() for alias in entry.aliases)]
    assert len({re.sub("[-_]", "", name) for name in names}) == len(names)


def test_classes_and_values():
    """By default as many classes as it was published for; weights that are given are not drawn."""
    net = build("cifar_18pct", device="reference")
    assert net.num_classes == 10 and build("cifar_18pct", num_classes=3, device="reference").num_classes == 3
    twin = build("cifar_18pct", device="reference", seed=9, values={"fc10.w": net.params["fc10.w"].data})
    assert np.array_equal(twin.params["fc10.w"].data, net.params["fc10.w"].data)
    assert not np.array_equal(twin.params["conv1.w"].data, net.params["conv1.w"].data)


@pytest.mark.parametrize(("arguments", "message"), [
    (("alexnt",), "unknown model 'alexnt': did you mean alexnet? `minicnn models` lists all"),
    (("cifar-18pc",), "did you mean cifar_18pct?"),
    (("ResNet",), "did you mean resnet18, resnet34, resnet50, resnet101, resnet152 and 6 more? `minicnn models resnet` "
                    "lists them"),
    (("resnte",), "did you mean resnet18, resnet34, resnet50, resnet101, resnet152 and 6 more?"),
    (("caffe",), "unknown model 'caffe': 'alexnet' has such a variant: write alexnet:caffe"),
    (("",), "unknown model '': `minicnn models` lists all"),
    (("alexnet:cafe",), "unknown variant 'cafe' of alexnet: did you mean 'caffe'? expected one of paper, authors"),
    (("alexnet:caffe", "paper"), "'alexnet:caffe' is the variant 'caffe', and variant 'paper' was asked for"),
    (("cifar_18pct:paper",), "unknown variant 'paper' of cifar_18pct: expected none, just cifar_18pct"),
])
def test_unknown_names(arguments, message):
    with pytest.raises(ConfigError) as error:
        build(*arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unknown_knobs():
    with pytest.raises(ConfigError, match="alexnet has no knob 'lrn_group': did you mean 'lrn_groups'"):
        build("alexnet", lrn_group=1)
    with pytest.raises(ConfigError, match="cifar_18pct has no knob 'lnr': did you mean 'lrn'"):
        build("cifar_18pct", lnr=False)


def test_every_variant_has_a_recipe_and_every_recipe_a_model():
    for name, variant in EVERY:
        assert MODELS[name].variants[variant].recipe in recipes_of(name)
    assert set(RECIPES) <= set(MODELS)
    for name, recipes in RECIPES.items():
        assert any(not entry.source for entry in recipes.values()), f"{name} has no recipe for small sets"
