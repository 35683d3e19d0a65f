"""What was trained, and how it differs from what was published."""

from __future__ import annotations

from minicnn.evaluate.protocols import PROTOCOLS
from minicnn.experiment.page import command
from minicnn.experiment.settings import named
from minicnn.models.registry import MODELS
from minicnn.report.run import Run
from minicnn.train.recipe import LAYER_LABELS, Recipe, differences_in_words
from minicnn.train.recipes import named_recipe


def overview(run: Run) -> dict:
    """Facts as plain values; the template words them."""
    optimiser, epochs = run.recipe.optimiser, run.epochs
    return {"model": run.model, "checkpoint": run.checkpoint.name, "epoch": run.meta["epoch"],
            "parameters": run.net.num_params, "macs": run.macs, "classes": run.classes, "data": run.data,
            "images": _counted(run, "train"), "held_out": _counted(run, "val"), "crop": run.recipe.preprocess.crop,
            "recipe": run.settings.get("recipe"), "epochs": run.settings.get("epochs") or run.meta["epoch"],
            "epochs_done": len(epochs), "batch": optimiser.batch, "lr": optimiser.lr, "weight_decay": optimiser.decay,
            "optimiser": optimiser.OPTIMISER.__name__, "momentum": getattr(optimiser, "momentum", None),
            "schedule": run.recipe.schedule.in_words(), "seed": run.meta["identity"]["seed"],
            "device": run.settings.get("device"), "ranks": run.settings.get("ranks"),
            "parallel": run.settings.get("parallel"), "averaged": bool(run.meta.get("average")),
            "init_from": run.settings.get("init_from"), "imported": run.meta.get("imported"),
            "minutes": sum(record["time"]["seconds"] for record in epochs) / 60,
            "test": _tested(run), "best": run.meta["best"], "command": _command(run)}


def _counted(run: Run, part: str) -> int | None:
    """The images of a part, from words such as "cats-dogs/train (2000 images, 6d214df311cf)"."""
    count = run.meta["identity"]["data"].get(part, "").rpartition("(")[2].partition(" ")[0]
    return int(count) if count.isdigit() else None


def _tested(run: Run) -> list[dict]:
    """The results of test.json: protocol, accuracies and loss."""
    labels = [protocol.label for protocol in PROTOCOLS.values()]
    return [{"protocol": name, **found} for name, found in (run.test or {}).items() if name in labels]


def _command(run: Run) -> str | None:
    """What starts this run again, with names in place of folders; None where the settings do not say."""
    if not run.settings.get("recipe") or not run.settings.get("data"):
        return None
    return command(["minicnn", "train", run.model], named(run.settings))


def differences(run: Run) -> dict | None:
    """{"recipe": its name, "source", "rows": (what, here, published), "lines"}; None for a net of one's own, and for
    imported weights.

    Published: the recipe of what the bare name of the model means. Knobs of single layers share a row.
    """
    if run.model not in MODELS or "imported" in run.meta:
        return None
    model = MODELS[run.model]
    published = named_recipe(run.model, model.variants[model.default].recipe)
    rows, here = [], run.settings.get("epochs")
    if here and here != published.epochs:
        rows.append(("epochs", str(here), str(published.epochs)))
    rows += _grouped(run.recipe, published.recipe)
    lines = list(model.differences(run.settings["variant"] or model.default))
    if model.two_gpus:
        as_printed = run.settings.get("parallel") == "columns" and run.settings.get("ranks") == 2
        lines.append(model.two_gpus[0 if as_printed else 1])
    variant = model.variants[model.default]
    return {"recipe": variant.recipe, "source": published.source or variant.source, "error": variant.error,
            "tested_on": model.tested_on, "apart": published.apart, "rows": rows, "lines": lines}


def _grouped(ours: Recipe, theirs: Recipe) -> list[tuple[str, str, str]]:
    """Differences, those of single layers in one row for each knob."""
    rows: dict[str, tuple[list[str], list[str]]] = {}
    for label, here, there in differences_in_words(ours, theirs):
        knob = next((knob for knob in LAYER_LABELS.values() if label.startswith(f"{knob} ")), None)
        layer = label.removeprefix(f"{knob} ") if knob else ""
        row = rows.setdefault((knob or label).removesuffix(" of"), ([], []))
        for cell, value in zip(row, (here, there), strict=True):
            cell.append(value if not knob else "–" if value == "no" else f"{layer} {value}")
    return [(label, *(", ".join(dict.fromkeys(cell)) for cell in cells)) for label, cells in rows.items()]
