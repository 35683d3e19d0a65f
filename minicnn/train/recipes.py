"""The published recipes of the networks in minicnn/models, as plain data: every variant of AlexNet, and the CIFAR nets.

`Recipe.net` names a function of minicnn.models and its arguments. What a recipe cannot say is written in `apart`.
Errors are those of the source: top-1 / top-5 on the ImageNet 2012 validation set, or on the CIFAR-10 test set.
"""

from __future__ import annotations

from dataclasses import dataclass

from minicnn.data.augment import Augment
from minicnn.errors import ConfigError
from minicnn.train.recipe import PAPER, Recipe, SGDRecipe
from minicnn.train.schedule import StepDecay


@dataclass(frozen=True)
class Published:
    """A recipe, how many epochs it ran, what it reached, where it stands, and what of it is not in the recipe."""

    recipe: Recipe
    epochs: int
    error: str
    source: str
    apart: str = ""


def _alexnet(variant: str, augment: Augment, sgd: SGDRecipe, schedule) -> Recipe:
    net = {"model": "alexnet", "variant": variant, "num_classes": 1000}
    return Recipe(net, augment=augment, sgd=sgd, schedule=schedule)


RECIPES: dict[str, Published] = {
    "paper": Published(PAPER, 90, "40.7 / 18.2, ten crops", "section 5 of the paper"),

    "authors": Published(
        _alexnet("authors", Augment(crop=224, colour="authors"), SGDRecipe(), StepDecay(epochs=(25, 51, 79))),
        91, "40.66 / 18.21, ten crops",
        "layers/layer-params-145.cfg of the released code, with the log at its end",
        "the rate of biases is never lowered; conv1 is a step ahead (1e-5 at epoch 67) and frozen at 72; colour shifts "
        "end at 67; 32 images share one crop; the centre of the mean image is subtracted from every crop"),

    "caffe": Published(
        _alexnet("caffe", Augment(crop=227), SGDRecipe(lr=0.01, batch=256), StepDecay(epochs=(20, 40, 60, 80))),
        90, "42.9 / 19.8, centre crop",
        "BVLC/caffe: models/bvlc_alexnet/solver.prototxt (a step is 100,000 batches of 256) and readme.md",
        "images are squashed to 256 x 256, channels are BGR"),

    "ungrouped": Published(
        _alexnet("ungrouped", PAPER.augment, PAPER.sgd, PAPER.schedule), 90, "not published", "the paper's"),

    "torchvision": Published(
        _alexnet("torchvision", Augment(crop=224), SGDRecipe(lr=0.01, decay=1e-4, batch=256),
                 StepDecay(epochs=(30, 60))),
        90, "43.48 / 20.93, centre crop",
        "pytorch/examples: imagenet/main.py and README.md (alexnet: --lr 0.01)",
        "crops are of random size and shape; pixels are scaled to a deviation of 1; v <- m v + g, w <- w - lr v"),

    "cifar-18pct": Published(
        Recipe({"model": "cifar_18pct"}, augment=Augment(crop=32, flip=False), sgd=SGDRecipe(lr=0.001, decay=0.004),
               schedule=StepDecay(epochs=(120, 130))),
        140, "18 %", "dnouri/cuda-convnet: example-layers/layer-params-18pct.cfg"),

    "cifar-paper": Published(
        Recipe({"model": "cifar_paper", "lrn": True}, augment=Augment(crop=24), sgd=SGDRecipe(lr=0.001, decay=0.004),
               schedule=StepDecay(epochs=(500, 510))),
        520, "11 %; 13 % with lrn=False",
        "dnouri/cuda-convnet: example-layers/layer-params-conv-local-11pct.cfg and -13pct.cfg",
        "the first 350 epochs leave out a fifth of the images, for validation; tested on ten crops"),
}


def published(name: str) -> Published:
    """The entry called `name`. Raises ConfigError for one that does not exist."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]
