"""The settings of a run, as plain data: what was asked for, else what a resumed run was begun with, else the defaults.

A checkpoint holds them as "about". In those of version 0.1.0 the network is in the recipe alone.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from minicnn.errors import ConfigError, expected_one_of
from minicnn.experiment import augmentation, own_net
from minicnn.experiment.imported import preprocess_of
from minicnn.experiment.nets import resolve
from minicnn.experiment.options import device_of
from minicnn.models.registry import MODELS, full_name
from minicnn.train.recipe import OPTIMISERS, NamedRecipe, OptimiserRecipe
from minicnn.train.recipes import DEFAULT, named_recipe, recipe_for, recipes_of
from minicnn.train.runs.run_dir import BEST, find_checkpoint, read_settings
from minicnn.train.schedule import SCHEDULES

OF_RECIPE = ("epochs", "batch", "lr")               # what of a recipe can be asked for
OF_SCHEDULE = ("schedule", "warmup")                # likewise; None: the recipe's
OF_OPTIMISER = ("optimiser", "norm_weight_decay", "ema")
DEFAULTS = {"model": None, "variant": None, "knobs": {}, "data": "elpv", "size": None, "seed": 0, "device": "auto",
            "threads": None, "parallel": "none", "ranks": None, "init_from": None, "new_head": False, "freeze": (),
            "keep_aspect": False, "augment": {}, "preprocess": None,
            **dict.fromkeys(OF_SCHEDULE + OF_OPTIMISER)}
PACKAGED = ("elpv", "synthetic")                    # sets that are no folders; a few thousand images
QUICK = "quick"                                     # the recipe for them, where the model has one of that name


def settle(options: argparse.Namespace, checkpoint: Path | None = None) -> dict:
    """The settings of a run; `checkpoint` is of the run to go on with, or to evaluate.

    Raises ConfigError for what does not exist, or does not go together, before any work is done.
    """
    given = {name: value for name in (*DEFAULTS, *OF_RECIPE, "recipe")
             if (value := getattr(options, name, None)) is not None}
    if "freeze" in given:
        given["freeze"] = [name for name in given["freeze"].split(",") if name]
    if "augment" in given:
        given["augment"] = augmentation.parsed(given["augment"])
    if "new_head" in given and "init_from" not in given:
        raise ConfigError("--new-head keeps a fresh output layer beside another run's weights: add --init-from RUN")
    if "init_from" in given:
        if checkpoint:
            raise ConfigError("--init-from begins a run and --resume goes on with one: choose one of them")
        given["init_from"] = str(find_checkpoint(options.out, given["init_from"], BEST))
    if "data" in given and given["data"] not in PACKAGED:
        given["data"] = os.path.abspath(given["data"])
    begun_with = read_about(checkpoint) if checkpoint else {}
    settings = {**DEFAULTS, **begun_with, **given}
    if getattr(options, "precision", None):                     # it may replace that of a run which goes on
        settings["device"] = device_of(options, given.get("device", settings["device"].partition(":")[0]))
    if checkpoint and getattr(options, "resume", None) is not None:
        _check_same_model(checkpoint, begun_with["model"], given.get("model"))
    settings["model"], settings["variant"] = _which_net(given, begun_with)
    if "init_from" in given:
        own = settings["model"] not in MODELS
        settings["preprocess"] = preprocess_of(given["init_from"], None if own else full_name(
            settings["model"], settings["variant"]))
    if settings["data"] is None:
        raise ConfigError(f"{checkpoint}: does not say where its images are: add --data DIR (it was trained on "
                          f"{read_settings(checkpoint)['identity']['data']['train']})")
    check_optimiser(settings["optimiser"], settings["ema"], settings["norm_weight_decay"])
    return check_numbers(complete(settings))


def _check_same_model(checkpoint: Path, was: str | None, asked: str | None) -> None:
    """ConfigError where a run is to go on with another model than its own."""
    def known(model: str) -> str | None:
        return own_net.short(model) if own_net.is_own(model) else resolve(model)[0]

    if was and asked and (was in MODELS or own_net.is_own(was)) and known(was) != known(asked):
        raise ConfigError(f"{checkpoint}: is a run of {known(was)}, and {known(asked)} was named; leave the model out "
                          "to go on with the run, or leave --resume out")


def _which_net(given: dict, begun_with: dict) -> tuple[str, str]:
    """Model and variant."""
    if not given.get("model") and not begun_with.get("model"):
        raise ConfigError(f"no model was named: expected one of the {len(MODELS)} that `minicnn models` lists, such as "
                          "alexnet or resnet20, one with a variant (MODEL:VARIANT), or FILE.py:FUNCTION")
    if "model" not in given and not own_net.is_own(begun_with["model"]) and begun_with["model"] not in MODELS:
        return begun_with["model"], ""              # of a net that its checkpoint describes
    same = "model" not in given or begun_with.get("model") == given["model"]
    variant = given.get("variant") or (begun_with.get("variant") if same else None)
    return resolve(given.get("model") or begun_with["model"], variant)


def check_numbers(settings: dict) -> dict:
    """The settings; ConfigError for epochs, a learning rate, its schedule, a seed or a size that nothing can be done
    with."""
    epochs, lr, seed, size = (settings.get(name) for name in ("epochs", "lr", "seed", "size"))
    if epochs is not None and epochs < 1:
        raise ConfigError(f"--epochs must be at least 1, got {epochs}")
    if lr is not None and not 0 < lr < math.inf:
        raise ConfigError(f"--lr: the learning rate must be positive and finite, got {lr:g}")
    check_schedule(settings["schedule"], settings["warmup"], epochs)
    if seed < 0:
        raise ConfigError(f"--seed must be 0 or more, got {seed}")
    if size is not None and size < 1:
        raise ConfigError(f"--size must be at least 1, got {size}")
    return settings


def check_schedule(kind: str | None, warmup: float | None, epochs: int | None) -> None:
    """ConfigError for a schedule that does not exist, or a warm-up that does not fit into the epochs, once known."""
    if kind is not None and kind not in SCHEDULES:
        raise ConfigError(f"--schedule: unknown schedule {kind!r}: {expected_one_of(kind, SCHEDULES)}")
    if warmup is not None and not 0 <= warmup <= (math.inf if epochs is None else epochs):
        most = "0 or more epochs" if epochs is None else f"from 0 to the {epochs} epochs of the run"
        raise ConfigError(f"--warmup must be {most}, got {warmup:g}")
    if warmup and kind == "onecycle":
        raise ConfigError(f"--warmup {warmup:g} rises to the factor that onecycle begins with, 1/25 of the learning "
                          "rate, and onecycle rises from there by itself: leave --warmup out, or choose --schedule "
                          "cosine")


def check_optimiser(kind: str | None, ema: float | None, norm_decay: float | None) -> None:
    """ConfigError for an optimiser that does not exist, a factor that is none of an average, or a weight decay that is
    none."""
    if kind is not None and kind not in OPTIMISERS:
        raise ConfigError(f"--optimiser: unknown optimiser {kind!r}: {expected_one_of(kind, OPTIMISERS)}")
    if ema is not None and not 0 <= ema < 1:
        raise ConfigError(f"--ema must lie in [0, 1), such as 0.999, got {ema:g}")
    if norm_decay is not None and not 0 <= norm_decay < math.inf:
        raise ConfigError(f"--norm-weight-decay must be 0 or more, got {norm_decay:g}")


def complete(settings: dict, images: int | None = None) -> dict:
    """The settings with those that the recipe gives: its name, knobs of the net, epochs, batch and learning rate.

    images: in the training set; while it is not known, a recipe that depends on it is left open.
    """
    name = settings.get("recipe") or default_recipe(settings, images)
    if name is None:
        return settings
    entry = named_recipe(settings["model"], name)
    epochs = entry.epochs if images is None or settings.get("recipe") else entry.epochs_for(images)
    optimiser = optimiser_of(entry, settings["optimiser"])
    given = images is None or settings.get("recipe") or "batch" in settings
    batch = optimiser.batch if given else fitting_batch(optimiser.batch, images)
    lr = optimiser.lr * (batch / optimiser.batch)
    knobs = knobs_of(entry.recipe.net) | settings["knobs"]
    return {"epochs": epochs, "batch": batch, "lr": lr, **settings, "recipe": name, "knobs": knobs}


def fitting_batch(batch: int, images: int) -> int:
    """The batch of a recipe, halved until an epoch has two batches: one may leave out nearly half the images."""
    while batch > 1 and 2 * batch > images:
        batch //= 2
    return batch


def optimiser_of(entry: NamedRecipe, kind: str | None) -> OptimiserRecipe:
    """The recipe's optimiser; or another kind that was asked for, with its usual learning rate and weight decay."""
    ours = entry.recipe.optimiser
    if kind is None or OPTIMISERS[kind] is type(ours):
        return ours
    return OPTIMISERS[kind](batch=ours.batch, output_lr=ours.output_lr, layer_lr=ours.layer_lr)


