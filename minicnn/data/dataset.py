"""A labelled set of images, all of one size or with one short side, read one at a time.

A Dataset is a list of items (relative paths, or indices of procedural images), a label for each, and a function that
turns an item into uint8 (A, B, 3). Images that keep their aspect have one short side and long sides of their own; where
one shape is wanted, as of the mean image, it is that of their central squares. The usable images are fixed before the
first step: `scan` reads every image once and `leave_out` removes the unreadable, so that batches never depend on when
an error was noticed. An image keeps its id (`ids`) whatever is left out or split off around it: crops, flips and
dropout masks are drawn by that id.

What the images are, wherever they lie, is their `content`: a hash of the pixels, taken in the same pass as the mean
image. The names of a set and of its folder are only for messages.

Decoded images may be kept in memory (`keep_decoded`): an array with a fixed place for each of the first images of the
set, so that which ones are kept does not depend on threads either.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minicnn.errors import DataError, printable

USUAL_DECODING = ("short", "bicubic")
ASPECT = "aspect"              # the way to resize that keeps the whole image: see images.py
KEPT_ASPECT = 2                # of images that keep their aspect: those up to this many squares may be kept in memory


class ImageError(DataError):
    """One image that cannot be decoded: `.path` and `.reason`."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"cannot read the image {path}: {reason}; expected a whole JPEG, PNG or the like; "
                         "replace or remove it")
        self.path, self.reason = path, reason


