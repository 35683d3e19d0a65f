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
from minicnn.train.recipe import Recipe, differences_in_words
from minicnn.train.recipes import named_recipe


def introduce(settings: dict, splits: Splits, net: Net, recipe: Recipe, chosen: bool = False) -> None:
    """Say what the data, the network and the recipe are.   chosen: the recipe is one that nobody asked for."""
    say("data", splits.description)
    say("licence", splits.licence)
    say("net", f"{in_words(settings)}: {net.num_params:,} parameters, {len(splits.classes)} classes")
    say("device", f"{net.ops.spec}, {thread_report()}")
    if settings["parallel"] != "none":
        say("parallel", f"{settings['parallel']} on {settings['ranks']} ranks, {net.ops.spec} each; batch and learning "
                        "rate are those of all ranks together")
    own = own_net.is_own(settings["model"])
    if not own:
        say("differences", "; ".join(differences(settings, recipe)))
    entry = named_recipe(settings["model"], settings["recipe"])
    if chosen and entry.images:
        say("recipe", fitted_in_words(settings, recipe, len(splits.train)))
    elif own or entry.source:
        say("recipe", recipe_in_words(settings))
    if settings["optimiser"]:
        say("optimiser", optimiser_in_words(recipe))
    if settings["schedule"] or settings["warmup"]:
        say("schedule", recipe.schedule.in_words())


def fitted_in_words(settings: dict, recipe: Recipe, images: int) -> str:
    """Why this recipe, what is in it, and how to get the published one."""
    published = MODELS[settings["model"]].variants[settings["variant"]].recipe
    return (f"{settings['recipe']}, fitted to {images:,} training images: {plural(settings['epochs'], 'epoch')}, batch "
            f"{settings['batch']}, learning rate {settings['lr']:g}, {recipe.schedule.in_words()}"
            + (", initial weights fitted to the images" if recipe.calibrate else "")
            + f" (the published one: --recipe {published})")


def optimiser_in_words(recipe: Recipe) -> str:
    """Such as "AdamW, learning rate 0.001, weight decay 0.01"."""
    optimiser = recipe.optimiser
    return f"{optimiser.OPTIMISER.__name__}, learning rate {optimiser.lr:g}, weight decay {optimiser.decay:g}"


def differences(settings: dict, recipe: Recipe) -> list[str]:
    """Where a run of a published network departs from what the bare name of its model means."""
    model = MODELS[settings["model"]]
    name = model.variants[model.default].recipe
    published = named_recipe(settings["model"], name)
    lines = [f"epochs {settings['epochs']} ({name}: {published.epochs})",
             *differences_in_words(recipe, published.recipe, name), *model.differences(settings["variant"])]
    if model.two_gpus:
        as_printed = settings["parallel"] == "columns" and settings["ranks"] == 2
        lines.append(model.two_gpus[0 if as_printed else 1])
    return lines


def recipe_in_words(settings: dict) -> str:
    """What the recipe is; of a published one also where it is printed, what it reached, and what it leaves out."""
    entry = named_recipe(settings["model"], settings["recipe"])
    if not entry.source:
        return f"{settings['recipe']}: {entry.about}"
    model = MODELS[settings["model"]]
    error = next(variant.error for variant in model.variants.values() if variant.recipe == settings["recipe"])
    return (f"{settings['recipe']}: {entry.epochs} epochs; error on {model.tested_on}: {error} ({entry.source})"
            + (f". What it leaves out: {entry.apart}" if entry.apart else ""))
