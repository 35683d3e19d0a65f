"""Trains the small networks of the AlexNet paper on CIFAR-10, and keeps a page of what each run reached.

DIR is CIFAR-10 as images in class folders, DIR/train/<class>/ and DIR/test/<class>/. A tenth of train/ is set apart:
its error chooses the checkpoint, and the test images are used once, at the end. The published recipes take 140 and
520 epochs; by default the learning rate is four times higher and falls as half a cosine, for runs of an hour or so.
The networks and their sources are in minicnn/models/cifar.py, the recipes in minicnn/train/recipes.py.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

import numpy as np

from minicnn.data.preprocess import Preprocess
from minicnn.data.scan import scan
from minicnn.errors import ConfigError
from minicnn.evaluate.evaluate import evaluate
from minicnn.experiment.nets import build_net
from minicnn.experiment.options import Parser
from minicnn.experiment.prepare import open_sets, use_threads
from minicnn.experiment.run import Trained, fit
from minicnn.experiment.say import exit_code
from minicnn.experiment.settings import DEFAULTS
from minicnn.graph import Net
from minicnn.models import MODELS
from minicnn.models.cifar import ACTIVATIONS
from minicnn.system.files import signed, write_json
from minicnn.system.terminal import is_terminal, lasting
from minicnn.train.recipes import named_recipe
from minicnn.train.runs.folder import new_run
from minicnn.train.runs.metrics import read_metrics, training_minutes
from minicnn.train.runs.results import add_to_page, check_page, machine
from minicnn.train.runs.run_dir import BEST, LAST, METRICS, TEST, restore

NETS = {"18pct": "cifar_18pct", "paper": "cifar_paper"}
RECIPES = {name: named_recipe("cifar_18pct", name).about for name in ("published", "quick")}


def settings_of(options: argparse.Namespace, seed: int) -> dict:
    """The settings of one run, as minicnn/experiment has them."""
    model, recipe = NETS[options.net], named_recipe(NETS[options.net], options.recipe).recipe
    return {**DEFAULTS, "model": model, "variant": "", "knobs": {"lrn": options.lrn, "activation": options.activation},
            "data": os.path.abspath(options.data), "recipe": options.recipe, "epochs": options.epochs,
            "batch": recipe.optimiser.batch, "lr": recipe.optimiser.lr, "seed": seed, "device": options.device,
            "threads": options.threads}


def run(options: argparse.Namespace, splits, seed: int) -> dict | None:
    """One run from the first step to the test images: what the page says of it; None when it was interrupted."""
    settings = settings_of(options, seed)
    net = build_net(settings, len(splits.classes))
    stem = f"{net.name}{'' if options.lrn else '-no-lrn'}{'' if options.activation == 'relu' else '-tanh'}-seed{seed}"
    with new_run(options.out, None, stem) as folder, lasting():
        trained = fit(settings, splits, net, folder)
        return report_of(options, splits, seed, net, trained)


def report_of(options: argparse.Namespace, splits, seed: int, net: Net, trained: Trained) -> dict | None:
    """The report of a run, also written beside it."""
    if trained.outcome.interrupted:
        print(f"stopped; what was learned is in {trained.run_dir / LAST}")
        return None
    pipeline, saved = restore(net, trained.run_dir / BEST, splits.classes)
    errors = {name: round(1 - evaluate(net, splits.test, pipeline, ten_crop=ten).top1, 6)
              for name, ten in views(pipeline.preprocess, saved.meta["recipe"]["augment"]["flip"]).items()}
    validation = [record["val"] for record in read_metrics(trained.run_dir / METRICS) if record["kind"] == "epoch"]
    report = {knob: getattr(options, knob) for knob in ("net", "lrn", "activation", "recipe", "epochs")}
    report |= {"seed": seed, "note": options.note, "best_epoch": saved.meta["epoch"],
               "minutes": training_minutes(trained.run_dir / METRICS),
               "test": errors, "val": [round(1 - record["top1"], 6) for record in validation],
               "command": command(options, seed), "machine": machine(net.ops.spec)}
    write_json(trained.run_dir / TEST, signed(report, "test"))
    print(f"{trained.run_dir}: {in_words(report)}, best checkpoint of epoch {saved.meta['epoch']}, "
          f"{report['minutes']:.1f} minutes")
    return report


def views(preprocess: Preprocess, flip: bool) -> dict[str, bool]:
    """How the test images are looked at: name -> by ten crops. Those of a whole image are it and its mirror image."""
    whole = preprocess.crop == preprocess.size
    one = {"whole image" if whole else "centre crop": False}
    return one | ({"and its mirror image" if whole else "ten crops": True} if flip else {})


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
    """Reports are sorted by this."""
    return report["net"], report["recipe"], report["activation"], report["epochs"], not report["lrn"], report["seed"]


def page(reports: list[dict]) -> list[str]:
    """What the page says of them, in Markdown."""
    lines = ["# CIFAR-10, the small networks of the AlexNet paper", "",
             "Written by `examples/cifar10.py --results`; nothing here is by hand. A tenth of the training images "
             "chose the checkpoint.", *sorted({report["note"] for report in reports} - {""}), "",
             *(f"Recipe `{name}`: {words}." for name, words in RECIPES.items()), ""]
    for net, name in NETS.items():
        if mine := [report for report in reports if report["net"] == net]:
            published, model = named_recipe(name, "published"), MODELS[name]
            lines += [f"## `{name}`", "", f"Published test error: {model.variants[model.default].error}; "
                      f"{published.epochs} epochs on all training images ({published.source}).", "", *_table(mine), ""]
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
    parser = Parser(description=__doc__, usage="%(prog)s DIR [options]")
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


def train_all(options: argparse.Namespace) -> int:
    """One run for each seed, all on the same images."""
    settings = settings_of(options, options.seeds[0])
    use_threads(settings)
    splits = open_sets(settings)
    if splits.test is None:
        raise ConfigError(f"{options.data} has no test/ with class folders; expected DIR/train/<class>/ and "
                          "DIR/test/<class>/")
    scan(splits.test, progress=is_terminal())
    if splits.test.skipped:
        print(splits.test.report_skipped())
    if options.results:
        check_page(options.results)
    for seed in options.seeds:
        if (report := run(options, splits, seed)) is None:
            return 130
        if options.results:
            add_to_page(options.results, [report], order, page)
    return 0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_code(lambda: train_all(options))


if __name__ == "__main__":
    sys.exit(main())
