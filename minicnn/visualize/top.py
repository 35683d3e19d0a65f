"""The images of a set to which units respond most, as in Figure 2 of Zeiler and Fergus.

One activation for each image, at its best position in the map. The images are streamed: only `count` values, indices
and positions are kept for each unit, however large the set. Each is then shown as the patch that its receptive field
cuts from the image, beside its projection to the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.system.terminal import is_terminal
from minicnn.visualize.projection import project
from minicnn.visualize.units import check_unit
from minicnn.visualize.views import in_pixels, views

COUNT = 9                                       # of each map, in Figure 2


@dataclass(frozen=True)
class Top:
    """For K units, the best first; fewer than `count` where the set has fewer images.

    values: (K, count) activations.   images: (K, count) indices in the set.   positions: (K, count, 2) rows and columns
    in the map, 0 for a layer without them.   seen: images of the set.
    """

    layer: str
    units: np.ndarray
    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray
    seen: int


def top_images(net, pipeline: InputPipeline, dataset: Dataset, layer: str, units: Sequence[int] | None = None, *,
               count: int = COUNT, batch: int = 32, progress: bool = True) -> Top:
    """The images with the largest activations of these units (channels) of a layer; by default of all its units.

    Of equal activations, those of the earlier image count more. Memory does not grow with the set.
    """
    shape = check_unit(net, layer, None)
    units = np.arange(shape[-1]) if units is None else np.asarray(units)
    for unit in units.tolist():
        check_unit(net, layer, unit)
    values = np.empty((len(units), 0))
    images, places = np.empty((len(units), 0), np.int64), np.empty((len(units), 0), np.int64)
    for indices, x in _stream(pipeline, dataset, batch, progress):
        net.forward(x, keep=layer)
        outputs = net.ops.to_host(net.activation(layer))[..., units]
        outputs = outputs.reshape(len(x), -1, len(units)).transpose(2, 0, 1)                    # (K, n, H * W)
        best = outputs.argmax(axis=2)
        values = np.concatenate([values, np.take_along_axis(outputs, best[..., None], 2)[..., 0]], axis=1)
        images = np.concatenate([images, np.broadcast_to(indices, best.shape)], axis=1)
        places = np.concatenate([places, best], axis=1)
        kept = np.argsort(-values, axis=1, kind="stable")[:, :count]
        values, images, places = (np.take_along_axis(array, kept, 1) for array in (values, images, places))
    columns = shape[1] if len(shape) == 3 else 1
    return Top(layer, units, values, images, np.stack([places // columns, places % columns], axis=2), len(dataset))


def _stream(pipeline: InputPipeline, dataset: Dataset, batch: int, progress: bool):
    """(indices, network inputs) of the whole set, with a progress bar."""
    from tqdm import tqdm

    with tqdm(total=len(dataset), desc="strongest images", unit=" images", leave=False, dynamic_ncols=True,
              disable=not (progress and is_terminal())) as bar:
        for images in Loader(dataset, batch).epoch(0):
            yield images.indices, pipeline.evaluation(images)
            bar.update(len(images.indices))


@dataclass(frozen=True)
class Patches:
    """patches: uint8 (h, w, 3), what the receptive fields cut from the images.   projections: (h, w, 3), of the same
    pixels.   caption: how they were computed."""

    patches: list[np.ndarray]
    projections: list[np.ndarray]
    caption: str


def top_patches(net, pipeline: InputPipeline, dataset: Dataset, top: Top, unit: int, *, rule: str = "deconvnet",
                lrn: str | None = None) -> Patches:
    """The patches of one of the units in `top`, each with its projection by `rule`; see minicnn/visualize/rules.py."""
    row = top.units.tolist().index(unit)
    crops, x = views(pipeline, dataset.select(top.images[row]))
    inside = len(check_unit(net, top.layer, unit)) == 3
    found = project(net, x, top.layer, unit, top.positions[row] if inside else None, rule=rule, lrn=lrn)
    cuts = [(slice(box[0], box[2]), slice(box[1], box[3])) for box in found.boxes]
    pixels = in_pixels(pipeline, found.pixels)
    how = found.captions[0].partition("all others 0. ")[2].partition(" Receptive field")[0]
    return Patches([image[cut] for image, cut in zip(crops, cuts, strict=True)],
                   [image[cut] for image, cut in zip(pixels, cuts, strict=True)],
                   f"The {len(cuts)} of {top.seen:,} images with the largest activations ({top.values[row][0]:.4g} to "
                   f"{top.values[row][-1]:.4g}), one position per image; each activation alone was projected, "
                   f"and is drawn on its own scale, 0 grey. {how} "
                   "Patches: what the receptive field cuts from the central crop.")
