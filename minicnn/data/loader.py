"""Batches of a dataset, decoded ahead by threads.

Images of one size are stacked, those that keep their aspect lie one after the other in memory (Photographs).

The order of an epoch is a pure function of (seed, epoch): images are sorted by a random number drawn for their id. It
does not depend on the number of threads, and an epoch can be entered anywhere, as a resumed run does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.prefetch import prefetched
from minicnn.data.stage_times import StageTimes, stage
from minicnn.errors import DataError
from minicnn.rng import purpose_id, random_words
from minicnn.system.cores import available_cores

MOST_BYTES = 2**31 - 1         # of a batch: kernels index with 32 bits


@dataclass(frozen=True)
class Photographs:
    """Images of sizes of their own: image k is (heights[k], widths[k], 3), from offsets[k] on. Arrays of any backend.

    pixels uint8 (bytes,); offsets, heights, widths int32 (n,).
    """

    pixels: np.ndarray
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    @classmethod
    def of(cls, images: Sequence[np.ndarray]) -> Photographs:
        """A copy of these images, uint8 (A, B, 3) each. DataError when they are more than a kernel can index."""
        ends = np.cumsum([image.size for image in images], dtype=np.int64)
        if len(ends) and ends[-1] > MOST_BYTES:
            raise DataError(f"a batch of {len(images)} images takes {ends[-1]:,} bytes, more than {MOST_BYTES:,}; "
                            "choose a smaller batch, or images of a smaller size")
        return cls(np.concatenate([image.reshape(-1) for image in images]), np.array([0, *ends[:-1]], np.int32),
                   *(np.array([image.shape[axis] for image in images], np.int32) for axis in (0, 1)))

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, k: int) -> np.ndarray:
        """Image k, uint8 (A, B, 3), a view."""
        A, B = int(self.heights[k]), int(self.widths[k])
        return self.pixels[self.offsets[k]:self.offsets[k] + A * B * 3].reshape(A, B, 3)


@dataclass(frozen=True)
class Batch:
    images: np.ndarray | Photographs    # uint8 (n, A, B, 3), 0..255, or images that keep their aspect
    labels: np.ndarray                  # int32 (n,)
    sample_ids: np.ndarray              # uint32 (n,)
    indices: np.ndarray                 # int (n,), the images' indices in the dataset

    @property
    def image_hw(self) -> tuple:
        """Height and width of all images, or two arrays (n,)."""
        return self.images.shape[1:3] if isinstance(self.images, np.ndarray) else (self.images.heights,
                                                                                    self.images.widths)

    def select(self, indices: Sequence[int]) -> Batch:
        """Some of the images."""
        one_size = isinstance(self.images, np.ndarray)
        images = self.images[indices] if one_size else Photographs.of([self.images[k] for k in indices])
        return Batch(images, self.labels[indices], self.sample_ids[indices], self.indices[indices])


class Loader:
    """Batches of `batch` images.

    shuffle      a new order every epoch; else the dataset's own
    drop_last    leave out a last batch that is short, as training does
    prefetch     batches made ahead of the consumer
    workers      decoding threads; default one less than there are processors, 1 to 8
    cache_bytes  memory for decoded images; None leaves the dataset's as it is
    own          which images of a batch are this rank's, where ranks share it; None: all
    """

    def __init__(self, dataset: Dataset, batch: int, *, seed: int = 0, shuffle: bool = False, drop_last: bool = False,
                 prefetch: int = 2, workers: int | None = None, cache_bytes: int | None = None,
                 own: slice | None = None):
        if batch < 1:
            raise DataError(f"a batch of {batch} images makes no sense; expected at least 1")
        self.dataset, self.batch, self.seed = dataset, batch, seed
        self.shuffle, self.drop_last, self.own = shuffle, drop_last, own or slice(None)
        self.workers = workers or max(1, min(8, available_cores() - 1))
        self.prefetch = max(prefetch, self.workers)
        self.waited = 0.0          # seconds that the consumer has waited for batches in this epoch
        self._times = StageTimes()
        if cache_bytes is not None:
            dataset.keep_decoded(cache_bytes)
        self._check_size()

    def _check_size(self) -> None:
        if self.drop_last and self.batch > len(self.dataset):
            raise DataError(f"a batch of {self.batch} is larger than {self.dataset.name}, which has "
                            f"{len(self.dataset)} images; choose a smaller batch (--batch)")

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 0 and not self.drop_last)

    def spent(self) -> dict[str, float]:
        """Seconds by kind (stage_times.py) that this loader has spent in this epoch, summed over its threads."""
        return self._times.seconds()

    def order(self, epoch: int) -> np.ndarray:
        """Indices into the dataset in the order of this epoch, all of them."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        high, low = random_words(self.seed, purpose_id("order"), epoch, self.dataset.ids, 2).T.astype(np.uint64)
        return np.argsort(high << np.uint64(32) | low, kind="stable")

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch number `start` on. An image that cannot be read raises here."""
        self._check_size()                         # again: images may have been left out since
        order, labels, ids = self.order(epoch), self.dataset.labels, self.dataset.ids
        positions = self.dataset.positions         # of these very images, even if others are left out meanwhile
        stop, times = threading.Event(), StageTimes()

        def make(number: int) -> Batch | None:
            at = order[number * self.batch:(number + 1) * self.batch][self.own]
            with times.charged():
                images = self._read(positions[at], stop)
            return None if images is None else Batch(images, labels[at], ids[at], at)

        self.waited, self._times = 0.0, times
        batches = prefetched(make, range(start, len(self)), self.workers, self.prefetch)
        try:
            while True:
                began = time.perf_counter()
                batch = next(batches, None)
                self.waited += time.perf_counter() - began
                if batch is None:
                    return
                yield batch
        finally:
            stop.set()
            batches.close()

    def _read(self, positions: np.ndarray, stop: threading.Event) -> np.ndarray | Photographs | None:
        """The images of a batch; None where it was stopped on the way."""
        whole = [] if self.dataset.keeps_aspect else np.empty((len(positions), *self.dataset.image_shape), np.uint8)
        for row, position in enumerate(positions):
            if stop.is_set():
                return None
            image = self.dataset.read_at(position)
            with stage("copy"):
                if self.dataset.keeps_aspect:
                    whole.append(image)
                else:
                    whole[row] = image
        with stage("copy"):
            return Photographs.of(whole) if self.dataset.keeps_aspect else whole
