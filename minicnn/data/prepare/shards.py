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

from minicnn.data.dataset import ImageError
from minicnn.data.images import examine
from minicnn.data.pixel_stats import PixelStats
from minicnn.data.prefetch import prefetched
from minicnn.data.prepare.classes import Photo
from minicnn.data.prepare.report import damage, oddities
from minicnn.data.prepared import UNFINISHED, shard_name
from minicnn.system.files import NewFile, write_safetensors

BLOCK = 16                     # images that a thread decodes before it takes the next ones
AHEAD = 8                      # blocks per thread that may wait for an earlier one
MOST_FINISHING = 2             # shards that are being written to the disk
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Settings:
    """What the bytes of a shard depend on, besides the images."""

    size: int
    encoding: str              # "rgb" or "jpeg"
    per_shard: int

    @property
    def image_bytes(self) -> int:
        return 3 * self.size**2


class Record(NamedTuple):
    """The record of a finished shard."""

    bytes: int
    crc32: np.ndarray          # uint32 (n,)
    ends: np.ndarray           # int64 (n,), where each JPEG ends
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
        self._left_out: dict[int, str] = {}
        self._odd: list[tuple[str, int, str]] = []
        self._measured, self._sums = measured, None
        self._lock, self._new = threading.Lock(), None
        self._nothing = zlib.crc32(bytes(settings.image_bytes) if settings.encoding == "rgb" else b"")

    # ---- whether it is finished
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.settings, self._measured)).encode())
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
        return Record(notes["bytes"], arrays["crc32"], arrays["ends"],
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
        """Decode rows first to last: written in their place (rgb), or returned as JPEGs for `take`. In any thread."""
        size, rgb = self.settings.size, self.settings.encoding == "rgb"
        sums = PixelStats((size, size, 3)) if self._measured else None
        jpegs = []
        for row in range(first, last):
            label, name, file = self.photos[row]
            jpeg, data = b"", file.read()
            try:
                picture = examine(data, size, f"{label}/{name}")
            except ImageError as error:
                self._crc32[row] = self._nothing
                with self._lock:
                    self._left_out[row] = error.reason
                    self._odd.append((damage(error.reason, data), row, error.reason))
            else:
                if rgb:
                    self._write_at(memoryview(picture.pixels).cast("B"), row * self.settings.image_bytes)
                    self._crc32[row] = zlib.crc32(picture.pixels)
                else:
                    jpeg = _encode(picture.pixels)
                    self._crc32[row] = zlib.crc32(jpeg)
                if sums is not None:
                    sums.add(picture.pixels)
                for kind, words in oddities(picture, name):
                    with self._lock:
                        self._odd.append((kind, row, words))
            jpegs.append(jpeg)
        if sums is not None:
            with self._lock:
                self._sums.merge(sums.total, sums.products, sums.count)
        return [] if rgb else jpegs

    def take(self, first: int, jpegs: list[bytes]) -> None:
        """The JPEGs of the next rows, in order."""
        end = self._ends[first - 1] if first else 0
        for row, jpeg in enumerate(jpegs, first):
            end += len(jpeg)
            self._ends[row] = end
        if jpegs:
            self._write_at(memoryview(b"".join(jpegs)), int(self._ends[first - 1]) if first else 0)

    def finish(self) -> None:
        """To the disk, renamed, and recorded."""
        rgb = self.settings.encoding == "rgb"
        size = len(self.photos) * self.settings.image_bytes if rgb else int(self._ends[-1])
        self._new.file.truncate(size)                  # unreadable images at the end were not written
        self._new.commit()
        sums = self._sums
        notes = {"fingerprint": self.fingerprint(), "bytes": size, "odd": sorted(self._odd, key=lambda row: row[1]),
                 "left_out": dict(sorted(self._left_out.items())), "count": sums.count if sums else 0}
        write_safetensors(self._record, {
            "crc32": self._crc32, "ends": self._ends, "total": sums.total if sums else np.zeros((0, 0, 3), np.uint32),
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

    results = prefetched(lambda block: (block, block[0].work(*block[1:])), blocks(), workers, workers * AHEAD)
    to_disk, finishing = ThreadPoolExecutor(1, thread_name_prefix="minicnn-disk"), deque()
    try:
        for (shard, first, last), jpegs in results:
            shard.take(first, jpegs)
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
