"""A prepared set: photographs decoded once into shards, which training reads without decoding (`minicnn prepare`).

    prepared.json             size, encoding, classes, and for each part its shards; written last: the set is whole
    train-00000.rgb ...       uint8 (images, size, size, 3), row after row; or .jpegs, one JPEG after another; of images
                              that keep their aspect, uint8 (A, B, 3), one after another
    train.index               labels, names, a CRC-32 of each image, and which rows were left out; where each image
                              ends, and its height and width, unless all have one size
    statistics.safetensors    mean image, and principal components of the colours, of the training part
    words.json                for ImageNet: what each wnid means, where the source says it
    report.tsv                every file that is damaged, odd or not used

Images are sorted by class and name. One that cannot be read keeps its row (zeros) and is left out, so that the others
keep their ids: training on a prepared set draws the same crops as on the set it was made from.

Shards are memory-mapped: they occupy the system's page cache, which is freed when memory is needed, and not memory of
the process. The sizes of the shards are checked when a set is opened, and each image's checksum when it is first read.
"""

from __future__ import annotations

import json
import os
import zlib

import numpy as np

from minicnn.data.dataset import ASPECT, USUAL_DECODING, Dataset, ImageError, Splits
from minicnn.data.images import decode
from minicnn.data.split import hold_out_val, split_in_three
from minicnn.data.stage_times import stage
from minicnn.data.statistics import Statistics
from minicnn.errors import DataError
from minicnn.system.files import signed, unsigned, write_json

FORMATS = {"short": "prepared", ASPECT: "prepared_aspect"}          # by the way images were resized
PREPARED, STATISTICS, REPORT, WORDS, UNFINISHED = ("prepared.json", "statistics.safetensors", "report.tsv",
                                                   "words.json", "unfinished")
LOCK = "lock"                  # in the folder UNFINISHED
ENDINGS = {"rgb": ".rgb", "jpeg": ".jpegs"}
AGAIN = "prepare the set again, or restore the file"


def shard_name(part: str, number: int, encoding: str) -> str:
    return f"{part}-{number:05d}{ENDINGS[encoding]}"


def index_name(part: str) -> str:
    return f"{part}.index"


def is_prepared(root: str | os.PathLike) -> bool:
    """Whether a folder holds a prepared set, finished or not."""
    return any(os.path.exists(os.path.join(root, name)) for name in (PREPARED, os.path.join(UNFINISHED, LOCK)))


def write_summary(path: str, summary: dict) -> None:
    """prepared.json, with a checksum of itself."""
    write_json(path, signed(summary, FORMATS[resize_of(summary)]))


def resize_of(summary: dict) -> str:
    """How the images of a prepared set were resized; see images.RESIZES."""
    return summary.get("resize", USUAL_DECODING[0])


def read_summary(root: str | os.PathLike) -> dict:
    """prepared.json. DataError when it is missing or not what was written."""
    path = os.path.join(root, PREPARED)
    if not os.path.exists(path):
        raise DataError(f"{os.fspath(root)} is not fully prepared; run the same `minicnn prepare` again, which "
                        "continues where it was stopped")
    try:
        with open(path, encoding="utf-8") as file:
            summary = json.load(file)
        form = summary["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); {AGAIN}") from error
    if form not in (known := [f"minicnn {kind} 1" for kind in FORMATS.values()]):
        raise DataError(f"{path} is in the format {form!r}, this minicnn reads {known[0]!r}; prepare the set again")
    try:
        return {"format": form, **unsigned(summary)}
    except ValueError as error:
        raise DataError(f"{path} has changed since it was written; {AGAIN}") from error


