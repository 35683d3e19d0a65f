"""Trains the AlexNet of the paper, all 61 million parameters of it, and shows what it has learned.

With no arguments it trains on 1,670 photographs of solar cells (package elpv-dataset) for three epochs, which takes
some minutes on two cores. `--data DIR` takes ImageNet, or any tree with one folder per class. A folder under
runs/ then holds checkpoints, metrics, the curves, conv1's kernels as in Figure 3 of the paper, and a sheet of held-out
photographs with predictions as in Figure 4. `--parallel columns` splits the network in two as the paper does, on two
threads, or on the processes that `mpiexec -n 2` starts.

The validation images choose the rate and the best checkpoint; the test images are looked at once, at the very end.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from minicnn.backend.cpu import set_threads, thread_report
from minicnn.cores import available_cores
from minicnn.data.augment import Augment
from minicnn.data.elpv import MissingPackageError
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.errors import ConfigError, MinicnnError
from minicnn.evaluate.evaluate import Evaluation, averaged, evaluate
from minicnn.evaluate.metrics import majority
from minicnn.models.alexnet import alexnet
from minicnn.models.alexnet_variants import VARIANTS, knobs_of
from minicnn.models.alexnet_variants import differences as variant_differences
from minicnn.parallel.comm import TIMEOUT
from minicnn.parallel.launch import launch, started_ranks
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.train.finetune import load_pretrained
from minicnn.train.loop import BEST, LAST, METRICS, Trainer
from minicnn.train.recipe import Recipe, SGDRecipe, differences_in_words, steady_output_lr
from minicnn.train.recipes import published
from minicnn.train.runs.metrics import training_minutes
from minicnn.train.runs.results import add_to_page, check_page, machine
from minicnn.train.runs.run_dir import find_checkpoint, new_run_dir, read_settings, restore
from minicnn.train.schedule import Cosine
from minicnn.visualize.columns import draw_columns
from minicnn.visualize.report import draw_progress, draw_run, draw_sheet

DEFAULTS = {"data": "elpv", "variant": "paper", "seed": 0, "device": "auto", "threads": None, "parallel": "none",
            "ranks": None, "init_from": None, "new_head": False, "freeze": ()}
ASKED = ("epochs", "batch", "lr")                   # what of a recipe can be asked for
OURS = {
    # A few thousand images want a higher rate, falling to 0, and smaller batches.
    "short": {"epochs": 3, "batch": 32, "lr": 0.03, "steady": True},
    # Begun with weights as printed, these learn the brightness of an image and little else; see calibrate.py.
    "long": {"epochs": 26, "batch": 32, "lr": 0.004,
             "calibrate": {"conv1": 60, "conv2": 15, "conv3": 4, "conv4": 2, "conv5": 1, "fc6": 1, "fc7": 0.3,
                           "fc8": 0.05},
             "layer_lr": {"fc6": 0.3, "fc7": 0.3, "fc8": 0.3}},
}
RECIPES = (*OURS, *VARIANTS)                       # a variant's own recipe is that of its source: train/recipes.py
RECIPE_FOR = {"elpv": "short", "synthetic": "short"}                # and the variant's own for folders
NO_UPRIGHT = ("elpv",)                              # a solar cell may be mirrored up-down; most photographs may not


def recipe_of(settings: dict, classes: int, crop: int) -> Recipe:
    """The recipe of this name for this data, with what was asked for in its place."""
    lr, name, frozen = settings["lr"], settings["recipe"], dict.fromkeys(settings["freeze"], 0.0)
    net = {"model": "alexnet", "variant": settings["variant"], "num_classes": classes}
    turned = {"updown": True, "transpose": name == "long"} if settings["data"] in NO_UPRIGHT else {}
    if name not in OURS:
        recipe = published(name).recipe
        return replace(recipe, net=net, augment=replace(recipe.augment, crop=crop, **turned),
                       sgd=replace(recipe.sgd, lr=lr, batch=settings["batch"], layer_lr=frozen))
    parts = OURS[name]
    return Recipe(net=net, calibrate={} if settings["init_from"] else parts.get("calibrate", {}),
                  augment=Augment(crop=crop, **turned),
                  sgd=SGDRecipe(lr=lr, batch=settings["batch"], layer_lr=parts.get("layer_lr", {}) | frozen,
                                output_lr=steady_output_lr(lr, classes) if parts.get("steady") else 1.0),
                  schedule=Cosine(epochs=settings["epochs"]))


def train_run(options: argparse.Namespace) -> int:
    """Train, or go on training; then judge the best checkpoint once on the test images, and draw."""
    checkpoint = None if options.resume is None else find_checkpoint(options.out, options.resume, LAST)
    settings = settle(options, checkpoint)
    may_fall_back = options.data is None and checkpoint is None
    if options.results:
        check_page(options.results)
    if settings["parallel"] == "none":
        if started_ranks():
            raise ConfigError("mpiexec has started several processes, each of which would train a network of its own; "
                              f"add --parallel {', or '.join(SCHEMES)}, or leave mpiexec out")
        splits, net = prepare(settings, may_fall_back)
        run_dir, outcome = train(options, settings, checkpoint, splits, net)
    else:
        if settings["parallel"] not in SCHEMES:
            raise ConfigError(f"unknown --parallel {settings['parallel']!r}: expected none, {', '.join(SCHEMES)}")
        ranks = options.ranks if started_ranks() else settings["ranks"]      # mpiexec knows better than an old run
        run_dir, outcome, splits, net = launch(
            ranks, lambda neighbours: prepare(settings, may_fall_back, neighbours),
            lambda comm, ready: (*train(options, settings, checkpoint, *ready, comm), *ready), options.comm_timeout)
    if outcome is None:                         # a rank that is not the lead
        return 0
    if outcome.interrupted:
        print(f"stopped; everything is in {run_dir / LAST}\nto go on: python {sys.argv[0]} --resume {run_dir}")
        return 130
    set_threads(settings["threads"])
    report = judge(net, splits, run_dir / BEST, settings["batch"], options.ten_crop, draw_into=run_dir)[1]
    if options.results:
        settings = named(read_settings(run_dir / BEST)["about"])
        report |= {"settings": settings, "trained_on": len(splits.train), "classes": len(splits.classes),
                   "note": options.note, "minutes": training_minutes(run_dir / METRICS),
                   "command": command(settings), "machine": machine(settings["device"])}
        add_to_page(options.results, [report], lambda report: report["command"], page)
    return 0


def train(options: argparse.Namespace, settings: dict, checkpoint: Path | None, splits, net, comm=None):
    """The training itself, on one rank or as one of several: run folder, and how it ended (None: not the lead)."""
    if unknown := sorted(set(settings["freeze"]) - set(net.layers_with_weights)):
        raise ConfigError(f"--freeze names {unknown[0]!r}: expected some of {', '.join(net.layers_with_weights)}")
    recipe = recipe_of(settings, len(splits.classes), net.input_shape[0])
    stem = f"{splits.name}-{settings['variant']}"
    run_dir = checkpoint.parent if checkpoint else new_run_dir(options.out, options.run_name, stem)
    begin = settings["init_from"] if checkpoint is None else None
    begun = load_pretrained(net, begin, settings["new_head"]) if begin else []
    if comm is not None:
        settings = {**settings, "ranks": comm.size}
        net = SCHEMES[settings["parallel"]](net, comm)
        run_dir = Path(comm.broadcast_object(str(run_dir))[0])
    trainer = Trainer(net, recipe, splits.train, splits.val, run_dir, save_every=options.save_every, about=settings,
                      keep_statistics=True, tensorboard=options.tensorboard,
                      on_epoch=lambda: draw_progress(run_dir, title_of(settings, splits)))
    if checkpoint:
        trainer.resume(checkpoint)
    if net.ranks.is_main:
        introduce(settings, splits, net, recipe)
        for line in begun:
            say("begun from", line)
        from_there = f", from epoch {trainer.epoch + 1}, step {trainer.step + 1} on" if checkpoint else ""
        say("run", f"{run_dir}{from_there}")
    outcome = trainer.fit(settings["epochs"])
    if not net.ranks.is_main:
        return run_dir, None
    if comm is not None:
        print(comm.ledger.table())
        if settings["parallel"] == "columns" and comm.size == 2:
            batch = settings["batch"]
            picture = draw_columns(
                *net.drawing(batch), run_dir / "columns.png", f"AlexNet ({settings['variant']}) on two ranks",
                f"bytes that cross in a forward pass of {batch} images ({net.dtype}), and again in the backward pass; "
                "milliseconds of both")
            say("columns", f"{picture}")
    return run_dir, outcome


def evaluate_run(options: argparse.Namespace) -> int:
    """Judge the best checkpoint of a run on the test images, by one crop and by ten; of several, also their average."""
    if options.results:
        raise ConfigError("--results keeps a training run, and --evaluate only judges: leave one of the two out")
    judged, data = [], None
    for which in options.evaluate:
        checkpoint = find_checkpoint(options.out, which, BEST)
        settings = settle(options, checkpoint)
        splits, net = prepare(settings, may_fall_back=False)
        if data not in (None, settings["data"]):
            raise ConfigError(f"{checkpoint} was trained on {settings['data']}, the one before it on {data}; "
                              "runs that are averaged must have the same data")
        if data is None:
            say("data", splits.description)
        data = settings["data"]
        judged.append(judge(net, splits, checkpoint, settings["batch"], ten_crop=True)[0])
        held_out, result = splits.val if splits.test is None else splits.test, judged[-1]["ten crops"]
        say("pictures", f"{draw_sheet(checkpoint.parent, title_of(settings, splits), held_out, result)}")
    for label in judged[0] if len(judged) > 1 else ():
        say("averaged", f"{averaged([results[label] for results in judged])}: {len(judged)} networks, {label}")
    return 0


def settle(options: argparse.Namespace, checkpoint: Path | None) -> dict:
    """What was asked for, else what the run of the checkpoint was begun with, else the defaults."""
    given = {name: value for name in (*DEFAULTS, *ASKED, "recipe") if (value := getattr(options, name)) is not None}
    if "freeze" in given:
        given["freeze"] = [name for name in given["freeze"].split(",") if name]
    if "new_head" in given and "init_from" not in given:
        raise ConfigError("--new-head keeps a fresh output layer beside another run's weights: add --init-from RUN")
    if "init_from" in given:
        if checkpoint:
            raise ConfigError("--init-from begins a run and --resume goes on with one: choose one of them")
        given["init_from"] = str(find_checkpoint(options.out, given["init_from"], BEST))
    if "data" in given and given["data"] not in ("elpv", "synthetic"):
        given["data"] = os.path.abspath(given["data"])
    begun_with = read_settings(checkpoint)["about"] if checkpoint else {}
    settings = {**DEFAULTS, **begun_with, **given}
    if options.precision:
        device = settings["device"].partition(":")[0]
        settings["device"] = f"{'cuda' if device == 'auto' else device}:{options.precision}"
    knobs_of(settings["variant"])
    name = settings.setdefault("recipe", RECIPE_FOR.get(settings["data"], settings["variant"]))
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    if name in OURS:
        return {**{knob: OURS[name][knob] for knob in ASKED}, **settings}
    entry = published(name)
    return {"epochs": entry.epochs, "batch": entry.recipe.sgd.batch, "lr": entry.recipe.sgd.lr, **settings}


def prepare(settings: dict, may_fall_back: bool, neighbours: int = 1):
    """The data and the net; nothing is written, so that a mistake in the arguments leaves nothing behind.

    neighbours: so many ranks share this machine and its threads.
    """
    if settings["threads"] is None:             # noted in the checkpoint: other threads, other rounding
        settings["threads"] = available_cores()
    set_threads(settings["threads"] if neighbours == 1 else max(1, settings["threads"] // neighbours))
    try:
        splits = open_data(settings["data"])
    except MissingPackageError as error:
        if not may_fall_back:
            raise
        bar = "!" * 100
        print(f"{bar}\n!! {error}\n!! Until then: procedural images, which teach nothing about photographs.\n{bar}")
        settings["data"] = "synthetic"
        splits = open_data("synthetic")
    net = alexnet(settings["variant"], len(splits.classes), settings["seed"], settings["device"])
    settings["device"] = net.ops.spec           # noted, too: where it is resumed, "auto" may mean another
    return splits, net


def introduce(settings: dict, splits, net, recipe: Recipe) -> None:
    """The first lines: what is about to happen, and where it is not the paper."""
    say("data", splits.description)
    say("licence", splits.licence)
    say("net", f"AlexNet, variant {settings['variant']}: {net.num_params:,} parameters, {len(splits.classes)} classes")
    say("device", f"{net.ops.spec}, {thread_report()}")
    if settings["parallel"] != "none":
        say("parallel", f"{settings['parallel']} on {settings['ranks']} ranks, {net.ops.spec} each; batch and rate are "
                        "those of all ranks together")
    as_printed = settings["parallel"] == "columns" and settings["ranks"] == 2
    changes = [f"epochs {settings['epochs']} (paper: about 90)", *differences_in_words(recipe),
               *variant_differences(settings["variant"]),
               "two processors instead of two GPUs" if as_printed else "no two GPUs, the same arithmetic"]
    say("differences", "; ".join(changes))
    if settings["recipe"] not in OURS:
        entry = published(settings["recipe"])
        say("recipe", f"{settings['recipe']}: {entry.epochs} epochs; error on ImageNet's validation images, top-1 / "
                      f"top-5: {entry.error} ({entry.source})"
                      + (f". What it leaves out: {entry.apart}" if entry.apart else ""))


def judge(net, splits, checkpoint: Path, batch: int, ten_crop: bool, draw_into: Path | None = None):
    """Accuracy on the test images beside that of always giving the most frequent answer; the pictures, where wanted.

    Returns the Evaluation by "centre crop", and by "ten crops" where asked for; and the report of them.
    """
    feed, saved = restore(net, checkpoint, splits.classes)
    held_out, name = (splits.test, "test") if splits.test is not None else (splits.val, "validation, for want of test")
    scan(held_out, progress=sys.stderr.isatty())
    if held_out.skipped:
        say("skipped", held_out.report_skipped())
    report = {"checkpoint": checkpoint.name, "epoch": saved.meta["epoch"], "images": len(held_out), "set": name,
              "majority": majority(held_out.labels)}
    results: dict[str, Evaluation] = {}
    for crops, label in ((1, "centre crop"), (10, "ten crops"))[:2 if ten_crop else 1]:
        result = results[label] = evaluate(net, held_out, feed, batch=batch, ten_crop=crops == 10,
                                           title=f"{name}, {label}")
        report[label] = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
        say("test", f"{result}: {len(held_out):,} {name} images, {label}, {checkpoint.name} (epoch {report['epoch']})")
    say("majority", f"{100 * report['majority']:.1f} % would be right by always saying the most frequent class")
    if len(splits.classes) > 5:
        worst = [f"{splits.classes[k]} {100 * share:.0f} % of {count}" for k, share, count in result.by_class()[:5]]
        say("worst", ", ".join(worst))
    if draw_into is not None:
        (draw_into / "test.json").write_text(json.dumps(report, indent=1) + "\n")
        paths = draw_run(draw_into, net=net, title=title_of(saved.meta["about"], splits), epochs=saved.meta["epoch"],
                         held_out=held_out,
                         images_seen=saved.meta["epoch"] * saved.meta["steps"] * batch, result=result,
                         start=saved.data.get("start"))
        say("pictures", " ".join(map(str, paths)))
    return results, report


def named(settings: dict) -> dict:
    """The settings with names in place of paths."""
    begun = settings["init_from"] and Path(settings["init_from"]).parent.name
    return {**settings, "data": Path(settings["data"]).name, "init_from": begun}


def command(settings: dict) -> str:
    """What starts this run again."""
    flags = {knob: settings[knob] for knob in ("data", "variant", "recipe", *ASKED, "seed", "device", "threads",
                                               "parallel", "ranks", "init_from", "new_head")}
    flags["freeze"], start = ",".join(settings["freeze"]), ["python"]
    if started_ranks():
        start, flags["ranks"] = ["mpiexec", "-n", str(started_ranks()), "python"], None
    flags = {name.replace("_", "-"): value for name, value in flags.items() if value not in (None, "none", "")}
    return shlex.join([*start, "examples/alexnet_imagenet.py", *(
        f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items() if value is not False)])


def page(reports: list[dict]) -> list[str]:
    """What a page of results says of them, in Markdown."""
    lines = ["# AlexNet on photographs", "",
             "Written by `examples/alexnet_imagenet.py --results`; nothing here is by hand. Minutes are those of "
             "training. *By chance* is always saying the most frequent class.",
             *sorted({report["note"] for report in reports} - {""}), "",
             "| data | classes | trained on | variant | recipe | epochs | seed | judged on | by chance | one crop | "
             "ten crops | minutes |", "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for report in reports:
        settings = report["settings"]
        right = [f"{100 * report[crops]['top1']:.1f} %" if crops in report else ""
                 for crops in ("centre crop", "ten crops")]
        lines.append(f"| {settings['data']} | {report['classes']} | {report['trained_on']:,} | "
                     f"{settings['variant']} | {settings['recipe']} | {settings['epochs']} | {settings['seed']} | "
                     f"{report['images']:,} ({report['set']}) | {100 * report['majority']:.1f} % | "
                     f"{right[0]} | {right[1]} | {report['minutes']:.0f} |")
    return [*lines, ""]


def title_of(settings: dict, splits) -> str:
    return f"AlexNet ({settings['variant']}) on {splits.name}"


def say(label: str, text: str) -> None:
    print(textwrap.fill(text, 108, initial_indent=f"{label:13s}", subsequent_indent=" " * 13,
                        break_long_words=False, break_on_hyphens=False), flush=True)


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"error: {message}; see --help\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__.rpartition("\n\n")[0], allow_abbrev=False, usage="%(prog)s [options]",
                    formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=118),
                    epilog="Ctrl-C saves and ends; --resume goes on, bit for bit.")
    what = parser.add_argument_group("what is trained")
    what.add_argument("--data", metavar="DIR", help="a folder in ImageNet's layout, or with one folder per class; or "
                      "elpv (solar cells, the default) or synthetic (procedural images)")
    what.add_argument("--variant", metavar="NAME", help=f"which AlexNet: {', '.join(VARIANTS)} (default: paper)")
    how = parser.add_argument_group("how")
    how.add_argument("--recipe", metavar="NAME", help="short (3 epochs), long (26 epochs, from a start that is fitted "
                     "to the images) or that of a variant's source, such as paper (section 5). Default: the variant's "
                     "own for a folder, else short")
    how.add_argument("--epochs", metavar="N", type=int, help="how often every image is seen (default: the recipe's)")
    how.add_argument("--batch", metavar="N", type=int, help="images per step (default: the recipe's, 32 or 128)")
    how.add_argument("--lr", metavar="N", type=float, help="rate to begin with (default: the recipe's)")
    how.add_argument("--seed", metavar="N", type=int, help="of weights, order, crops and dropout (default: 0)")
    how.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or reference (default: auto)")
    how.add_argument("--precision", metavar="NAME", help="of matrix products on a GPU: fp32, tf32, bf16 or fp16, which "
                     "scales the loss; everything else is float32 (default: tf32)")
    how.add_argument("--threads", metavar="N", type=int, help="of the processor (default: all cores)")
    tune = parser.add_argument_group("fine-tuning")
    tune.add_argument("--init-from", metavar="RUN", help="begin with the weights of a run or checkpoint, wherever name "
                      "and shape are the same")
    tune.add_argument("--new-head", action="store_true", default=None, help="but with a fresh output layer")
    tune.add_argument("--freeze", metavar="LAYERS", help="these stay as they are, such as conv1,conv2")
    ranks = parser.add_argument_group("several ranks")
    ranks.add_argument("--parallel", metavar="HOW", help="columns (the paper's two GPUs), data (each rank some of the "
                       "images), hybrid (convolutions by images, fully connected layers by units), or none")
    ranks.add_argument("--ranks", metavar="N", type=int, help="threads (default: 2; with mpiexec, its processes); the "
                       "batch is shared among them, and the rate stays that of the whole batch")
    ranks.add_argument("--comm-timeout", metavar="SECONDS", type=float, default=TIMEOUT,
                       help="a rank that is not heard of for so long hangs (default: 60)")
    runs = parser.add_argument_group("runs")
    runs.add_argument("--out", metavar="DIR", default="runs", help="folder of all runs (default: runs)")
    runs.add_argument("--run-name", metavar="NAME", help="folder of this one (default: data, variant and a number)")
    runs.add_argument("--save-every", metavar="STEPS", type=int, default=0, help="a checkpoint after every "
                      "so many steps (one is written every 15 minutes in any case)")
    runs.add_argument("--resume", metavar="RUN", nargs="?", const="", help="go on with RUN, or with the newest run")
    runs.add_argument("--evaluate", metavar="RUN", nargs="+", help="only judge a run folder or checkpoint, by one crop "
                      "and by ten; of several, also the average of their predictions")
    runs.add_argument("--tensorboard", action="store_true", help="metrics as TensorBoard events, too (pip install "
                      "minicnn[tensorboard])")
    runs.add_argument("--ten-crop", action="store_true", help="after training, judge by ten crops as well")
    runs.add_argument("--results", metavar="FILE", type=Path, help="after training, add the run to the page FILE.md "
                      "(and FILE.json)")
    runs.add_argument("--note", metavar="TEXT", default="", help="what readers of the page should know of these images")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    try:
        options = parse(arguments)
        return train_run(options) if options.evaluate is None else evaluate_run(options)
    except (MinicnnError, OSError) as error:        # such as a disk that is full when the pictures are drawn
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
