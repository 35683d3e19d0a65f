"""The first lines of a run: what is about to be trained, and where it departs from what was published."""

from __future__ import annotations

from minicnn.backend.cpu import thread_report
from minicnn.data.dataset import Splits
from minicnn.errors import plural
from minicnn.experiment import own_net
from minicnn.experiment.nets import in_words
from minicnn.experiment.say import say
from minicnn.graph import Net
from minicnn.models.registry import MODELS
from minicnn.train.recipe import LAYER_LABELS, OptimiserRecipe, Recipe, SGDRecipe, differences_in_words
from minicnn.train.recipes import named_recipe

# Labels of what the line "recipe" says, or "net".
SAID = ("epochs", "batch", "optimiser", "learning rate", "learning rate schedule", "weight decay", "momentum")
SAID_OF_LAYERS = (*LAYER_LABELS.values(), "moving average", "EMA", "classes", "divided by", "betas", "epsilon")


def introduce(settings: dict, splits: Splits, net: Net, recipe: Recipe, chosen: bool = False) -> None:
    """Say what the data, the network and the recipe are.   chosen: the recipe is one that nobody asked for."""
    say("data", splits.description)
    say("licence", splits.licence)
    say("net", f"{in_words(settings)}: {net.num_params:,} parameters, {len(splits.classes)} classes")
    say("device", f"{net.ops.spec}, {thread_report()}")
    if settings["parallel"] != "none":
        say("parallel", f"{settings['parallel']} on {settings['ranks']} ranks, {net.ops.spec} each; batch and learning "
                        "rate are those of all ranks together")
    say("recipe", recipe_in_words(settings, recipe, len(splits.train), chosen))
    if not own_net.is_own(settings["model"]):
        say("differences", differences(settings, recipe))


def recipe_in_words(settings: dict, recipe: Recipe, images: int, chosen: bool = False) -> str:
    """What will be done; of a published recipe also where it is printed, what it reached, and what it leaves out."""
    name, entry = settings["recipe"], named_recipe(settings["model"], settings["recipe"])
    will = f"{name}: {steps_in_words(settings, recipe)}"
    if entry.source:
        model = MODELS[settings["model"]]
        own = model.variants[settings["variant"]]           # several variants may have one recipe
        error = next(variant.error for variant in (own, *model.variants.values()) if variant.recipe == name)
        apart = f". What it leaves out: {entry.apart}" if entry.apart else ""
        return f"{will}. Published: {entry.epochs} epochs; error on {model.tested_on}: {error} ({entry.source}){apart}"
    if not (chosen and entry.images):
        return will
    published = MODELS[settings["model"]].variants[settings["variant"]].recipe
    return (f"{name}, fitted to {images:,} training images{will.removeprefix(name)} (the published one: --recipe "
            f"{published})")


def steps_in_words(settings: dict, recipe: Recipe) -> str:
    """Such as "5 epochs, batch 32, SGD with momentum 0.9, learning rate 0.01, weight decay 0.0005, cosine over ..."."""
    optimiser, std = recipe.optimiser, recipe.preprocess.std
    momentum = f" with momentum {optimiser.momentum:g}" if isinstance(optimiser, SGDRecipe) else ""
    return ", ".join(filter(None, (
        plural(settings["epochs"], "epoch"), f"batch {optimiser.batch}", f"{optimiser.OPTIMISER.__name__}{momentum}",
        f"learning rate {optimiser.lr:g}{_by_layer(optimiser.layer_lr)}",
        f"weight decay {optimiser.decay:g}{_of_norms(optimiser)}", recipe.schedule.in_words(),
        recipe.average and f"moving average of the weights (EMA) of factor {recipe.average.factor:g}",
        recipe.calibrate and "initial weights fitted to the images",
        std and f"pixels divided by {' '.join(f'{value:g}' for value in dict.fromkeys(std))}")))


def _of_norms(optimiser: OptimiserRecipe) -> str:
    """The weight decay of batch normalisation, where it has one of its own."""
    return "" if optimiser.norm_decay is None else f" ({optimiser.norm_decay:g} in batch normalisation)"


def _by_layer(factors: dict[str, float]) -> str:
    """Such as " (frozen: conv1, times 0.3 in fc6 fc7)"."""
    layers = {factor: " ".join(name for name in factors if factors[name] == factor) for factor in factors.values()}
    said = [f"times {factor:g} in {names}" if factor else f"frozen: {names}" for factor, names in layers.items()]
    return f" ({', '.join(said)})" if said else ""


def differences(settings: dict, recipe: Recipe) -> str:
    """Where a run of a published network departs from what the bare name of its model means.

    What the recipe's line has said is not repeated: of that, the published values.
    """
    model = MODELS[settings["model"]]
    name = model.variants[model.default].recipe
    published = named_recipe(settings["model"], name)
    found = differences_in_words(recipe, published.recipe)
    there = [f"epochs {published.epochs}"] * (settings["epochs"] != published.epochs)
    there += [f"{label} {theirs}" for label, _, theirs in found if label in SAID and theirs != "no"]
    here = list(dict.fromkeys(_here(label, ours) for label, ours, _ in found
                              if label not in SAID and not label.startswith(SAID_OF_LAYERS)))
    here += model.differences(settings["variant"])
    if model.two_gpus:
        as_printed = settings["parallel"] == "columns" and settings["ranks"] == 2
        here.append(model.two_gpus[0 if as_printed else 1])
    return "; ".join(filter(None, (there and f"{name} has {', '.join(there)}", here and f"here: {'; '.join(here)}")))


def _here(label: str, value: str) -> str:
    """Such as "cutout 8", "vertical flip" and "no lookahead", whose settings need not be named."""
    return f"no {label.partition(', ')[0]}" if value == "no" else label if value == "yes" else f"{label} {value}"
