"""Statistics of the training set: its mean image, and the principal components of its colours.

The paper subtracts "the mean activity over the training set from each pixel" (section 2) and shifts the colours of
training images along the principal components of "the set of RGB pixel values throughout the training set" (section
4.1). Both come from one pass that also leaves out unreadable images (scan.py), or from the preparation of the set
(prepared.py), which has made that pass. Of images that keep their aspect, they are those of the central squares.

    mean         float32 (A, B, 3), 0..255
    eigenvalues, eigenvectors    of the 3x3 covariance of RGB pixels scaled to 0..1: the largest first, one per column
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.images import central_square
from minicnn.data.pixel_stats import PixelStats
from minicnn.data.scan import scan
from minicnn.errors import DataError
from minicnn.system.files import cannot_write, read_safetensors, write_safetensors

FORMAT = "minicnn statistics 1"


@dataclass(frozen=True)
class Statistics:
    """Mean image (A, B, 3) in 0..255, and the principal components of RGB in 0..1, over `count` images."""

    mean: np.ndarray
    eigenvalues: np.ndarray        # float64 (3,), descending
    eigenvectors: np.ndarray       # float64 (3, 3), columns
    count: int

    @property
    def pca(self) -> tuple[np.ndarray, np.ndarray]:
        """(eigenvalues, eigenvectors), as Augment.draw takes them."""
        return self.eigenvalues, self.eigenvectors


def measure(dataset: Dataset, path: str | os.PathLike | None = None, *, workers: int | None = None,
            progress: bool = True) -> Statistics:
    """The statistics of a training set, and the unreadable images left out of it.

    path: a safetensors file to keep them in. Where it already holds this set's, they are read from it, with the list of
    the images left out, and no image is decoded. A prepared set comes with its statistics. DataError when no image can
    be read.
    """
    if dataset.statistics is not None:
        return dataset.statistics
    if path is not None and os.path.exists(path):
        found = _load(path, dataset)
        if found is not None:
            return found
    sums = PixelStats(dataset.image_shape)
    scan(dataset, visit=lambda image: sums.add(central_square(image)), workers=workers, progress=progress,
         title=f"mean image of {dataset.name}")
    if sums.count == 0:
        raise DataError(f"{dataset.name}: no images to compute the mean image of")
    statistics = statistics_of(sums)
    if path is not None:
        _save(path, dataset, statistics)
    return statistics


def measure_and_keep(dataset: Dataset, *, progress: bool, say: Callable[[str], None]) -> Statistics:
    """The same, kept in the user's cache. A cache that cannot be read or written costs a remark, given to `say`."""
    if dataset.statistics is not None:
        return dataset.statistics
    later = "the mean image will be measured again in the next run: "
    try:
        path = kept_statistics(dataset)
    except RuntimeError as error:                       # the user has no home folder
        say(f"{later}{error}")
        return measure(dataset, progress=progress)
    try:
        found = _load(path, dataset) if path.exists() else None
    except (OSError, ValueError, KeyError) as error:
        say(f"the mean image that was kept cannot be used, and is measured again: {error}")
        found = None
    if found is None:
        found = measure(dataset, progress=progress)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(path, dataset, found)
        except (OSError, DataError) as error:
            say(f"{later}{error}")
    return found


def kept_statistics(dataset: Dataset) -> Path:
    """The file in the user's cache for the statistics of these files, as they are now; see Dataset.state."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "minicnn" / f"statistics-{dataset.state()[:24]}.safetensors"


def statistics_of(sums: PixelStats) -> Statistics:
    """The statistics that follow from the sums over all images."""
    return Statistics(sums.mean, *principal_components(sums.rgb, sums.outer, sums.pixels), sums.count)


def principal_components(rgb: np.ndarray, outer: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (3,), descending, and eigenvectors (3, 3), columns, of the covariance of RGB in 0..1.

    rgb (3,) and outer (3, 3) are the sums of x and of x x^T over all pixels x in 0..255. Each eigenvector has the
    sign that makes the sum of its components positive.
    """
    mean = rgb / pixels
    covariance = (outer / pixels - np.outer(mean, mean)) / 255.0**2
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    eigenvalues, eigenvectors = eigenvalues[::-1].clip(min=0.0), eigenvectors[:, ::-1]
    return eigenvalues, eigenvectors * np.where(eigenvectors.sum(axis=0) < 0, -1.0, 1.0)


def _save(path, dataset: Dataset, statistics: Statistics) -> None:
    tensors = {name: getattr(statistics, name) for name in ("mean", "eigenvalues", "eigenvectors")}
    tensors["checksums"] = dataset.checksums
    notes = {"format": FORMAT, "fingerprint": dataset.fingerprint, "count": str(statistics.count),
             "left_out": json.dumps(dataset.left_out)}
    try:
        write_safetensors(path, tensors, notes)
    except OSError as error:
        raise cannot_write(path, error, DataError, " with XDG_CACHE_HOME") from error


def _load(path, dataset: Dataset) -> Statistics | None:
    """What _save wrote for this very listing; None for another's. DataError for a file that is something else."""
    try:
        tensors, notes = read_safetensors(path)
        if notes.get("format") != FORMAT:
            raise DataError("it does not hold minicnn's statistics of a data set")
        if notes["fingerprint"] != dataset.fingerprint or "checksums" not in tensors:
            return None
        found = Statistics(tensors["mean"], tensors["eigenvalues"], tensors["eigenvectors"], int(notes["count"]))
        if (found.mean.shape, found.eigenvalues.shape, found.eigenvectors.shape) != (dataset.image_shape, (3,), (3, 3)):
            raise DataError("it holds arrays of other shapes")
        left_out = {int(position): str(reason) for position, reason in json.loads(notes["left_out"]).items()}
        if not set(left_out) <= set(range(len(dataset.labels) + len(dataset.skipped))):
            raise DataError("it leaves out images that there are not")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"cannot read the statistics in {path}: {error}; delete the file to measure again") from error
    dataset.checksums = tensors["checksums"]
    dataset.leave_out(left_out)
    return found
