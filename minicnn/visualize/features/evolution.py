"""Features through training, as in Figure 4 of Zeiler and Fergus.

For each epoch whose weights were kept, the image of a set to which a map responds most, projected to the pixels. That
image changes from epoch to epoch, as in the paper: a jump in the picture is a jump of the strongest image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.errors import ConfigError
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.visualize.top import top_images, top_patches

SHOWN = 8                                               # epochs, in Figure 4


@dataclass(frozen=True)
class Evolution:
    """Of K units over E epochs.   values, images: (E, K), the largest activation and the image it is of.
    projections, patches: [epoch][unit], (h, w, 3).   caption: how they were computed.
    """

    layer: str
    units: np.ndarray
    epochs: list[int]
    values: np.ndarray
    images: np.ndarray
    projections: list[list[np.ndarray]]
    patches: list[list[np.ndarray]]
    caption: str


def evolution(net, pipeline: InputPipeline, weights: Mapping[int, Path], dataset: Dataset, layer: str, units=None, *,
              count: int = 4, rule: str = "deconvnet", lrn: str | None = None, progress: bool = True) -> Evolution:
    """The strongest activation of each unit after each epoch in `weights`: epoch -> a checkpoint of these weights.

    units: by default the `count` with the largest activations after the last epoch. The whole set is computed for
    every epoch. `net` is left with the weights of the first epoch. ConfigError where there are none.
    """
    if not weights:
        raise ConfigError("no weights were kept; a run keeps them with --keep-every EPOCHS")
    found = []
    for epoch in sorted(weights, reverse=True):         # the last one decides which units are shown
        saved = load_checkpoint(weights[epoch], parts=("params", "state"))
        net.load_arrays(saved.arrays(), str(weights[epoch]))
        top = top_images(net, pipeline, dataset, layer, units, count=1, progress=progress)
        if units is None:
            units = np.sort(np.argsort(-top.values[:, 0], kind="stable")[:count])
        rows = [top.units.tolist().index(unit) for unit in units]
        patches = [top_patches(net, pipeline, dataset, top, int(unit), rule=rule, lrn=lrn) for unit in units]
        found.append((epoch, top.values[rows, 0], top.images[rows, 0], patches))
    found.reverse()
    how = found[-1][3][0].caption.partition("0 grey. ")[2].partition(" Patches")[0]
    return Evolution(layer, np.asarray(units), [epoch for epoch, *_ in found], np.stack([row[1] for row in found]),
                     np.stack([row[2] for row in found]),
                     [[patch.projections[0] for patch in row[3]] for row in found],
                     [[patch.patches[0] for patch in row[3]] for row in found],
                     f"After each epoch, the one of {top.seen:,} images of {dataset.name} with the largest activation "
                     f"of the map, at its strongest position; this activation alone was projected. {how} "
                     "Each projection is drawn on its own scale, 0 grey; below it what the receptive field cuts from "
                     "the image, and the activation.")


def some_epochs(epochs: list[int], count: int = SHOWN) -> list[int]:
    """At most `count` of them, the first and the last included, denser at the beginning as in the paper."""
    if len(epochs) <= count:
        return epochs
    places = np.unique(np.rint(np.geomspace(1, len(epochs), count)).astype(int)) - 1
    return [epochs[place] for place in places]
