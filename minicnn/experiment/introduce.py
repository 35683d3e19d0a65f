"""The first lines of a run: what is about to be trained, and where it departs from what was published."""

from __future__ import annotations

from minicnn.backend.cpu import thread_report
from minicnn.data.dataset import Splits
from minicnn.experiment import own_net
from minicnn.experiment.nets import in_words
from minicnn.experiment.say import say
from minicnn.graph import Net
from minicnn.models.registry import MODELS
from minicnn.train.recipe import Recipe, differences_in_words
from minicnn.train.recipes import DEFAULT, named_recipe, recipes_of

FEW_IMAGES = 20_000                             # fewer are too few for a recipe that was made for ImageNet


def introduce(settings: dict, splits: Splits, net: Net, recipe: Recipe, suggest: bool = False) -> None:
    """Say what the data, the network and the recipe are.   suggest: a better recipe, where there is one."""
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
    if own or named_recipe(settings["model"], settings["recipe"]).source:
        say("recipe", recipe_in_words(settings))
    if settings["schedule"] or settings["warmup"]:
        say("schedule", recipe.schedule.in_words())
    if suggest and (better := recipe_for_few(settings, len(splits.train))):
        say("hint", f"for a few thousand images: --recipe {better}")


def recipe_for_few(settings: dict, images: int) -> str | None:
    """Our own longest recipe for a few thousand images, where there are so few and the recipe is a published one."""
    known = recipes_of(settings["model"])
    ours = [name for name, entry in known.items() if not entry.source and name != DEFAULT]
    if images >= FEW_IMAGES or not ours or not known[settings["recipe"]].source:
        return None
    return max(ours, key=lambda name: known[name].epochs)


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
