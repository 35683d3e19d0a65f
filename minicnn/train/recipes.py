"""The recipes of the networks in minicnn/models, as plain data: RECIPES[model][name].

Published ones have the name that the model's variant gives them (minicnn/models/registry.py, where the published errors
are, too); what a recipe cannot say is written in `apart`. The others are this package's own, for sets of a few thousand
images; `default` is for every network, one's own included.
"""

from __future__ import annotations

from dataclasses import replace

from minicnn.data.augment import Augment
from minicnn.data.preprocess import Preprocess
from minicnn.errors import ConfigError, expected_one_of
from minicnn.train.recipe import PAPER, NamedRecipe, Recipe, SGDRecipe
from minicnn.train.recipes_descendants import DESCENDANTS
from minicnn.train.schedule import Cosine, StepDecay
from minicnn.train.watch.diagnostics import OTHER_WEIGHTS


def _alexnet(variant: str, augment: Augment, optimiser: SGDRecipe, schedule, **parts) -> Recipe:
    net = {"model": "alexnet", "variant": variant, "num_classes": 1000}
    return Recipe(net, augment=augment, optimiser=optimiser, schedule=schedule, **parts)


def _calibrated(lr: float, epochs: int) -> Recipe:
    """For a few thousand images: the initial weights are fitted to them."""
    return _alexnet("paper", Augment(crop=224),
                    SGDRecipe(lr=lr, batch=32, layer_lr={"fc6": 0.3, "fc7": 0.3, "fc8": 0.3}), Cosine(epochs=epochs),
                    calibrate={"conv1": 60, "conv2": 15, "conv3": 4, "conv4": 2, "conv5": 1, "fc6": 1, "fc7": 0.3,
                               "fc8": 0.05})


MANY_IMAGES = 300_000       # at least as many images as this are a set of ImageNet's size

STRETCHED = "learning rate, schedule and augmentation as published, the schedule stretched over --epochs"


def _cifar(published: NamedRecipe) -> dict[str, NamedRecipe]:
    """The published recipe of a network for CIFAR-10, and one that gets further in an hour."""
    theirs = published.recipe
    ours = replace(theirs, augment=replace(theirs.augment, flip=True),
                   optimiser=replace(theirs.optimiser, lr=4 * theirs.optimiser.lr), schedule=Cosine(epochs=60))
    return {"quick": NamedRecipe(ours, 60, about="four times the learning rate, falling to 0 as half a cosine, and "
                                 "mirror images", stretched=True, images=50_000),
            "published": published}


ALEXNET: dict[str, NamedRecipe] = {
    # A few thousand images want a higher learning rate, falling to 0, and smaller batches.
    "short": NamedRecipe(_alexnet("paper", Augment(crop=224), SGDRecipe(lr=0.03, batch=32), Cosine(epochs=3)), 3,
                         about="3 epochs on a few thousand images", stretched=True, steady=True),

    # With the paper's initialisation, these learn the brightness of an image and little else; see calibrate.py.
    "quick": NamedRecipe(_calibrated(lr=0.006, epochs=6), 6, stretched=True, turned=True,
                         about="6 epochs on a few thousand images, initialised to fit them: two minutes"),
    "long": NamedRecipe(_calibrated(lr=0.004, epochs=26), 26, stretched=True, turned=True, images=2_300,
                        about="26 epochs on a few thousand images, initialised to fit them"),

    "paper": NamedRecipe(PAPER, 90, "section 5 of the paper"),

    "authors": NamedRecipe(
        _alexnet("authors", Augment(crop=224, colour="authors"), SGDRecipe(), StepDecay(epochs=(25, 51, 79))), 91,
        "layers/layer-params-145.cfg of the released code, with the log at its end",
        "the learning rate of biases is never lowered; conv1 is a step ahead (1e-5 at epoch 67) and frozen at 72; "
        "colour shifts end at 67; 32 images share one crop; the centre of the mean image is subtracted from each"),

    "caffe": NamedRecipe(                       # its solver has the learning rate inside the velocity, as the paper
        _alexnet("caffe", Augment(crop=227), SGDRecipe(lr=0.01, batch=256), StepDecay(epochs=(20, 40, 60, 80))), 90,
        "BVLC/caffe: models/bvlc_alexnet/solver.prototxt (a step is 100,000 batches of 256) and readme.md",
        "images are squashed to 256 x 256, channels are BGR"),

    "ungrouped": NamedRecipe(_alexnet("ungrouped", PAPER.augment, PAPER.optimiser, PAPER.schedule), 90, "the paper's"),

    "torchvision": NamedRecipe(
        _alexnet("torchvision", Augment(crop=224), SGDRecipe(lr=0.01, decay=1e-4, batch=256, lr_in_velocity=False),
                 StepDecay(epochs=(30, 60))), 90,
        "pytorch/examples: imagenet/main.py and README.md (alexnet: --lr 0.01)",
        "crops are of random size and shape; pixels are scaled to a standard deviation of 1"),
}

