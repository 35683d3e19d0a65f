"""A page of results that training runs write themselves, with the commands that start them again."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from minicnn.data.dataset import Splits
from minicnn.experiment.augmentation import in_words
from minicnn.experiment.evaluation import ONE, TEN
from minicnn.experiment.settings import OF_OPTIMISER, OF_RECIPE, OF_SCHEDULE, named
from minicnn.parallel.launch import started_ranks
from minicnn.train.runs.metrics import training_minutes
from minicnn.train.runs.results import add_to_page, machine
from minicnn.train.runs.run_dir import METRICS


def add_run(options: argparse.Namespace, settings: dict, run_dir: Path, splits: Splits, report: dict) -> None:
    """Add a run with these settings, whose best checkpoint was evaluated, to the page options.results."""
    settings = named(settings)
    report = report | {"settings": settings, "trained_on": len(splits.train), "classes": len(splits.classes),
                       "note": options.note, "minutes": training_minutes(run_dir / METRICS),
                       "command": command(options.program, settings), "machine": machine(settings["device"])}
    add_to_page(options.results, [report], lambda report: report["command"], page)


def command(program: list[str], settings: dict) -> str:
    """What starts this run again.   program: such as ["minicnn", "train", "alexnet"]."""
    start = ["mpiexec", "-n", str(started_ranks())] if started_ranks() else []
    return shlex.join([*start, *program, *words(flags({**settings, "ranks": None} if start else settings))])


def words(flags: dict) -> list[str]:
    """The options as they are written."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()]


def flags(settings: dict) -> dict:
    """Option -> value, of all settings that have one: {"epochs": 3, "new-head": True}."""
    found = {knob: settings[knob] for knob in ("data", "variant", "size", "recipe", *OF_RECIPE, *OF_SCHEDULE,
                                               *OF_OPTIMISER, "seed", "device", "threads", "parallel", "ranks",
                                               "init_from", "new_head")}
    found["freeze"], found["augment"] = ",".join(settings["freeze"]), in_words(settings["augment"])
    found["keep_aspect"] = settings["keep_aspect"]
    return {name.replace("_", "-"): value for name, value in found.items()
            if value not in (None, "none", "") and value is not False}


def page(reports: list[dict]) -> list[str]:
    """The page of these runs, in Markdown."""
    lines = ["# Training runs", "",
             "Written by `minicnn train --results`; nothing here is by hand. Minutes are those of training. *Most "
             "frequent class* is the accuracy of always predicting it.",
             *sorted({report["note"] for report in reports} - {""}), "",
             "| data | classes | trained on | network | recipe | epochs | seed | tested on | most frequent class | "
             "one crop | ten crops | minutes |", "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for report in reports:
        settings = report["settings"]
        accuracy = [f"{100 * report[crops]['top1']:.1f} %" if crops in report else "" for crops in (ONE, TEN)]
        lines.append(f"| {settings['data']} | {report['classes']} | {report['trained_on']:,} | {_network(settings)} | "
                     f"{settings['recipe']} | {settings['epochs']} | {settings['seed']} | "
                     f"{report['images']:,} ({report['set']}) | {100 * report['majority']:.1f} % | "
                     f"{accuracy[0]} | {accuracy[1]} | {report['minutes']:.0f} |")
    return [*lines, ""]


def _network(settings: dict) -> str:
    """The network by name; reports of version 0.1.0, which had AlexNet alone, do not say it."""
    return ":".join(filter(None, (settings.get("model") or "alexnet", settings["variant"])))