def default_recipe(settings: dict, images: int | None = None) -> str | None:
    """The recipe where none was asked for: one that fits the size of the set; None where that is not known yet."""
    model, variant = settings["model"], settings["variant"]
    if settings["data"] in PACKAGED:
        return QUICK if QUICK in recipes_of(model) else DEFAULT
    if images is None:
        return None
    return recipe_for(model, MODELS[model].variants[variant].recipe, images) if model in MODELS else DEFAULT


def read_about(checkpoint: Path) -> dict:
    """The settings that the run of a checkpoint was begun with."""
    return about_of(read_settings(checkpoint))


def about_of(meta: dict) -> dict:
    """The same of a checkpoint's metadata. data: None where it does not say, as in runs that were made in Python."""
    net = meta["recipe"]["net"]
    name = net.get("model") or (meta.get("net") or {}).get("name")
    return {**DEFAULTS, "data": None, "model": name, "variant": net.get("variant"), "knobs": knobs_of(net),
            **meta["about"]}


def knobs_of(net: dict) -> dict:
    """The options of a network, as a recipe holds it."""
    return {knob: value for knob, value in net.items() if knob not in ("model", "variant", "num_classes")}


def named(settings: dict) -> dict:
    """The settings with names in place of paths."""
    begun = settings["init_from"] and Path(settings["init_from"]).parent.name
    return {**settings, "model": own_net.short(settings["model"]), "data": Path(settings["data"]).name,
            "init_from": begun}
