"""`minicnn look`: pictures of what a trained network responds to, for photographs or over a set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.scan import scan
from minicnn.errors import ConfigError, expected
from minicnn.experiment.prepare import open_sets
from minicnn.experiment.settings import settle
from minicnn.experiment.trained import load_trained
from minicnn.graph import Net
from minicnn.system.terminal import is_terminal
from minicnn.train.runs.run_dir import BEST, find_checkpoint
from minicnn.visualize.gradients import ClassMap, grad_cam, integrated_gradients, last_map, saliency
from minicnn.visualize.occlusion import occlusion
from minicnn.visualize.panels import Panel, class_colours, draw_panels, on_grey
from minicnn.visualize.projection import project
from minicnn.visualize.top import top_images, top_patches
from minicnn.visualize.units import check_unit, name_of
from minicnn.visualize.views import grey_input, in_pixels, mean_words, photographs, views

RULES = {"deconv": "deconvnet", "guided": "guided", "gradient": "backprop"}
CLASS_MAPS = {"saliency": saliency, "integrated": integrated_gradients, "gradcam": grad_cam}
TITLES = {"deconv": "Deconvnet", "guided": "Guided backpropagation", "gradient": "Activation times gradient",
          "saliency": "Saliency", "integrated": "Integrated gradients", "gradcam": "Grad-CAM", "occlusion": "Occlusion"}
WHATS = (*RULES, *CLASS_MAPS, "occlusion", "top")


class Looking:
    """A trained network, the photographs, and what was asked for."""

    def __init__(self, options: argparse.Namespace, net: Net, pipeline: InputPipeline, classes: list[str]):
        self.options, self.net, self.pipeline, self.classes = options, net, pipeline, classes
        self.layer = options.layer or last_map(net)
        self.shape = check_unit(net, self.layer, options.unit)

    def photographs(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(file, central crop, network input) of each; all are read before the first picture is made."""
        if not self.options.files:
            raise ConfigError(f"--what {self.options.what} is of photographs; name at least one: minicnn look RUN "
                              "photo.jpg")
        crops, x = views(self.pipeline, photographs(self.pipeline, self.options.files))
        return list(zip(self.options.files, crops, x, strict=True))

    def label(self) -> int | None:
        """The class that --class names, by name or number; None for the most probable one."""
        wanted = self.options.label
        if wanted is None or wanted in self.classes:
            return None if wanted is None else self.classes.index(wanted)
        if wanted.isdigit() and int(wanted) < len(self.classes):
            return int(wanted)
        raise ConfigError(f"there is no class {wanted!r}: {expected(wanted, self.classes)}")

    def named(self, label: int, score: float) -> str:
        return f"{self.classes[label]}, score {score:.3g}"


def projection(looking: Looking, crop, x) -> tuple[list[Panel], str]:
    """The crop, what reached its pixels, and both within the receptive field."""
    options = looking.options
    found = project(looking.net, x[None], looking.layer, options.unit, rule=RULES[options.what], lrn=options.lrn)
    top, left, bottom, right = box = found.boxes[0]
    pixels = in_pixels(looking.pipeline, found.pixels[0])
    drawn, panels = on_grey(pixels), [Panel(crop, "what the network takes", box=box)]
    panels.append(Panel(drawn, "projection: grey is 0", box=box))
    if (bottom - top, right - left) != crop.shape[:2]:
        panels += [Panel(drawn[top:bottom, left:right], "receptive field: projection"),
                   Panel(crop[top:bottom, left:right], "receptive field")]
    return panels, found.captions[0] + " Contrast: the 99.9th percentile of its absolute values is full."


def class_map(looking: Looking, crop, x) -> tuple[list[Panel], str]:
    """The crop and the map of a class score."""
    how, options = CLASS_MAPS[looking.options.what], {}
    if how is grad_cam:
        options["layer"] = looking.layer
    found: ClassMap = how(looking.net, x[None], looking.label(), **options)
    values, label = found.maps[0], int(found.labels[0])
    peak = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
    panels = [Panel(crop, f"what the network takes; class {looking.named(label, found.scores[0])}")]
    if how is grad_cam:
        panels.append(Panel(crop, "the map over it, enlarged bilinearly", heat=values, limits=(0.0, peak)))
    signed = how is integrated_gradients
    words = f"red raises the score, blue lowers it; full: {peak:.2g}" if signed else f"0 dark, {peak:.2g} bright"
    panels.append(Panel(None, words, heat=values, limits=(-peak if signed else 0.0, peak)))
    why = "asked for" if looking.options.label else "the most probable"
    return panels, f"Class {looking.classes[label]!r}, {why}. {found.caption[0].upper()}{found.caption[1:]}. " \
                   "Full colour: the 99.5th percentile."


