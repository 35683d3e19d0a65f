"""Trains airbench, and plain and residual nets of 20 and 56 layers, on CIFAR-10; writes a page of the runs.

DIR is CIFAR-10 as images in class folders, DIR/train/<class>/ and DIR/test/<class>/; --archive unpacks them into it.
All of train/ is learned from. Test images choose nothing: reports are of the last epoch.

    airbench       airbench93 by its published recipe; six views at the end
    long           airbench94 for 60 epochs, much as airbench96; its weights are rounded to float16 before they are
                   tested. It is the network of the package: package_pretrained.py
    degradation    plain20, plain56, resnet20 and resnet56, some epochs of ResNet's recipe for CIFAR-10 (section 4.2):
                   is the deeper plain net worse on the *training* images, and do its gradients vanish?
    cosine         the same by our own recipe: an epoch of warm-up, and a learning rate that falls to 0
    published      resnet20 by all of ResNet's recipe: 164 epochs, 64,000 steps
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicnn.data.dataset import Dataset, Splits
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.data.source import open_data
from minicnn.errors import ConfigError, DataError
from minicnn.evaluate.evaluate import evaluate
from minicnn.evaluate.protocols import PROTOCOLS
from minicnn.experiment.nets import build_net
from minicnn.experiment.options import Parser
from minicnn.experiment.prepare import use_threads
from minicnn.experiment.run import Trained, fit
from minicnn.experiment.say import exit_code, say
from minicnn.experiment.settings import DEFAULTS
from minicnn.graph import Net
from minicnn.models import MODELS
from minicnn.system.files import signed, write_json
from minicnn.system.terminal import lasting
from minicnn.train.recipes import named_recipe
from minicnn.train.runs.folder import RunFolder, new_run
from minicnn.train.runs.metrics import read_metrics, training_minutes
from minicnn.train.runs.results import add_to_page, check_page, machine
from minicnn.train.runs.run_dir import LAST, METRICS, TEST, find_checkpoint, last_intact, restore
from minicnn.visualize.style import BLUE, INK, ORANGE, QUIET, new_figure, quiet_axes, save_png


class Experiment(NamedTuple):
    """nets, the name of their recipe, epochs, ways to evaluate; half: whether the weights are then rounded."""

    nets: tuple[str, ...]
    recipe: str
    epochs: int
    protocols: tuple[str, ...]
    half: bool = False


PLAIN_AND_RESIDUAL = ("plain20", "plain56", "resnet20", "resnet56")
EXPERIMENTS = {
    "airbench": Experiment(("airbench93",), "published", 11, ("crop", "six-view")),
    "long": Experiment(("airbench94",), "long", 60, ("crop", "six-view"), half=True),
    "degradation": Experiment(PLAIN_AND_RESIDUAL, "paper", 8, ("crop",)),
    "cosine": Experiment(PLAIN_AND_RESIDUAL, "long", 8, ("crop",)),
    "published": Experiment(("resnet20",), "paper", 164, ("crop",)),
}
TRAINING_IMAGES = 10_000        # of which the training error of the last epoch is measured, without augmentation
GRADIENT_BATCHES = 4            # over which the norms of gradients are averaged
LINES = {"plain20": (ORANGE, "-"), "plain56": (ORANGE, "--"), "resnet20": (BLUE, "-"), "resnet56": (BLUE, "--")}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack train/ and test/ of a tar archive into the folder, unless they are there."""
    if (folder / "train").is_dir():
        return
    try:
        with tarfile.open(archive) as files:
            for member in files:
                path = member.name.split("/")
                inside = next((i for i, part in enumerate(path) if part in ("train", "test")), None)
                if inside is not None and member.isfile():
                    member.name = "/".join(path[inside:])
                    files.extract(member, folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be unpacked into {folder}: {error}; expected a tar archive with train/ and "
                        "test/, and room for it") from error
    if not (folder / "train").is_dir():
        raise DataError(f"{archive} holds no train/<class>/ and test/<class>/; name the archive of CIFAR-10 in class "
                        "folders")


def settings_of(options: argparse.Namespace, model: str, seed: int) -> dict:
    """The settings of one run, as minicnn/experiment has them."""
    experiment = EXPERIMENTS[options.experiment]
    optimiser = named_recipe(model, experiment.recipe).recipe.optimiser
    return {**DEFAULTS, "model": model, "variant": "", "data": os.path.abspath(options.data),
            "recipe": experiment.recipe, "epochs": options.epochs or experiment.epochs,
            "batch": options.batch or optimiser.batch, "lr": optimiser.lr, "seed": seed, "device": options.device,
            "threads": options.threads}


