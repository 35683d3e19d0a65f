"""The top patches of a layer's units, found a part of the set at a time, so that the page stays alive meanwhile."""

from __future__ import annotations

import time

import numpy as np

from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.errors import DataError
from minicnn.explore.pictures import png
from minicnn.graph import Net
from minicnn.visualize.panels import on_grey
from minicnn.visualize.top import no_images, top_patches
from minicnn.visualize.units import output_shape

BATCH, SECONDS = 32, 0.7                    # images at a time; before an answer


class Strongest:
    """Of one layer, over images of the set in a random order that is always the same. What cannot be read is left
    out."""

    def __init__(self, net: Net, pipeline: InputPipeline, dataset: Dataset, layer: str):
        self.net, self.pipeline, self.dataset = net, pipeline, dataset
        self._order, self._at, self._unread = np.random.default_rng(0).permutation(len(dataset)), 0, 0
        self._top = no_images(layer, np.arange(output_shape(net, layer)[-1]))

    def advance(self, unit: int, rule: str, until: int) -> dict:
        """Read on until so many images have been seen, but after a batch not longer than SECONDS. The patches of a unit
        where they have been, or where there are no more."""
        until, stop = min(until, len(self._order)), time.monotonic() + SECONDS
        while self._at < until:
            self._read(self._order[self._at:min(self._at + BATCH, until)])
            if time.monotonic() > stop:
                break
        found = {"seen": self._at, "of": len(self._order), "patches": None}
        if self._at >= until and not self._top.seen:
            raise DataError(f"{self.dataset.name}: none of the first {self._at:,} images can be read")
        return found | (self._patches(unit, rule) if self._at >= until else {})

    def _read(self, indices: np.ndarray) -> None:
        self._at += len(indices)
        try:
            batches = list(Loader(self.dataset.select(indices), len(indices)).epoch(0))
        except ImageError:
            readable = np.array([_is_readable(self.dataset, index) for index in indices])
            self._unread += int((~readable).sum())
            indices = indices[readable]
            batches = list(Loader(self.dataset.select(indices), len(indices)).epoch(0)) if len(indices) else []
        for batch in batches:
            self._top = self._top.with_batch(self.net, self.pipeline.evaluation(batch), indices)

    def _patches(self, unit: int, rule: str) -> dict:
        found = top_patches(self.net, self.pipeline, self.dataset, self._top, unit, rule=rule)
        left_out = f" {self._unread} could not be read." if self._unread else ""
        return {"caption": f"{found.caption} Of {self.dataset.name}, which has {len(self.dataset):,}.{left_out}",
                "patches": [{"patch": png(patch), "projection": png(on_grey(pixels))}
                            for patch, pixels in zip(found.patches, found.projections, strict=True)]}


def _is_readable(dataset: Dataset, index: int) -> bool:
    try:
        dataset.read(index)
    except ImageError:
        return False
    return True
