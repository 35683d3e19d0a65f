"""What units respond to: deconvnet and occlusion of the photographs that are shown, and the strongest images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.errors import MinicnnError
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.layers.conv import Conv2d
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import MaxPool2d
from minicnn.report.held_out import HeldOut, chosen
from minicnn.report.pictures import heat, over
from minicnn.report.run import Run
from minicnn.visualize.gradients import last_map
from minicnn.visualize.occlusion import Occlusion, occlusion
from minicnn.visualize.panels import class_colours, on_grey
from minicnn.visualize.projection import Projection, project
from minicnn.visualize.top import COUNT, top_images, top_patches
from minicnn.visualize.units import check_unit, prediction_plan
from minicnn.visualize.views import in_pixels, views

OTHERS = (GELU, LeakyReLU, Sigmoid, Tanh)          # a deconvnet has no rule for them
COVERED, LEAST = 3, 1                   # photographs that are occluded, if the network is not too large for it
MULTIPLY_ADDS = 4e11                    # of the occlusions, and of each part of the search for the strongest images
FEWEST, POSITIONS = 7, 15               # positions of the square in a row, about
UNITS = 4                               # of a layer


@dataclass(frozen=True)
class Seen:
    """crops (N, h, w, 3) uint8: what the network takes of the photographs that are shown.   layer, shape: of the
    projected activations.   drawn (N, h, w, 3): the projections, 0 grey."""

    crops: np.ndarray
    layer: str
    shape: tuple[int, ...]
    found: Projection
    drawn: np.ndarray


def deconvnets(run: Run, held: HeldOut, indices: np.ndarray) -> Seen:
    """The largest activation of the last maps for each photograph, projected to the pixels."""
    crops, x = views(run.pipeline, held.images.select(indices))
    layer = last_map(run.net)
    found = project(run.net, x, layer)
    drawn = np.stack([on_grey(pixels) for pixels in in_pixels(run.pipeline, found.pixels)])
    return Seen(crops, layer, check_unit(run.net, layer, None), found, drawn)


def rules_used(net) -> tuple[list[str], list[str]]:
    """Keys of the texts that say how a deconvnet passes through this network; and its activations that are no ReLU."""
    layers = [node.layer for node in net.nodes if node.name in prediction_plan(net).where]
    kinds = {"relu": (ReLU, ClippedReLU), "other": OTHERS, "pool": MaxPool2d, "norm": BatchNorm2d, "conv": Conv2d,
             "lrn": (LRN, LRNWithin)}
    found = [name for name, kind in kinds.items() if any(isinstance(layer, kind) for layer in layers)]
    return found, sorted({type(layer).__name__ for layer in layers if isinstance(layer, OTHERS)})


@dataclass(frozen=True)
class Covered:
    """number: of the photograph.   activation, probability, classes: maps over the photograph, uint8 images; legend:
    (colour, class) of the last; names shortened by nobody."""

    number: int
    found: Occlusion
    activation: np.ndarray
    probability: np.ndarray
    classes: np.ndarray
    legend: list[tuple[str, str]]


def occlusions(run: Run, seen: Seen, held: HeldOut, indices: np.ndarray) -> list[Covered]:
    """Some photographs, covered by a square that is moved over them; the class is the predicted one.

    One that is predicted wrongly, where there is one, then others; those of least probability, whose maps show most.
    """
    side = seen.crops.shape[1]
    row = np.clip(np.sqrt(MULTIPLY_ADDS / run.macs), FEWEST, POSITIONS)
    step = max(1, round(side / row))
    square = max(step, round(side * 48 / 224))
    positions = len(range(0, side - square + 1, step)) ** 2
    count = int(np.clip(MULTIPLY_ADDS // (positions * run.macs), LEAST, COVERED))
    guesses, probability = held.guesses[indices], held.found.probabilities[indices].max(axis=1)
    wrong, order = guesses != held.found.labels[indices], np.argsort(probability, kind="stable")
    numbers = [*order[wrong[order]][:1], *order[~wrong[order]], *order[wrong[order]][1:]][:count]
    _, x = views(run.pipeline, held.images.select(indices[numbers]))
    return [_covered(int(n), run, seen.crops[n], image, int(guesses[n]), square, step)
            for n, image in zip(numbers, x, strict=True)]


def _covered(number: int, run: Run, crop: np.ndarray, x: np.ndarray, label: int, square: int, step: int) -> Covered:
    found = occlusion(run.net, x, label, layer=last_map(run.net), square=square, step=step)
    colours, legend = class_colours(found.best, run.classes)
    maps = [over(crop, heat(values, float(values.min()), float(values.max())), found.place)
            for values in (found.activation, found.probability)]
    return Covered(number, found, *maps, over(crop, np.rint(255 * colours).astype(np.uint8), found.place, 0.6), legend)


@dataclass(frozen=True)
class Strongest:
    """unit: of a layer.   values: its activations, the largest first.   patches, projections: of as many images."""

    layer: str
    unit: int
    shape: tuple[int, ...]
    values: np.ndarray
    patches: list[np.ndarray]
    projections: list[np.ndarray]
    seen: int


def strongest(run: Run, held: HeldOut) -> list[Strongest]:
    """Figure 2 of Zeiler and Fergus for some units of two layers: those with the largest activations."""
    most = int(np.clip(MULTIPLY_ADDS // run.macs, 30, 500))
    units = int(np.clip(MULTIPLY_ADDS // (2 * 3 * COUNT * run.macs), 1, UNITS))       # a projection is three passes
    images, found = held.images.select(chosen(len(held.images), most)), []
    for layer in layers(run.net):
        top = top_images(run.net, run.pipeline, images, layer)
        for unit in top.units[np.argsort(-top.values[:, 0], kind="stable")[:units]].tolist():
            patches = top_patches(run.net, run.pipeline, images, top, unit)
            found.append(Strongest(layer, unit, check_unit(run.net, layer, unit), top.values[top.units == unit][0],
                                   patches.patches, [on_grey(one) for one in patches.projections], top.seen))
    return found


def layers(net) -> list[str]:
    """A convolution of the lower third, and the last one of the prediction."""
    plan = prediction_plan(net)
    found = [node.name for node in net.nodes if isinstance(node.layer, Conv2d) and node.name in plan.where]
    if not found:
        raise MinicnnError("the network has no convolution")
    return list(dict.fromkeys([found[len(found) // 3], found[-1]]))