def run(options: argparse.Namespace, splits: Splits, model: str, seed: int) -> dict | None:
    """One run from the first step to the test images: what the page says of it; None when it was interrupted."""
    settings = settings_of(options, model, seed)
    net = build_net(settings, len(splits.classes))
    checkpoint = None if options.resume is None else last_intact(find_checkpoint(options.out, options.resume, LAST),
                                                                 partial(say, "damaged"))
    with RunFolder(checkpoint.parent) if checkpoint else new_run(options.out, None, f"{model}-seed{seed}") as folder, \
            lasting():
        trained = fit(settings, splits, net, folder, checkpoint=checkpoint)
        if trained.outcome.interrupted:
            print(f"stopped; everything is in {trained.run_dir / LAST}\nto go on: the same command, of this net and "
                  f"seed, with --resume {trained.run_dir}")
            return None
        return report_of(options, splits, net, trained, model, seed)


def report_of(options: argparse.Namespace, splits: Splits, net: Net, trained: Trained, model: str, seed: int) -> dict:
    """The report of a run, also written beside it."""
    metrics, batch = trained.run_dir / METRICS, trained.settings["batch"]
    pipeline, saved = restore(net, trained.run_dir / LAST, splits.classes)
    experiment = EXPERIMENTS[options.experiment]
    if experiment.half:
        net.load_arrays(halved({name: net.ops.to_host(array) for name, array in net.arrays().items()}))
    some = splits.train.select(spread(splits.train, TRAINING_IMAGES))
    errors = {PROTOCOLS[name].label: error(net, splits.test, pipeline, name) for name in experiment.protocols}
    epochs = [record for record in read_metrics(metrics) if record["kind"] == "epoch"]
    report = {
        "experiment": options.experiment, "net": model, "seed": seed, "note": options.note,
        "epochs": saved.meta["epoch"], "steps": saved.meta["epoch"] * saved.meta["steps"],
        "seconds": round(60 * training_minutes(metrics)), "weights": "float16" if experiment.half else "float32",
        "test": errors, "training": error(net, some, pipeline, "crop"),
        "curves": {part: [round(1 - record[part]["top1"], 6) for record in epochs] for part in ("train", "val")},
        "gradients": {when: gradient_norms(of, some, InputPipeline(of, pipeline.preprocess, saved.data["mean"]), batch)
                      for when, of in (("begin", fresh(net, trained.settings, splits)), ("end", net))},
        "command": command(options, model, seed), "machine": machine(net.ops.spec)}
    write_json(trained.run_dir / TEST, signed(report, "test"))
    tested = ", ".join(f"{100 * part:.2f} % ({name})" for name, part in errors.items())
    print(f"{trained.run_dir}: test error {tested}, training error {100 * report['training']:.2f} %, "
          f"{report['seconds']} seconds")
    return report


