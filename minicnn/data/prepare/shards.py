"""Decoding into shards, by threads (decoders release the GIL), so that each is whole or absent.

A shard is written in OUT/unfinished and renamed; then a record of it (checksums, unusual files, sums over its pixels)
is written, and with that the shard is finished. A kill at any moment loses only the shards that were being made. A
record also holds a fingerprint of the shard's images: where the source has changed since, the shard is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from minicnn.data.dataset import ASPECT, USUAL_DECODING, ImageError
from minicnn.data.images import central_square, examine
from minicnn.data.pixel_stats import PixelStats
from minicnn.data.prefetch import prefetched
from minicnn.data.prepare.classes import Photo
from minicnn.data.prepare.report import damage, oddities
from minicnn.data.prepared import UNFINISHED, shard_name
from minicnn.system.files import NewFile, write_safetensors

BLOCK = 16                     # images that a thread decodes before it takes the next ones
AHEAD = 8                      # blocks per thread that may wait for an earlier one
AHEAD_WHOLE = 2                # the same where whole images wait, of a megabyte each
MOST_FINISHING = 2             # shards that are being written to the disk
JPEG_QUALITY = 95
USUAL_ASPECT = 1.4             # of photographs: long side / short side


@dataclass(frozen=True)
class Settings:
    """What the bytes of a shard depend on, besides the images."""

    size: int
    encoding: str              # "rgb" or "jpeg"
    per_shard: int
    resize: str = USUAL_DECODING[0]

    @property
    def one_size(self) -> bool:
        """Whether all images take the same number of bytes, so that each has its place in the shard."""
        return self.encoding == "rgb" and self.resize != ASPECT

    @property
    def image_bytes(self) -> int:
        """Of pixels; about as many where images keep their aspect."""
        return round(3 * self.size**2 * (USUAL_ASPECT if self.resize == ASPECT else 1))

    @property
    def shape(self) -> str:
        """Of the images, in words."""
        return f"a short side of {self.size}" if self.resize == ASPECT else f"{self.size} x {self.size}"

    def in_words(self) -> str:
        return f"{self.shape}, {'pixels' if self.encoding == 'rgb' else 'JPEGs'}, {self.per_shard:,} images in a shard"


class Record(NamedTuple):
    """The record of a finished shard."""

    bytes: int
    crc32: np.ndarray          # uint32 (n,)
    ends: np.ndarray           # int64 (n,), where each image ends, unless all have one size
    sizes: np.ndarray          # int32 (2, n), height and width of each, (2, 0) unless they keep their aspect
    left_out: dict[int, str]   # row in the shard -> reason
    odd: list[tuple[str, int, str]]                    # (kind, row in the shard, explanation), the left out included
    total: np.ndarray          # of PixelStats; empty for parts whose statistics are not wanted
    products: np.ndarray
    count: int


class Shard:
    """One shard, being made: `photos`, the images of its rows, are those from row `number * per_shard` of a part on."""

    def __init__(self, out: str, part: str, number: int, photos: list[Photo], settings: Settings, measured: bool):
        self.part, self.number, self.photos, self.settings = part, number, photos, settings
        name = shard_name(part, number, settings.encoding)
        self.name, self.path = name, os.path.join(out, name)
        self._unfinished = os.path.join(out, UNFINISHED)
        self._record = os.path.join(self._unfinished, f"{name}.record")
        self._crc32, self._ends = np.zeros(len(photos), np.uint32), np.zeros(len(photos), np.int64)
        self._sizes = np.zeros((2, len(photos) if settings.resize == ASPECT else 0), np.int32)
        self._left_out: dict[int, str] = {}
        self._odd: list[tuple[str, int, str]] = []
        self._measured, self._sums = measured, None
        self._lock, self._new = threading.Lock(), None
        self._nothing = zlib.crc32(bytes(settings.image_bytes) if settings.one_size else b"")

    # ---- whether it is finished
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"({self.settings}, {self._measured})".encode())
        for label, name, file in self.photos:
            digest.update(f"{label}\0{name}\0{file.size}\0{file.modified}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def record(self) -> Record | None:
        """The record of this shard, where it is finished and made from these images."""
        from safetensors import SafetensorError, safe_open

        if not (os.path.exists(self._record) and os.path.exists(self.path)):
            return None
        try:
            with safe_open(self._record, "numpy") as file:
                notes = json.loads(file.metadata()["minicnn"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, TypeError, KeyError, ValueError):    # not whole: the shard is made again
            return None
        if notes["fingerprint"] != self.fingerprint() or os.path.getsize(self.path) != notes["bytes"]:
            return None
        return Record(notes["bytes"], arrays["crc32"], arrays["ends"], arrays.get("sizes", np.zeros((2, 0), np.int32)),
                      {int(row): reason for row, reason in notes["left_out"].items()},
                      [tuple(row) for row in notes["odd"]], arrays["total"], arrays["products"], notes["count"])

    # ---- making it
    def begin(self) -> None:
        self._new = NewFile(self.path, folder=self._unfinished, buffering=0)
        self._sums = PixelStats((self.settings.size, self.settings.size, 3)) if self._measured else None

    def discard(self) -> None:
        """Remove the file, unless the shard is finished."""
        if self._new is not None:
            self._new.discard()

    def work(self, first: int, last: int) -> list[bytes]:
        """Decode rows first to last: written in their place, or where they differ in size, returned for `take`.

        In any thread.
        """
        settings, size = self.settings, self.settings.size
        sums = PixelStats((size, size, 3)) if self._measured else None
        waiting = []
        for row in range(first, last):
            label, name, file = self.photos[row]
            stored, data = b"", file.read()
            try:
                picture = examine(data, size, f"{label}/{name}", resize=settings.resize)
            except ImageError as error:
                self._crc32[row] = self._nothing
                with self._lock:
                    self._left_out[row] = error.reason
                    self._odd.append((damage(error.reason, data), row, error.reason))
            else:
                stored = memoryview(picture.pixels).cast("B") if settings.encoding == "rgb" else _encode(picture.pixels)
                self._crc32[row] = zlib.crc32(stored)
                if settings.one_size:
                    self._write_at(stored, row * settings.image_bytes)
                if settings.resize == ASPECT:
                    self._sizes[:, row] = picture.pixels.shape[:2]
                if sums is not None:
                    sums.add(central_square(picture.pixels))
                for kind, words in oddities(picture, name):
                    with self._lock:
                        self._odd.append((kind, row, words))
            if not settings.one_size:                      # else written: its memory serves the next image
                waiting.append(stored)
        if sums is not None:
            with self._lock:
                self._sums.merge(sums.total, sums.products, sums.count)
        return waiting

    def take(self, first: int, stored: list[bytes]) -> None:
        """The bytes of the next rows, in order."""
        end = self._ends[first - 1] if first else 0
        for row, image in enumerate(stored, first):
            end += len(image)
            self._ends[row] = end
        if stored:
            self._write_at(memoryview(b"".join(stored)), int(self._ends[first - 1]) if first else 0)

    def finish(self) -> None:
        """To the disk, renamed, and recorded."""
        settings = self.settings
        size = len(self.photos) * settings.image_bytes if settings.one_size else int(self._ends[-1])
        self._new.file.truncate(size)                  # unreadable images at the end were not written
        self._new.commit()
        sums = self._sums
        notes = {"fingerprint": self.fingerprint(), "bytes": size, "odd": sorted(self._odd, key=lambda row: row[1]),
                 "left_out": dict(sorted(self._left_out.items())), "count": sums.count if sums else 0}
        write_safetensors(self._record, {
            "crc32": self._crc32, "ends": self._ends, "sizes": self._sizes,
            "total": sums.total if sums else np.zeros((0, 0, 3), np.uint32),
            "products": sums.products if sums else np.zeros(6, np.int64)}, {"minicnn": json.dumps(notes)})
        self._sums = None

    def _write_at(self, data: memoryview, offset: int) -> None:
        """Write all of it: pwrite may write less, as the last one before a disk is full does."""
        while len(data):
            try:
                written = os.pwrite(self._new.file.fileno(), data, offset)
            except OSError as error:
                error.filename = self.path
                raise
            data, offset = data[written:], offset + written


def make_shards(shards: list[Shard], workers: int, done: Callable[[int], None]) -> None:
    """Make shards, in order, with `workers` threads; `done(n)` is called after n more images. OSError: disk full."""
    def blocks() -> Iterator[tuple[Shard, int, int]]:
        for shard in shards:
            shard.begin()
            for first in range(0, len(shard.photos), BLOCK):
                yield shard, first, min(first + BLOCK, len(shard.photos))

    whole = any(shard.settings.encoding == "rgb" and not shard.settings.one_size for shard in shards)
    ahead = workers * (AHEAD_WHOLE if whole else AHEAD)
    results = prefetched(lambda block: (block, block[0].work(*block[1:])), blocks(), workers, ahead)
    to_disk, finishing = ThreadPoolExecutor(1, thread_name_prefix="minicnn-disk"), deque()
    try:
        for (shard, first, last), stored in results:
            shard.take(first, stored)
            done(last - first)
            if last == len(shard.photos):              # decoding continues while a shard is written to the disk
                finishing.append(to_disk.submit(shard.finish))
            while finishing and (len(finishing) > MOST_FINISHING or finishing[0].done()):
                finishing.popleft().result()
        while finishing:
            finishing.popleft().result()
    finally:
        results.close()
        to_disk.shutdown(wait=True, cancel_futures=True)
        for shard in shards:
            shard.discard()


def _encode(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