class Dataset:
    """Labelled images.

    items    what `decode` takes, one per image
    labels   class index of each item, (len(items),)
    decode   item -> uint8 (A, B, 3); raises ImageError
    size     (A, B); of images that keep their aspect, (S, S) with the short side S
    ids      the images' ids for random draws, unique over all splits of a set; default 0, 1, 2 ...
    caption  item -> the text that names it in messages and pictures
    """

    statistics = None          # of the images, where they are known without a pass over the set: see measure
    checked = False            # whether unreadable images have been left out already: see scan
    root = None                # the folder that the items are paths in, if they are paths
    in_memory = False          # whether images are in memory already, so that the cache would be a second copy
    decoding = None            # (resize, interpolation) that gave files this size, where that is known
    checksums = None           # CRC-32 of each image of the whole listing, 0 if left out, uint32 (n,); after a pass
    former = None              # the fingerprint by version 0.1.0, where it was another than that of a listing

    def __init__(self, name: str, classes: Sequence[str], labels, items: Sequence, decode: Callable, *,
                 size: tuple[int, int], ids=None, caption: Callable = str):
        self.name, self.classes, self.decode, self.caption = name, list(classes), decode, caption
        self.image_shape = (int(size[0]), int(size[1]), 3)
        self._items = items if isinstance(items, np.ndarray) else list(items)
        self._labels = np.asarray(labels, np.int32)
        self._ids = np.arange(len(self._items), dtype=np.uint32) if ids is None else np.asarray(ids, np.uint32)
        if not (len(self._items) == len(self._labels) == len(self._ids)):
            raise DataError(f"{name}: {len(self._items)} items, {len(self._labels)} labels and {len(self._ids)} ids "
                            "must be equally many")
        self._left_out: dict[int, str] = {}                         # position -> reason
        self._usable = np.arange(len(self._items))                  # positions of what is not left out
        # Decoded images of the first positions, and which of them are there. Replaced as one: threads may be reading.
        self._cache = np.empty((0, *self.image_shape), np.uint8), np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._usable)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} images, {len(self.classes)} classes)"

    @property
    def keeps_aspect(self) -> bool:
        """Whether images are not squares but have long sides of their own."""
        return self.decoding is not None and self.decoding[0] == ASPECT

    @property
    def labels(self) -> np.ndarray:
        """int32 (len,)."""
        return self._labels[self._usable]

    @property
    def ids(self) -> np.ndarray:
        """uint32 (len,), the sample ids of random draws."""
        return self._ids[self._usable]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(path, reason) of each image that was left out."""
        return [(self.caption(self._items[p]), reason) for p, reason in sorted(self._left_out.items())]

    @property
    def positions(self) -> np.ndarray:
        """int (len,), the places of the usable images in the whole listing."""
        return self._usable.copy()

    @property
    def listed(self) -> int:
        """The number of images in the whole listing, those left out included."""
        return len(self._items)

    @property
    def left_out(self) -> dict[int, str]:
        """Position in the whole listing -> reason, of each image that was left out."""
        return dict(self._left_out)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of this listing (items, labels, classes, image size), whatever was left out of it.

        Of a prepared set: of its content. The name counts only where there is nothing else: no files and no checksums.
        """
        if self.checked:
            return self.content
        return self._hash_of_listing(None if self.root is not None else self.name)

    def former_fingerprint(self, name: str) -> str:
        """The fingerprint that version 0.1.0 gave this set when it was called `name`."""
        return self.former or self._hash_of_listing(name)

    @property
    def content(self) -> str | None:
        """A hash of the images (pixels, labels, ids, classes), wherever they lie; None before a pass over them."""
        if self.checksums is None:
            return None
        digest = hashlib.sha256(repr((self.classes, self.image_shape)).encode())
        for array in (self._labels, self._ids, self.checksums):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _hash_of_listing(self, name: str | None) -> str:
        digest = hashlib.sha256(repr((name, self.classes, self.image_shape)).encode())
        if self.decoding not in (None, USUAL_DECODING):
            digest.update(repr(self.decoding).encode())
        digest.update(self._labels.tobytes())
        digest.update("\n".join(map(self.caption, self._items)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def state(self) -> str:
        """A hash of the listing and of the files' sizes and modification times: statistics are valid while it lasts."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for item in self._items if self.root is not None else ():
            try:
                about = os.stat(os.path.join(self.root, item))
                digest.update(f"{about.st_size} {about.st_mtime_ns}\n".encode())
            except OSError:                                         # it will be left out when it is read
                digest.update(b"none\n")
        return digest.hexdigest()

    def path(self, i: int) -> str:
        """The source of image i, for captions and messages."""
        return self.caption(self._items[self._usable[i]])

    def read(self, i: int) -> np.ndarray:
        """Image i, uint8 (A, B, 3) RGB. May be called from several threads. Do not write into it."""
        return self.read_at(self._usable[i])

    def read_at(self, position: int) -> np.ndarray:
        """As `read`, by the image's place in the whole listing (see positions), which does not change."""
        images, filled = self._cache
        if position < len(filled) and filled[position]:
            return images[position]
        image = self.decode(self._items[position])
        if not self._is_expected(image):
            raise ImageError(self.caption(self._items[position]), f"decoded to {image.dtype} {image.shape}, expected "
                                                                  f"uint8 {self._shape_in_words()}")
        if position < len(filled) and image.nbytes <= self._most_kept:
            images[position] = image
            filled[position] = True                # after the copy: a reader in another thread never sees half of one
        return image

    def keep_decoded(self, max_bytes: int) -> int:
        """Keep as many decoded images in memory as fit into max_bytes; returns the bytes this will take, at most."""
        each, shape = self._most_kept, self.image_shape
        count = 0 if self.in_memory else min(len(self._items), max(0, max_bytes) // each)
        if count != len(self._cache[0]) or self.keeps_aspect:
            images = np.empty(count, object) if self.keeps_aspect else np.empty((count, *shape), np.uint8)
            self._cache = images, np.zeros(count, bool)
        return count * each

    @property
    def _most_kept(self) -> int:
        """Bytes of an image that may be kept in memory."""
        return int(np.prod(self.image_shape)) * (KEPT_ASPECT if self.keeps_aspect else 1)

    def _is_expected(self, image: np.ndarray) -> bool:
        if not self.keeps_aspect:
            return image.shape == self.image_shape and image.dtype == np.uint8
        return image.ndim == 3 and min(image.shape[:2]) == self.image_shape[0] and image.shape[2] == 3 \
            and image.dtype == np.uint8

    def _shape_in_words(self) -> str:
        side = self.image_shape[0]
        return f"({side}, {side} or more, 3) or the like" if self.keeps_aspect else str(self.image_shape)

    def leave_out(self, positions: dict[int, str]) -> None:
        """Leave these out from now on: position in the whole listing -> reason. DataError when too little remains."""
        self._left_out.update({int(p): str(reason) for p, reason in positions.items()})
        self._usable = np.array([p for p in range(len(self._items)) if p not in self._left_out], np.intp)
        if self._left_out and not len(self._usable):
            path, reason = self.skipped[0]
            raise DataError(f"{self.name}: none of its {len(self._items)} images can be read; the first is {path}: "
                            f"{reason}; expected whole JPEG, PNG, BMP or WebP files")
        lost = sorted(set(self._labels.tolist()) - set(self.labels.tolist()))
        if lost:
            first = int(np.flatnonzero(self._labels == lost[0])[0])
            path, reason = self.caption(self._items[first]), self._left_out[first]
            raise DataError(f"{self.name}: no image of class {self.classes[lost[0]]!r} can be read; the first is "
                            f"{path}: {reason}; repair its images or remove the class")

    def select(self, indices, name: str | None = None) -> Dataset:
        """The images with these indices, in this order, as a set of their own; they keep their ids."""
        at = self._usable[np.asarray(indices, np.intp)]
        items = self._items[at] if isinstance(self._items, np.ndarray) else [self._items[p] for p in at]
        chosen = Dataset(name or self.name, self.classes, self._labels[at], items, self.decode,
                         size=self.image_shape[:2], ids=self._ids[at], caption=self.caption)
        chosen.checked, chosen.in_memory, chosen.root = self.checked, self.in_memory, self.root
        chosen.decoding = self.decoding
        chosen.checksums = None if self.checksums is None else self.checksums[at]
        return chosen

    def report_skipped(self, most: int = 5) -> str:
        """One line with the number and the first names of the images left out, or "" when there are none."""
        if not self._left_out:
            return ""
        named = ", ".join(f"{path} ({reason})" for path, reason in self.skipped[:most])
        more = f" and {len(self._left_out) - most} more" if len(self._left_out) > most else ""
        return printable(f"{self.name}: skipped {len(self._left_out)} of {len(self._items)} images, unreadable: "
                         f"{named}{more}")


@dataclass
class Splits:
    """A set split in three. `test` is None where there is none; results are then validation results."""

    train: Dataset
    val: Dataset
    test: Dataset | None
    name: str
    description: str           # one line: what the images are, and how they were split
    licence: str
    divided: bool = False      # it has no split of its own

    @property
    def classes(self) -> list[str]:
        return self.train.classes

    def keep_decoded(self, max_bytes: int) -> int:
        """Memory for decoded images, to the training set first and then to val; test is read once. Returns bytes."""
        taken = self.train.keep_decoded(max_bytes)
        return taken + self.val.keep_decoded(max_bytes - taken)