RECIPES: dict[str, dict[str, NamedRecipe]] = {
    "alexnet": ALEXNET,

    "cifar_18pct": _cifar(NamedRecipe(
        Recipe({"model": "cifar_18pct", "num_classes": 10}, augment=Augment(crop=32, flip=False),
               optimiser=SGDRecipe(lr=0.001, decay=0.004), schedule=StepDecay(epochs=(120, 130))), 140,
        "dnouri/cuda-convnet: example-layers/layer-params-18pct.cfg",
        about=STRETCHED, stretched=True)),

    "cifar_paper": _cifar(NamedRecipe(
        Recipe({"model": "cifar_paper", "num_classes": 10}, augment=Augment(crop=24),
               optimiser=SGDRecipe(lr=0.001, decay=0.004), schedule=StepDecay(epochs=(500, 510))), 520,
        "dnouri/cuda-convnet: example-layers/layer-params-conv-local-11pct.cfg and -13pct.cfg",
        "the first 350 epochs leave out a fifth of the images, for validation; tested on ten crops",
        about=STRETCHED, stretched=True)),

    **DESCENDANTS,
}

DEFAULT = "default"
FOR_EVERY_NET = {DEFAULT: NamedRecipe(
    Recipe({}, preprocess=Preprocess(size=None, std=(64.0, 64.0, 64.0)), optimiser=SGDRecipe(lr=0.01, batch=32),
           schedule=Cosine(epochs=10)), 10,
    about="10 epochs with momentum 0.9, the learning rate falling from 0.01 to 0 as half a cosine; pixels minus the "
          "mean image, divided by 64", stretched=True)}


def recipes_of(model: str) -> dict[str, NamedRecipe]:
    """The recipes by which this network can be trained, by name; for one's own network, the default one."""
    return RECIPES.get(model, {}) | FOR_EVERY_NET


def recipe_for(model: str, published: str, images: int) -> str:
    """The name of the recipe for a training set of this size: `published`, where there are as many as it is for; else
    the longest of our own."""
    ours = {name: entry.epochs for name, entry in RECIPES.get(model, {}).items() if entry.images}
    return max(ours, key=ours.get) if ours and images < MANY_IMAGES else published


def other_weights(recipe: Recipe) -> str:
    """What to try in place of the initial weights of this recipe, in words."""
    if recipe.calibrate:
        return "try another seed"
    fitted = [name for name, entry in RECIPES.get(recipe.net.get("model"), {}).items() if entry.recipe.calibrate]
    return f"try initial weights fitted to the images (--recipe {fitted[-1]})" if fitted else OTHER_WEIGHTS


def named_recipe(model: str, name: str) -> NamedRecipe:
    """The recipe of this name for this network. Raises ConfigError for one that does not exist."""
    known = recipes_of(model)
    if name not in known:
        raise ConfigError(f"unknown recipe {name!r}: {expected_one_of(name, known)}")
    return known[name]
