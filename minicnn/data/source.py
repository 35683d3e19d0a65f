"""Opens data sets: open_data("elpv"), open_data("synthetic") or open_data("some/folder")."""

from __future__ import annotations

import os
from functools import partial

from minicnn.data.dataset import ASPECT, USUAL_DECODING, Splits
from minicnn.data.elpv import open_elpv
from minicnn.data.folder import open_folder
from minicnn.data.prepared import is_prepared, open_prepared
from minicnn.data.procedural import CLASSES, COUNTS, procedural_sets
from minicnn.errors import DataError

CACHE_BYTES = 2**30
SIZE = 256


def open_data(spec: str | os.PathLike, seed: int = 0, *, size: int | None = None, resize: str = USUAL_DECODING[0],
              interpolation: str = USUAL_DECODING[1], cache_bytes: int = CACHE_BYTES,
              counts: tuple[int, int, int] = COUNTS, hold_out: bool = True, divide: bool = True) -> Splits:
    """A data set, split into train, val and test. Files are listed, none is decoded: see scan and measure for that.

    spec         "elpv" (the packaged photographs of solar cells), "synthetic" (procedural), or a folder: of images, or
                 one that `minicnn prepare` has written; a folder of one of these names is reached as ./elpv
    seed         of the procedural images, and of the split of a folder that comes without one. This is not the training
                 seed: runs that differ only in that are tested on the same images
    size         images become size x size, or get a short side of size; default 256, or that of a prepared set
    resize, interpolation    how, as in Preprocess; a prepared set is "short", or "aspect", and "bicubic"
    cache_bytes  memory for decoded images, at most
    counts       procedural images for train, val and test
    hold_out     False: all of a folder's train/ is learned from, see open_folder
    divide       False: a folder without a split is not split, see open_folder
    DataError when there is no such set; its subclass MissingPackageError when "elpv" is not installed.
    """
    if spec == "elpv":
        splits = open_elpv(size or SIZE)
    elif spec == "synthetic":
        train, val, test = procedural_sets(counts, seed, size or SIZE)
        splits = Splits(train, val, test, "synthetic", f"procedural images of {', '.join(CLASSES)} (no photographs): "
                        f"{len(train)} train, {len(val)} val, {len(test)} test", "none needed")
    elif not os.fspath(spec):
        raise DataError("no data set was named; expected elpv, synthetic or a folder")
    elif is_prepared(spec):
        splits = open_prepared(spec, seed, size)
    else:
        splits = open_folder(spec, seed, size or SIZE, hold_out, divide)
    _decode_by(splits, (resize, interpolation))
    splits.keep_decoded(cache_bytes)
    return splits


def _decode_by(splits: Splits, decoding: tuple[str, str]) -> None:
    """Let images that come from files be resized in this way."""
    for dataset in filter(None, (splits.train, splits.val, splits.test)):
        if dataset.root is not None:
            dataset.decoding = decoding
            dataset.decode = partial(dataset.decode, resize=decoding[0], interpolation=decoding[1])
        elif dataset.decoding not in (None, decoding):
            raise DataError(f"{splits.name} was prepared with {' and '.join(dataset.decoding)}, "
                            f"{' and '.join(decoding)} was asked for; use the folder that it was prepared from"
                            + (f", or prepare its images with --short-side {dataset.image_shape[0]} --keep-aspect"
                               if decoding[0] == ASPECT else ""))
