"""One pass over a set before training: every image is decoded once, and the unreadable ones are left out.

After it the usable images, and so every batch of every epoch, are fixed, and nothing is skipped later; and the set's
`content` is known. The pass also fills the cache of decoded images, so the first epoch need not decode them again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.prefetch import prefetched
from minicnn.system.cores import available_cores
from minicnn.system.progress import progress_of


def scan(dataset: Dataset, *, visit: Callable | None = None, workers: int | None = None, progress: bool = True,
         title: str | None = None) -> list[tuple[str, str]]:
    """Reads every image, leaves out the unreadable, and returns dataset.skipped.

    visit(image) is called with every readable image, in order and in this thread. DataError when no image, or none of
    some class, can be read. A prepared set, whose images have all been read already, is only read for `visit`.
    """
    if dataset.checked and visit is None:
        return dataset.skipped
    checksums = np.zeros(dataset.listed, np.uint32)

    def attempt(position: int):
        try:
            image = dataset.read_at(position)
        except ImageError as error:
            return error
        checksums[position] = zlib.crc32(np.ascontiguousarray(image))
        return image

    workers = workers or min(8, available_cores())
    unreadable, positions = {}, dataset.positions
    with progress_of(title or f"checking {dataset.name}", len(positions), progress) as seen:
        for position, image in zip(positions, prefetched(attempt, positions, workers, 4 * workers), strict=True):
            if isinstance(image, ImageError):
                unreadable[position] = image.reason
            elif visit is not None:
                visit(image)
            seen(1)
    if not dataset.checked:                        # else they are those of the shards
        dataset.checksums = checksums
    dataset.leave_out(unreadable)
    return dataset.skipped
