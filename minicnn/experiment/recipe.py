"""The recipe of a run: the one that its settings name, with what was asked for in its place."""

from __future__ import annotations

from dataclasses import replace

from minicnn.data.dataset import ASPECT
from minicnn.data.preprocess import Preprocess
from minicnn.experiment.nets import data_of
from minicnn.experiment.settings import optimiser_of
from minicnn.train.recipe import AverageRecipe, NamedRecipe, Recipe, SGDRecipe, steady_output_lr
from minicnn.train.recipes import named_recipe
from minicnn.train.schedule import schedule_for

NO_UPRIGHT = ("elpv",)                              # a solar cell may be mirrored up-down; most photographs may not


def recipe_of(settings: dict, classes: int, crop: int) -> Recipe:
    """The recipe of a run on images of so many classes, by a network that takes crop x crop."""
    entry, lr = named_recipe(settings["model"], settings["recipe"]), settings["lr"]
    ours, frozen = entry.recipe, dict.fromkeys(settings["freeze"], 0.0)
    optimiser = optimiser_of(entry, settings["optimiser"])
    norm_decay = settings["norm_weight_decay"]
    steady = entry.steady and isinstance(optimiser, SGDRecipe)
    varied = {"updown": True, "transpose": entry.turned} if settings["data"] in NO_UPRIGHT else {}
    varied |= {name: tuple(value) if isinstance(value, list) else value for name, value in settings["augment"].items()}
    whole = {"resize": ASPECT} if settings["keep_aspect"] else {}
    return replace(
        ours, net=data_of(settings, classes), calibrate={} if settings["init_from"] else ours.calibrate,
        whiten="" if settings["init_from"] else ours.whiten,
        preprocess=replace(preprocess_for(settings, entry), crop=crop, size=None, **whole),
        augment=replace(ours.augment, **varied),
        optimiser=replace(optimiser, lr=lr, batch=settings["batch"], layer_lr=optimiser.layer_lr | frozen,
                          norm_decay=optimiser.norm_decay if norm_decay is None else norm_decay,
                          output_lr=steady_output_lr(lr, classes) if steady else optimiser.output_lr),
        schedule=_schedule(entry, settings),
        average=ours.average if settings["ema"] is None else AverageRecipe(settings["ema"]))


def preprocess_for(settings: dict, entry: NamedRecipe) -> Preprocess:
    """The recipe's; or that of the imported weights that the run begins with, since they expect it."""
    if settings["preprocess"] is None:
        return entry.recipe.preprocess
    return replace(Preprocess.from_dict(settings["preprocess"]), size=None)


def _schedule(entry: NamedRecipe, settings: dict):
    """The recipe's, or one of the kind that was asked for; with the warm-up that was asked for."""
    kind, warmup, epochs = settings["schedule"], settings["warmup"], settings["epochs"]
    schedule = schedule_for(kind, epochs) if kind else entry.schedule(epochs)
    return schedule if warmup is None else replace(schedule, warmup=warmup)