def halved(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights in float16, 11 bits of 24; biases and state as they are."""
    return {name: array.astype(np.float16) if array.ndim > 1 else array for name, array in arrays.items()}


def spread(dataset: Dataset, most: int) -> np.ndarray:
    """Indices of so many images, evenly over the set, and so over its classes."""
    return np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int))


def error(net: Net, dataset: Dataset, pipeline: InputPipeline, protocol: str) -> float:
    return round(1 - evaluate(net, dataset, pipeline, protocol=PROTOCOLS[protocol]).top1, 6)


def fresh(net: Net, settings: dict, splits: Splits) -> Net:
    """The network as it was initialised."""
    return build_net({**settings, "device": net.ops.spec}, len(splits.classes))


def gradient_norms(net: Net, dataset: Dataset, pipeline: InputPipeline, batch: int) -> list[float]:
    """Of the weights of each convolution, in the network's order: the norm of the gradient, averaged over batches."""
    names = [name for name, param in net.params.items() if param.data.ndim == 4]
    norms = []
    net.freeze(())
    loader = Loader(dataset, min(batch, len(dataset)), shuffle=True, drop_last=True)
    for _, images in zip(range(GRADIENT_BATCHES), loader.epoch(0), strict=False):
        net.loss(pipeline.evaluation(images), images.labels, sample_ids=images.sample_ids)
        net.backward()
        norms.append([float(np.linalg.norm(net.ops.to_host(net.params[name].grad))) for name in names])
    return np.mean(norms, axis=0).round(6).tolist()


def command(options: argparse.Namespace, model: str, seed: int) -> str:
    """What starts this one run again."""
    parts = ["python", "examples/cifar10_descendants.py", Path(options.data).name, options.experiment, "--nets", model,
             "--seeds", str(seed)]
    for name in ("epochs", "batch"):
        parts += [f"--{name}", str(value)] if (value := getattr(options, name)) else []
    return shlex.join([*parts, *([] if options.device == "auto" else ["--device", options.device])])


# ---- the page
def order(report: dict):
    """Reports are sorted by this."""
    return report["experiment"], report["net"], report["epochs"], report["seed"]


def page(reports: list[dict], picture: str) -> list[str]:
    """What the page says of them, in Markdown."""
    lines = ["# CIFAR-10: airbench, and plain and residual nets", "",
             "Written by `examples/cifar10_descendants.py --results`; nothing here is by hand. Errors are of the last "
             "epoch; all training images were used. The training error is measured after training, by the centre crop, "
             "on 10,000 of these images. ± is the standard deviation over seeds.",
             *sorted({report["note"] for report in reports} - {""}), ""]
    by = {name: [report for report in reports if report["experiment"] == name] for name in EXPERIMENTS}
    if by["airbench"]:
        lines += ["## airbench93", "", "Published test error, on the original pixels: "
                  f"{MODELS['airbench93'].variants[''].error}.", "", *table(by["airbench"]), ""]
    if by["long"]:
        lines += ["## airbench94, for longer", "", "Cutout, shifts of up to four pixels, a falling learning rate; "
                  "weights rounded to float16 before the test.", "", *table(by["long"]), ""]
    if by["degradation"]:
        lines += ["## Plain and residual nets", "", "By ResNet's recipe (section 4.2), without its end: the learning "
                  "rate stays 0.1. The picture has the training error as it was counted during each epoch, with "
                  "augmentation.", "", f"![training and test error, norms of gradients]({picture})", "",
                  *table(by["degradation"]), "",
                  "Gradients are those of the weights of each convolution in batches of training images, without "
                  "augmentation: the norm in the first convolution, and the smallest and the largest over all.", "",
                  *gradient_table(by["degradation"]), ""]
    if by["cosine"]:
        lines += ["## The same by our own recipe", "", "An epoch of warm-up, then the learning rate falls to 0.", "",
                  *table(by["cosine"]), "",
                  *gradient_table(by["cosine"]), ""]
    if by["published"]:
        lines += ["## ResNet-20 by its published recipe", "", "Published test error, on the original pixels: "
                  f"{MODELS['resnet20'].variants[''].error}.", "", *table(by["published"]), ""]
    return lines


def groups_of(reports: list[dict]) -> dict[tuple, list[dict]]:
    groups: dict[tuple, list[dict]] = {}
    for report in reports:
        groups.setdefault((report["net"], report["epochs"]), []).append(report)
    return groups


def table(reports: list[dict]) -> list[str]:
    ways = list(reports[0]["test"])
    lines = [f"| net | epochs | steps | seed | training error | {' | '.join(f'test error, {way}' for way in ways)} | "
             "seconds |", "|---|---|---|---|---|" + "---|" * len(ways) + "---|"]
    for (net, epochs), group in groups_of(reports).items():
        for report in group:
            lines.append(f"| {net} | {epochs} | {report['steps']:,} | {report['seed']} | {errors_of([report], ways)} | "
                         f"{report['seconds']:,} |")
        if len(group) > 1:
            lines.append(f"| {net} | {epochs} | | **mean of {len(group)}** | {errors_of(group, ways)} | |")
    return lines


def errors_of(group: list[dict], ways: list[str]) -> str:
    columns = [[report["training"] for report in group], *([report["test"][way] for report in group] for way in ways)]
    return " | ".join(f"{100 * np.mean(column):.2f} %" + (f" ± {100 * np.std(column, ddof=1):.2f}" if len(column) > 1
                                                          else "") for column in columns)


def gradient_table(reports: list[dict]) -> list[str]:
    lines = ["| net | seed | first, at the start | smallest to largest | first, at the end | smallest to largest |",
             "|---|---|---|---|---|---|"]
    for report in reports:
        cells = [f"{norms[0]:.3g} | {min(norms):.3g} to {max(norms):.3g}" for norms in report["gradients"].values()]
        lines.append(f"| {report['net']} | {report['seed']} | {' | '.join(cells)} |")
    return lines


def draw(reports: list[dict], path: Path) -> None:
    """Left the errors of each epoch, right the norms of gradients after training; of the first seed of each net."""
    figure = new_figure(4.2)
    errors, norms = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.065, right=0.965, top=0.88, bottom=0.125, wspace=0.17)
    first = {report["net"]: report for report in reversed(reports)}
    for report in (first[name] for name in LINES if name in first):
        colour, style = LINES[report["net"]]
        for part, alpha in (("train", 1.0), ("val", 0.4)):
            errors.plot(range(1, report["epochs"] + 1), [100 * value for value in report["curves"][part]], style,
                        color=colour, alpha=alpha, linewidth=1.6, label=report["net"] if part == "train" else None)
        values = report["gradients"]["end"]
        norms.semilogy(np.linspace(0, 1, len(values)), values, style, color=colour, linewidth=1.6)
    errors.set_title("error (%): training, and faint test", loc="left", fontsize=10, color=INK)
    norms.set_title("norm of the gradient of each convolution, at the end", loc="left", fontsize=10, color=INK)
    errors.set_xlabel("epoch", fontsize=9, color=QUIET)
    norms.set_xlabel("depth: 0 the first convolution, 1 the last", fontsize=9, color=QUIET)
    for labels in (norms.yaxis.set_major_formatter, norms.yaxis.set_minor_formatter):
        labels(lambda value, place: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    errors.legend(fontsize=8.5, frameon=False, labelcolor=INK)
    for axes in (errors, norms):
        quiet_axes(axes)
    save_png(figure, path)


# ---- the command
def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, usage="%(prog)s DIR EXPERIMENT [options]")
    parser.add_argument("data", metavar="DIR", type=Path, help="CIFAR-10 in class folders")
    parser.add_argument("experiment", metavar="EXPERIMENT", choices=EXPERIMENTS, help=", ".join(EXPERIMENTS))
    parser.add_argument("--archive", metavar="FILE", type=Path, help="a tar archive to unpack into DIR first")
    parser.add_argument("--nets", metavar="NET", nargs="+", help="some of the experiment's (default: all)")
    parser.add_argument("--epochs", metavar="N", type=int, help="default: 11 for airbench; 60 for long; 164 "
                        "for published; 8, 3,120 steps of 128, for degradation and cosine")
    parser.add_argument("--batch", metavar="N", type=int, help="images in a batch (default: the recipe's)")
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or reference (default: auto)")
    parser.add_argument("--threads", metavar="N", type=int, help="of the processor (default: all cores)")
    parser.add_argument("--out", metavar="DIR", default="runs", help="folder of all runs (default: runs)")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run, of one net and seed")
    parser.add_argument("--results", metavar="FILE", type=Path, help="add the runs to the page FILE.md (and FILE.json, "
                        "FILE.png)")
    parser.add_argument("--note", metavar="TEXT", default="", help="what its readers should know of these images")
    return parser.parse_args(arguments)