def covered(looking: Looking, crop, x) -> tuple[list[Panel], str]:
    """The three maps of Figure 7."""
    options = looking.options
    fill, words = 0.0, mean_words(looking.pipeline)
    if options.grey is not None:
        if not 0 <= options.grey <= 255:
            raise ConfigError(f"--grey must be from 0 to 255, got {options.grey}")
        fill = grey_input(looking.pipeline, options.grey)
        words = f"grey {options.grey} of 255"
    found = occlusion(looking.net, x, looking.label(), layer=looking.layer, unit=options.unit, square=options.square,
                      step=options.step, fill=fill, fill_words=words)
    colours, legend = class_colours(found.best, looking.classes)
    low, high = float(found.activation.min()), float(found.activation.max())
    box, place = (0, 0, options.square, options.square), (found.place, crop.shape[:2])
    panels = [Panel(crop, "what the network takes; frame: the square's first position", box=box),
              Panel(None, f"map: {low:.3g} dark, {high:.3g} bright", heat=found.activation, limits=(low, high),
                    place=place),
              Panel(None, f"probability of {looking.classes[found.label]}: {found.probability.min():.2f} dark, "
                    f"{found.probability.max():.2f} bright", heat=found.probability,
                    limits=(float(found.probability.min()), float(found.probability.max())), place=place),
              Panel(colours, "most probable class", legend=legend, place=place)]
    return panels, found.caption


def strongest(looking: Looking, folder: Path, dataset: Dataset) -> list[Path]:
    """Figure 2 for one unit, or for the units whose largest activations in the set are the largest."""
    options, net = looking.options, looking.net
    top = top_images(net, looking.pipeline, dataset, looking.layer, None if options.unit is None else [options.unit])
    order = np.argsort(-top.values[:, 0], kind="stable")[:options.maps]
    rows = []
    for unit in top.units[order].tolist():
        found = top_patches(net, looking.pipeline, dataset, top, unit, rule=RULES[options.rule], lrn=options.lrn)
        name = name_of(looking.layer, unit, looking.shape)
        rows.append(([Panel([on_grey(pixels) for pixels in found.projections], f"{name}: projections"),
                      Panel(found.patches, "the patches")], found.caption))
    which = f"{looking.layer}-{options.unit if options.unit is not None else 'strongest'}"
    return [draw_panels(rows, folder / f"top-{which}.png", f"{looking.layer}: the strongest of {dataset.name}")]


def look(options: argparse.Namespace) -> list[Path]:
    """Make the pictures that are asked for; returns their paths. MinicnnError before the first for a mistake."""
    checkpoint = find_checkpoint(options.out, options.checkpoint, BEST)
    net, pipeline, meta = load_trained(checkpoint, options.device or "auto")
    looking = Looking(options, net, pipeline, meta["classes"])
    folder = Path(options.to) if options.to else checkpoint.parent / "look"
    if options.what == "top":
        return strongest(looking, folder, _set(looking, checkpoint))
    make: Callable = projection if options.what in RULES else covered if options.what == "occlusion" else class_map
    paths = []
    for file, crop, x in looking.photographs():
        row = make(looking, crop, x)
        unit = "" if options.unit is None or options.what in CLASS_MAPS else f"-{options.unit}"
        name = f"{Path(file).stem}-{options.what}" + (f"-{looking.layer}{unit}" if uses_layer(options.what) else "")
        paths.append(draw_panels([row], folder / f"{name}.png", f"{TITLES[options.what]}: {Path(file).name}"))
    return paths


def uses_layer(what: str) -> bool:
    """Whether this picture is of a layer."""
    return what not in ("saliency", "integrated")


def held_out(options: argparse.Namespace, checkpoint: Path, pipeline: InputPipeline) -> Dataset:
    """The held-out images of --data or of the run: those of test, or of val where there are none."""
    splits = open_sets(settle(options, checkpoint), preprocess=pipeline.preprocess)
    return splits.val if splits.test is None else splits.test


def _set(looking: Looking, checkpoint: Path) -> Dataset:
    """The photographs that are named, else the held-out ones of --data or of the run; unreadable ones left out."""
    options = looking.options
    if options.files:
        dataset = photographs(looking.pipeline, options.files)
    else:
        dataset = held_out(options, checkpoint, looking.pipeline)
    scan(dataset, progress=is_terminal())
    return dataset
