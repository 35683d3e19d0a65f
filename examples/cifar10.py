"""Trains the small networks of the AlexNet paper on CIFAR-10, and keeps a page of what each run reached.

DIR is CIFAR-10 as images in class folders, DIR/train/<class>/ and DIR/test/<class>/. A tenth of train/ is set apart:
its error chooses the checkpoint, and the test images are looked at once, at the end. The published recipes take 140 and
520 epochs; by default the rate begins four times higher and falls as half a cosine, for runs of an hour or so.
The networks and their sources are in minicnn/models/cifar.py, the recipes in minicnn/train/recipes.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np

from minicnn import models
from minicnn.backend.cpu import set_threads
from minicnn.cores import available_cores
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.errors import ConfigError, MinicnnError
from minicnn.evaluate.evaluate import evaluate
from minicnn.models.cifar import ACTIVATIONS
from minicnn.train.loop import BEST, LAST, METRICS, Trainer
from minicnn.train.recipe import Recipe
from minicnn.train.recipes import published
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.runs.results import add_to_page, check_page, machine
from minicnn.train.runs.run_dir import new_run_dir, restore
from minicnn.train.schedule import Cosine
from minicnn.visualize.report import draw_progress

NETS = {"18pct": "cifar-18pct", "paper": "cifar-paper"}        # --net -> the published recipe
RECIPES = {"published": "rate, schedule and augmentation as published, the schedule stretched over --epochs",
           "quick": "four times the rate, falling to 0 as half a cosine, and mirror images"}
SIZE = 32


def recipe_of(net: str, lrn: bool, activation: str, classes: int, epochs: int, name: str) -> Recipe:
    """How this net is trained, by the recipe of that name."""
    entry = published(NETS[net])
    recipe = dataclasses.replace(entry.recipe, net={**entry.recipe.net, "lrn": lrn, "activation": activation,
                                                    "num_classes": classes})
    if name == "quick":
        return dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, flip=True),
                                   sgd=dataclasses.replace(recipe.sgd, lr=4 * recipe.sgd.lr),
                                   schedule=Cosine(epochs=epochs))
    drops = tuple(epochs * epoch / entry.epochs for epoch in recipe.schedule.epochs)
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, epochs=drops))


def run(options: argparse.Namespace, splits, seed: int) -> dict | None:
    """One run from the first step to the test images: what the page tells of it; None when it was interrupted."""
    recipe = recipe_of(options.net, options.lrn, options.activation, len(splits.classes), options.epochs,
                       options.recipe)
    build = getattr(models, recipe.net["model"])
    net = build(**{knob: value for knob, value in recipe.net.items() if knob != "model"}, seed=seed,
                device=options.device)
    stem = f"{NETS[options.net]}{'' if options.lrn else '-no-lrn'}{'' if options.activation == 'relu' else '-tanh'}"
    run_dir = new_run_dir(options.out, None, f"{stem}-seed{seed}")
    began = time.perf_counter()
    trainer = Trainer(net, recipe, splits.train, splits.val, run_dir, about={"command": command(options, seed)},
                      on_epoch=lambda: draw_progress(run_dir, f"{net.name} on CIFAR-10, seed {seed}"))
    if trainer.fit(options.epochs).interrupted:
        print(f"stopped; what was learned is in {run_dir / LAST}")
        return None
    minutes = (time.perf_counter() - began) / 60
    feed, saved = restore(net, run_dir / BEST, splits.classes)
    whole = recipe.preprocess.crop == SIZE          # then the ten crops are the image and its mirror image, five times
    views = {"whole image" if whole else "centre crop": False}
    views |= {"and its mirror image" if whole else "ten crops": True} if recipe.augment.flip else {}
    errors = {name: round(1 - evaluate(net, splits.test, feed, ten_crop=ten).top1, 6) for name, ten in views.items()}
    validation = [record["val"] for record in read_metrics(run_dir / METRICS) if record["kind"] == "epoch"]
    report = {knob: getattr(options, knob) for knob in ("net", "lrn", "activation", "recipe", "epochs")}
    report |= {"seed": seed, "note": options.note, "best_epoch": saved.meta["epoch"], "minutes": minutes,
               "test": errors, "val": [round(1 - record["top1"], 6) for record in validation],
               "command": command(options, seed), "machine": machine(net.ops.spec)}
    (run_dir / "test.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{run_dir}: {in_words(report)}, best checkpoint of epoch {saved.meta['epoch']}, {minutes:.1f} minutes")
    return report


def command(options: argparse.Namespace, seed: int) -> str:
    """What starts this one run again."""
    parts = ["python", "examples/cifar10.py", Path(options.data).name, "--net", options.net,
             "--recipe", options.recipe, "--epochs", str(options.epochs), "--seeds", str(seed)]
    return shlex.join([*parts, *([] if options.lrn else ["--no-lrn"]),
                       *([] if options.activation == "relu" else ["--activation", options.activation]),
                       *([] if options.device == "auto" else ["--device", options.device])])


def in_words(report: dict) -> str:
    return "test error " + ", ".join(f"{100 * error:.2f} % ({name})" for name, error in report["test"].items())


def order(report: dict):
    """Reports stand in this order."""
    return report["net"], report["recipe"], report["activation"], report["epochs"], not report["lrn"], report["seed"]


def page(reports: list[dict]) -> list[str]:
    """What the page says of them, in Markdown."""
    lines = ["# CIFAR-10, the small networks of the AlexNet paper", "",
             "Written by `examples/cifar10.py --results`; nothing here is by hand. A tenth of the training images "
             "chose the checkpoint.", *sorted({report["note"] for report in reports} - {""}), "",
             *(f"Recipe `{name}`: {words}." for name, words in RECIPES.items()), ""]
    for net, name in NETS.items():
        if mine := [report for report in reports if report["net"] == net]:
            entry = published(name)
            lines += [f"## `{name}`", "", f"Published test error: {entry.error}; {entry.epochs} epochs on all training "
                      f"images ({entry.source}).", "", *_table(mine), ""]
    return lines


def _table(reports: list[dict]) -> list[str]:
    lines = ["| recipe | normalisation | non-linearity | epochs | seed | best epoch | validation error | test error | "
             "minutes |", "|---|---|---|---|---|---|---|---|---|"]
    groups: dict[tuple, list[dict]] = {}
    for report in reports:
        groups.setdefault(tuple(report[knob] for knob in ("recipe", "lrn", "activation", "epochs")), []).append(report)
    for (recipe, lrn, activation, epochs), group in groups.items():
        first = f"| {recipe} | {'LRN' if lrn else 'none'} | {activation} | {epochs} |"
        for report in group:
            lines.append(f"{first} {report['seed']} | {report['best_epoch']} | "
                         f"{100 * report['val'][report['best_epoch'] - 1]:.2f} % | {_percent([report])} | "
                         f"{report['minutes']:.0f} |")
        if len(group) > 1:
            lines.append(f"{first} **mean of {len(group)}** | | | **{_percent(group)}** | |")
    return lines


def _percent(reports: list[dict]) -> str:
    return ", ".join(f"{100 * np.mean([report['test'][name] for report in reports]):.2f} % ({name})"
                     for name in reports[0]["test"])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, usage="%(prog)s DIR [options]",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DIR", help="CIFAR-10 in class folders")
    parser.add_argument("--net", choices=NETS, default="18pct", help="18pct: cuda-convnet's 18 %% net; paper: the "
                        "four-layer net of section 3.3, 11 %% (default: 18pct)")
    parser.add_argument("--no-lrn", dest="lrn", action="store_false", help="without response normalisation")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--recipe", choices=RECIPES, default="quick", help="; ".join(
        f"{name}: {words}" for name, words in RECIPES.items()) + " (default: quick)")
    parser.add_argument("--epochs", metavar="N", type=int, default=60, help="default: 60")
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or reference (default: auto)")
    parser.add_argument("--threads", metavar="N", type=int, help="of the processor (default: all cores)")
    parser.add_argument("--out", metavar="DIR", default="runs", help="folder of all runs (default: runs)")
    parser.add_argument("--results", metavar="FILE", type=Path, help="add the runs to the page FILE.md (and FILE.json)")
    parser.add_argument("--note", metavar="TEXT", default="", help="what its readers should know of these images")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        set_threads(options.threads or available_cores())
        splits = open_data(options.data, size=SIZE)
        if splits.test is None:
            raise ConfigError(f"{options.data} has no test/ with class folders; expected DIR/train/<class>/ and "
                              "DIR/test/<class>/")
        print(splits.description)
        scan(splits.test, progress=sys.stderr.isatty())
        if splits.test.skipped:
            print(splits.test.report_skipped())
        if options.results:
            check_page(options.results)
        for seed in options.seeds:
            if (report := run(options, splits, seed)) is None:
                return 130
            if options.results:
                add_to_page(options.results, [report], order, page)
    except (MinicnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