def nets_of(options: argparse.Namespace) -> list[str]:
    known = EXPERIMENTS[options.experiment].nets
    if unknown := [net for net in options.nets or () if net not in known]:
        raise ConfigError(f"--nets {unknown[0]}: the experiment {options.experiment} is of {', '.join(known)}")
    nets = list(options.nets or known)
    if options.resume and len(nets) * len(options.seeds) > 1:
        raise ConfigError("--resume goes on with one run: name its net with --nets, and its seed with --seeds")
    return nets


def train_all(options: argparse.Namespace) -> int:
    """One run for each net and seed, all on the same images."""
    nets = nets_of(options)
    if options.archive:
        unpack(options.archive, options.data)
    settings = settings_of(options, nets[0], options.seeds[0])
    use_threads(settings)
    splits = open_data(settings["data"], size=MODELS[nets[0]].image_size, hold_out=False)
    if options.results:
        check_page(options.results)
    for seed in options.seeds:
        for model in nets:
            if (report := run(options, splits, model, seed)) is None:
                return 130
            if options.results:
                add_to_page(options.results, [report], order, partial(lines_and_picture, options.results))
    return 0


def lines_and_picture(results: Path, reports: list[dict]) -> list[str]:
    """The page, after its picture has been drawn."""
    picture = results.with_suffix(".png")
    if some := [report for report in reports if report["experiment"] == "degradation"]:
        draw(some, picture)
    return page(reports, picture.name)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_code(lambda: train_all(options))


if __name__ == "__main__":
    sys.exit(main())
