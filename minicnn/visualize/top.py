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

    def with_batch(self, net, x, indices: np.ndarray, count: int = COUNT) -> Top:
        """The strongest of these and of further images: network inputs x (n, H, W, C), `indices` (n,) in the set."""
        net.forward(x, keep=self.layer)
        outputs = net.ops.to_host(net.activation(self.layer))
        columns = outputs.shape[2] if outputs.ndim == 4 else 1
        outputs = outputs[..., self.units].reshape(len(x), -1, len(self.units)).transpose(2, 0, 1)      # (K, n, H * W)
        best = outputs.argmax(axis=2)
        values = np.concatenate([self.values, np.take_along_axis(outputs, best[..., None], 2)[..., 0]], axis=1)
        images = np.concatenate([self.images, np.broadcast_to(indices, best.shape)], axis=1)
        positions = np.concatenate([self.positions, np.stack([best // columns, best % columns], axis=2)], axis=1)
        kept = np.argsort(-values, axis=1, kind="stable")[:, :count]
        return Top(self.layer, self.units, np.take_along_axis(values, kept, 1), np.take_along_axis(images, kept, 1),
                   np.take_along_axis(positions, kept[..., None], 1), self.seen + len(x))


def top_images(net, pipeline: InputPipeline, dataset: Dataset, layer: str, units: Sequence[int] | None = None, *,
               count: int = COUNT, batch: int = 32, progress: bool = True) -> Top:
    """The images with the largest activations of these units (channels) of a layer; by default of all its units.

    Of equal activations, those of the earlier image count more. Memory does not grow with the set.
    """
    shape = check_unit(net, layer, None)
    units = np.arange(shape[-1]) if units is None else np.asarray(units)
    for unit in units.tolist():
        check_unit(net, layer, unit)
    found = no_images(layer, units)
    for indices, x in stream(pipeline, dataset, batch, progress, "strongest images"):
        found = found.with_batch(net, x, indices, count)
    return found


def no_images(layer: str, units: np.ndarray) -> Top:
    """Of these units of a layer, before the first image."""
    none = np.empty((len(units), 0), np.int64)
    return Top(layer, units, none.astype(float), none, np.empty((len(units), 0, 2), np.int64), 0)


def stream(pipeline: InputPipeline, dataset: Dataset, batch: int, progress: bool, title: str):
    """(indices, network inputs) of the whole set, with a progress bar."""
    from tqdm import tqdm

    with tqdm(total=len(dataset), desc=title, unit=" images", leave=False, dynamic_ncols=True,
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