class Shards:
    """The images of one part, by their row in it. From uint8 shards they come as views that cannot be written to."""

    def __init__(self, root: str, part: str, summary: dict, check: bool = True):
        """check: the sizes of the shards. DataError for the index, or a shard, that is not what was written."""
        self.root, self.size, self.encoding = root, summary["size"], summary["encoding"]
        self.resize = resize_of(summary)
        self.per_shard, self.files = summary["per_shard"], summary["parts"][part]["shards"]
        index = _read_whole(os.path.join(root, index_name(part)), summary["parts"][part]["index_crc32"])
        self.labels, self.crc32 = index["labels"], index["crc32"]
        self.ends = index.get("ends")                          # of images that differ in size, within their shard
        self._sizes = [index[name] for name in ("heights", "widths")] if self.resize == ASPECT else None
        self._names, self._name_ends = index["names"], index["name_ends"]
        self.left_out = {int(row): reason for row, reason in json.loads(bytes(index["left_out"])).items()}
        self.part, self.classes = part, summary["classes"]
        self._maps: list[np.ndarray | None] = [None] * len(self.files)
        self._checked = np.zeros(len(self.labels), bool)
        for shard in range(len(self.files)) if check else ():
            self.check_size(shard)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """part/class/name, as the image was called in the source."""
        start = self._name_ends[row - 1] if row else 0
        name = bytes(self._names[start:self._name_ends[row]]).decode("utf-8", "surrogateescape")
        return f"{self.part}/{self.classes[self.labels[row]]}/{name}"

    def read(self, row: int) -> np.ndarray:
        """Image of a row, uint8 (size, size, 3) or (A, B, 3). ImageError when its checksum is wrong."""
        shard, inside = divmod(int(row), self.per_shard)
        data = self._data(row)
        if not self._checked[row]:
            with stage("disk"):
                found = zlib.crc32(data)
            if found != self.crc32[row]:
                raise ImageError(os.path.join(self.root, self.files[shard]["file"]),
                                 f"the bytes of image {inside} ({self.name(row)}) have changed since they were written "
                                 "(checksum); prepare the set again: delete this shard and prepared.json first")
            self._checked[row] = True
        return data if self.encoding == "rgb" else decode(bytes(data), self.size, self.name(row), resize=self.resize)

    def damaged(self, shard: int) -> list[str]:
        """The names of the images in a shard whose bytes are not those that were written."""
        return [self.name(row) for row in self.rows(shard) if zlib.crc32(self._data(row)) != self.crc32[row]]

    def rows(self, shard: int) -> range:
        """The rows that a shard holds."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, len(self)))

    def _data(self, row: int) -> np.ndarray:
        """The bytes of a row: uint8 (size, size, 3) or (A, B, 3), or of a JPEG."""
        shard, inside = divmod(int(row), self.per_shard)
        memory = self._map(shard)
        if self.ends is None:
            return memory[inside]
        data = memory[self.ends[row - 1] if inside else 0:self.ends[row]]
        return data if self.encoding == "jpeg" else data.reshape(*(sides[row] for sides in self._sizes), 3)

    def _map(self, shard: int) -> np.ndarray:
        """A shard's memory, mapped when it is first needed."""
        if self._maps[shard] is None:
            file = self.files[shard]
            shape = (-1, self.size, self.size, 3) if self.ends is None else (file["bytes"],)
            try:
                memory = np.memmap(os.path.join(self.root, file["file"]), np.uint8, "r")
            except (OSError, ValueError) as error:             # ValueError: empty
                raise DataError(f"{self.root}/{file['file']} cannot be read ({error}); {AGAIN}") from error
            self.check_size(shard)
            self._maps[shard] = np.asarray(memory).reshape(shape)
        return self._maps[shard]

    def check_size(self, shard: int) -> None:
        """DataError where the shard has not as many bytes as were written."""
        file = self.files[shard]
        path = os.path.join(self.root, file["file"])
        try:
            size = os.path.getsize(path)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}; the set is incomplete: {AGAIN}") from error
        if size != file["bytes"]:
            raise DataError(f"{path} has {size:,} bytes, expected {file['bytes']:,}; it was cut short or overwritten: "
                            f"{AGAIN}")


def open_prepared(root: str | os.PathLike, seed: int = 0, size: int | None = None) -> Splits:
    """The parts of a prepared set; one without parts, or without val, is split as the folder would have been."""
    root = os.fspath(root)
    summary = read_summary(root)
    if size not in (None, summary["size"]):
        how = f"--short-side {size} --keep-aspect" if resize_of(summary) == ASPECT else f"--size {size}"
        raise DataError(f"{root} was prepared at size {summary['size']}, and {size} was asked for; prepare its images "
                        f"with {how}{' --jpeg' * (summary['encoding'] == 'jpeg')}, or ask for --size {summary['size']}")
    name = os.path.basename(os.path.abspath(root))
    sets, first_id = {}, 0
    for part in summary["parts"]:
        shards = Shards(root, part, summary)
        sets[part] = _dataset(shards, name if part == "all" else f"{name}/{part}", summary, first_id)
        first_id += len(shards)
    counts = ", ".join(f"{len(found)} {part}" for part, found in sets.items())
    side = summary["size"]
    size = f"with a short side of {side}" if resize_of(summary) == ASPECT else f"at {side} x {side}"
    how = f"prepared {size}, {counts}"
    if "all" in sets:
        train, val, test, cut = split_in_three(sets["all"], seed)
        how += f"; {cut}"
    else:
        train, val, test = (sets.get(part) for part in ("train", "val", "test"))
        arrays = _read_whole(os.path.join(root, STATISTICS), summary["statistics_crc32"])
        train.statistics = Statistics(arrays["mean"], arrays["eigenvalues"], arrays["eigenvectors"],
                                      int(arrays["count"][0]))
        if val is None:                                        # the statistics of the rest of train are others
            train, val, cut = hold_out_val(train, name, seed)
            how += f"; {cut}"
    return Splits(train, val, test, name, f"images of {len(summary['classes'])} classes in {root}: {how}",
                  "the folder's own")


def _dataset(shards: Shards, name: str, summary: dict, first_id: int) -> Dataset:
    """A part as a set whose items are rows."""
    rows = np.arange(len(shards))
    found = Dataset(name, summary["classes"], shards.labels, rows, shards.read, size=(shards.size, shards.size),
                    ids=first_id + rows, caption=shards.name)
    found.checked, found.in_memory = True, shards.encoding == "rgb"
    found.decoding = shards.resize, USUAL_DECODING[1]
    found.checksums = shards.crc32.copy()
    found.checksums[list(shards.left_out)] = 0
    found.former = f"{zlib.crc32(json.dumps(summary).encode()):08x}{zlib.crc32(shards.part.encode()):08x}"
    if shards.left_out:
        found.leave_out(shards.left_out)
    return found


def _read_whole(path: str, expected: int) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file with this checksum."""
    from safetensors.numpy import load

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; the set is incomplete: {AGAIN}") from error
    if zlib.crc32(data) != expected:
        raise DataError(f"{path} has another checksum than when it was written: cut short or changed; {AGAIN}")
    return load(data)
