"""The test images: accuracy beside that of always predicting the most frequent class, and the pictures of a run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minicnn.backend.cpu import thread_report
from minicnn.data.dataset import Dataset, Splits
from minicnn.data.input import InputPipeline
from minicnn.data.scan import scan
from minicnn.errors import ConfigError
from minicnn.evaluate.evaluate import Evaluation, averaged, evaluate
from minicnn.evaluate.fold import folded
from minicnn.evaluate.metrics import majority
from minicnn.evaluate.predict import check_finite
from minicnn.evaluate.protocols import PROTOCOLS, Protocol, find_protocol
from minicnn.experiment.nets import title
from minicnn.experiment.prepare import sets_for, use_threads
from minicnn.experiment.say import draw, say
from minicnn.experiment.settings import about_of, settle
from minicnn.experiment.trained import load_trained
from minicnn.graph import Net
from minicnn.system.files import signed, write_json
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.run_dir import BEST, TEST, find_checkpoint, folder_for, restore, saved_recipe
from minicnn.visualize.report import PREDICTIONS, draw_run, draw_sheet

ONE, TEN = (PROTOCOLS[name].label for name in ("crop", "ten-crop"))
USUAL = ("crop", "ten-crop")


@dataclass
class Tested:
    """results: Evaluation by the label of its protocol, such as "centre crop".   report: of them, as plain data."""

    held_out: Dataset
    results: dict[str, Evaluation]
    report: dict

    @property
    def first(self) -> Evaluation:
        """By the first protocol, of which the picture is."""
        return next(iter(self.results.values()))


def evaluate_held_out(net: Net, pipeline: InputPipeline, splits: Splits, checkpoint: Path, meta: dict, batch: int,
                      ten_crop: bool, *, protocols: Sequence[Protocol] = (), scales: Sequence[int] = ()) -> Tested:
    """Evaluate a network, which holds the weights of `checkpoint`, on the test images; on val where there are none.

    meta: of the checkpoint.   protocols, scales: see evaluate; default by one crop, and with `ten_crop` by ten, too.
    """
    protocols = protocols or [PROTOCOLS[name] for name in USUAL[:1 + ten_crop]]
    held_out, name = (splits.test, "test") if splits.test is not None else (splits.val, "validation, for want of test")
    asked = {f"{protocol.label} at {', '.join(map(str, scales))}" if scales else protocol.label: protocol
             for protocol in protocols}
    say("evaluating", f"{len(held_out):,} {name.partition(',')[0]} images: {', '.join(asked)}")
    scan(held_out)
    if held_out.skipped:
        say("skipped", held_out.report_skipped())
    epoch, which = meta["epoch"], ", averaged weights" if meta.get("average") else ""
    report = {"checkpoint": checkpoint.name, "epoch": epoch, "images": len(held_out), "set": name,
              "majority": majority(held_out.labels)}
    results: dict[str, Evaluation] = {}
    net = folded(net)
    for label, protocol in asked.items():
        result = results[label] = evaluate(net, held_out, pipeline, batch=batch, protocol=protocol, scales=scales,
                                           title=f"{name}, {label}")
        check_finite(result.probabilities, "the network's outputs", f" for {name} images")
        report[label] = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
        say("test", f"{result}: {len(held_out):,} {name} images, {label}, {checkpoint.name} (epoch {epoch}{which})")
    say("majority", f"accuracy {100 * report['majority']:.1f} % by always predicting the most frequent class")
    if len(splits.classes) > 5:
        worst = [f"{splits.classes[k]} {100 * share:.0f} % of {count}" for k, share, count in result.by_class()[:5]]
        say("worst", ", ".join(worst))
    return Tested(held_out, results, report)


def evaluate_best(net: Net, splits: Splits, run_dir: Path, batch: int, ten_crop: bool) -> dict:
    """Evaluate the best checkpoint of a run that `net` has trained, write test.json and draw. Returns the report."""
    pipeline, saved = restore(net, run_dir / BEST, splits.classes)
    epoch = saved.meta["epoch"]
    tested = evaluate_held_out(net, pipeline, splits, run_dir / BEST, saved.meta, batch, ten_crop)
    write_json(run_dir / TEST, signed(tested.report, "test"))
    about = about_of(saved.meta)
    draw(draw_run, run_dir, net=net, title=f"{title(about)} on {splits.name}", epochs=epoch, held_out=tested.held_out,
         images_seen=epoch * saved.meta["steps"] * batch, result=tested.first,
         start=saved.data.get("start"), alexnet=about["model"] == "alexnet")
    return tested.report


def _same_images(first: Dataset, splits: Splits) -> bool:
    """Whether the held-out images of another folder are these, which have been read."""
    other = splits.test if splits.test is not None else splits.val
    scan(other)
    return first.content == other.content


def evaluate_runs(options: argparse.Namespace, runs: list[str]) -> int:
    """Evaluate the best checkpoint of each run, by one crop and by ten, or as options.protocol and options.scales say;
    of several runs, also their average."""
    if getattr(options, "results", None):
        raise ConfigError("--results keeps a training run, and --evaluate only evaluates: leave one of the two out")
    protocols = [find_protocol(name) for name in getattr(options, "protocol", None) or USUAL]
    scales = sizes(getattr(options, "scales", None) or "")
    tested, data = [], None
    for which in runs:
        checkpoint = find_checkpoint(options.out, which, BEST)
        settings = settle(options, checkpoint)
        use_threads(settings)
        saved = load_checkpoint(checkpoint, parts=("data",))
        splits, own = sets_for(settings, saved.meta, saved_recipe(saved).preprocess)
        saved.check_classes(splits.classes)
        if data not in (None, settings["data"]) and not _same_images(tested[0].held_out, splits):
            raise ConfigError(f"{checkpoint} was trained on {settings['data']}, the one before it on {data}; "
                              "runs that are averaged must have the same data")
        if data != settings["data"]:
            say("data", splits.description)
        data = settings["data"]
        if len(runs) > 1:
            say("network", f"{title(settings)}, {checkpoint}")
        net, pipeline, meta = load_trained(checkpoint, settings["device"])
        if not tested:
            say("device", f"{net.ops.spec}, {thread_report()}")
        one = evaluate_held_out(net, pipeline, splits, checkpoint, meta, settings["batch"], True, protocols=protocols,
                                scales=scales)
        tested.append(one)
        draw(draw_sheet, folder_for(checkpoint), f"{title(settings)} on {splits.name}", one.held_out,
             one.first, sheet_name("" if own else splits.name, next(iter(one.results))))
    for label in tested[0].results if len(tested) > 1 else ():
        say("averaged", f"{averaged([one.results[label] for one in tested])}: {len(tested)} networks, {label}")
    return 0


def sheet_name(data: str, protocol: str) -> str:
    """File of the picture: what training drew, of the run's own images at the centre crop, is replaced by its like
    alone.   data: the name of other images."""
    apart = [data, "" if protocol == ONE else re.sub(r"\W+", "-", protocol)]
    return "-".join(filter(None, [Path(PREDICTIONS).stem, *apart])) + Path(PREDICTIONS).suffix


def sizes(text: str) -> list[int]:
    """The sizes of "256,384". ConfigError for what is none."""
    try:
        found = [int(part) for part in text.split(",") if part]
    except ValueError:
        found = [0]
    if found and min(found) < 1:
        raise ConfigError(f"--scales {text}: expected sizes of the short side, such as 256,384,512")
    return found
