"""`minicnn prepare`: from a source to a prepared set, with progress messages."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from minicnn.data.dataset import ASPECT, USUAL_DECODING
from minicnn.data.pixel_stats import PixelStats
from minicnn.data.prepare.classes import Source
from minicnn.data.prepare.layout import open_source
from minicnn.data.prepare.report import LEFT_OUT, Row, in_words, write_report
from minicnn.data.prepare.shards import Record, Settings, Shard, make_shards
from minicnn.data.prepared import (
    ENDINGS,
    LOCK,
    PREPARED,
    REPORT,
    STATISTICS,
    UNFINISHED,
    WORDS,
    index_name,
    read_summary,
    resize_of,
    write_summary,
)
from minicnn.data.statistics import statistics_of
from minicnn.errors import ConfigError, DataError
from minicnn.system.cores import available_cores
from minicnn.system.files import remedy, signed, write_json, write_safetensors

ILSVRC2012 = {"train": 1_281_167, "val": 50_000}
UNPACKED = "unpacked"          # in the unfinished folder: compressed tars
PER_SHARD = 2048               # images: 403 MB of pixels
JPEG_BYTES = 0.15              # of a JPEG for each byte of pixels; 0.13 on 4,000 photographs of cats and dogs
OVERHEAD = 1.01                # index, records and the like


def prepare(source: str, out: str, *, size: int = 256, keep_aspect: bool = False, jpeg: bool = False,
            strict: bool = False, workers: int | None = None, per_shard: int = PER_SHARD, labels: str | None = None,
            progress: bool = True, say: Callable[[str, str], None] = lambda label, text: None) -> dict:
    """Prepare `source` into the folder `out`; returns what prepared.json holds.

    Continues where an earlier call was stopped. keep_aspect: `size` is the short side, and images are kept whole;
    else their central squares are. strict: DataError when an image cannot be used, a class is empty, or
    the counts differ from ILSVRC2012's. per_shard: images in a shard. labels: the list of a flat val's classes.
    say(label, text): called with each progress message. DataError when the source or `out` cannot be used.
    """
    if size < 1 or per_shard < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"size, images per shard and workers must be at least 1, got {size}, {per_shard}, {workers}")
    settings = Settings(size, "jpeg" if jpeg else "rgb", per_shard, ASPECT if keep_aspect else USUAL_DECODING[0])
    if summary := _finished(out, settings, say):
        return summary
    try:
        with _folder(out) as unfinished:
            found = open_source(source, os.path.join(unfinished, UNPACKED), labels,
                                lambda text: say("source", text))
            _introduce(source, found, strict, say)
            shards = {part: [Shard(out, part, k, photos[first:first + per_shard], settings, part == "train")
                             for k, first in enumerate(range(0, len(photos), per_shard))]
                      for part, photos in found.parts.items()}
            _make(out, shards, settings, workers or available_cores(), progress, say)
            summary, rows = _complete(out, found, shards, settings, strict)
            shutil.rmtree(unfinished)                   # while it is locked: another process may be waiting to begin
    except OSError as error:
        name = os.fspath(error.filename or out)
        if not os.path.abspath(name).startswith(os.path.abspath(out)):
            raise DataError(f"{name} cannot be read: {error.strerror or error}; make it readable and run the same "
                            "command again: what is finished is kept") from error
        raise DataError(f"{name} cannot be written: {error.strerror or error}; "
                        f"{remedy(error) or 'make it writable'} and run the same command again: what is finished is "
                        "kept") from error
    if said := in_words(rows):
        say("report", f"{said}; each is named in {os.path.join(out, REPORT)}")
    return summary


def _make(out: str, shards: dict[str, list[Shard]], settings: Settings, workers: int, progress: bool,
          say: Callable) -> None:
    """The shards that are not finished yet."""
    everything = [shard for part in shards.values() for shard in part]
    todo = [shard for shard in everything if shard.record() is None]
    _check_space(out, everything, todo, settings, say)
    total, count = (sum(len(shard.photos) for shard in which) for which in (everything, todo))
    began = time.perf_counter()
    with _bar(total, total - count, progress) as bar:
        make_shards(todo, workers, bar.update)
    seconds = time.perf_counter() - began
    say("prepared", f"{count:,} images in {seconds:.0f} s, {count / seconds:,.0f} images/s; {total:,} in all in {out}")


def _finished(out: str, settings: Settings, say: Callable) -> dict | None:
    """prepared.json of a set that is finished and was made with these settings; None where there is no finished set."""
    if not os.path.exists(os.path.join(out, PREPARED)):
        return None
    summary = read_summary(out)
    there = Settings(summary["size"], summary["encoding"], summary["per_shard"], resize_of(summary))
    if there != settings:
        raise DataError(f"{out} holds a set with other options ({there.in_words()}) than were asked for "
                        f"({settings.in_words()}); choose another folder, or delete it")
    with contextlib.suppress(FileNotFoundError):       # killed after the last file was written
        shutil.rmtree(os.path.join(out, UNFINISHED))
    counts = ", ".join(f"{about['images']:,} {part}" for part, about in summary["parts"].items())
    say("prepared", f"{out} is finished already: {counts}; nothing was done. Delete it to prepare again")
    return summary


@contextlib.contextmanager
def _folder(out: str) -> Iterator[str]:
    """OUT/unfinished, created where it is missing, and locked for this process."""
    unfinished = os.path.join(out, UNFINISHED)
    if os.path.isdir(out) and os.listdir(out) and not os.path.isdir(unfinished):
        raise DataError(f"{out} is not empty and holds no unfinished set; choose a new or empty folder")
    made = not os.path.exists(out)
    try:
        os.makedirs(unfinished, exist_ok=True)
        lock = open(os.path.join(unfinished, LOCK), "wb")
    except OSError as error:
        raise DataError(f"{out} cannot be written to: {error.strerror or error}; choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock.fileno()).st_nlink or os.path.exists(os.path.join(out, PREPARED)):
                raise BlockingIOError("it has just been finished")
        except OSError as error:
            raise DataError(f"{out} is being prepared by another process; wait for it, or stop it") from error
        try:
            yield unfinished
        except BaseException as error:                  # Ctrl-C, too, which keeps what was unpacked
            begun = {LOCK, UNPACKED} if isinstance(error, DataError) else {LOCK}
            if set(os.listdir(unfinished)) <= begun and os.listdir(out) == [UNFINISHED]:     # no shard was begun
                shutil.rmtree(unfinished)
                if made and not os.listdir(out):
                    os.rmdir(out)
            raise


def _introduce(path: str, found: Source, strict: bool, say: Callable) -> None:
    """Print what was found, and compare its counts with ILSVRC2012's where it seems to be that."""
    counts = ", ".join(f"{len(photos):,} {part if part != 'all' else 'images'}" for part, photos in found.parts.items())
    say("source", f"{found.kind} in {path}: {counts}, {len(found.classes):,} classes")
    for note in found.notes:
        say("source", note)
    faults = []
    if found.ilsvrc:
        have = {part: len(found.parts.get(part, ())) for part in ILSVRC2012}
        faults = [f"{have[part]:,} {part} images, {abs(have[part] - expected):,} "
                  f"{'fewer' if have[part] < expected else 'more'} than {expected:,}"
                  for part, expected in ILSVRC2012.items() if have[part] != expected]
        faults += [f"{len(found.classes):,} classes instead of 1,000"] if len(found.classes) != 1000 else []
        say("counts", f"not those of ILSVRC2012: {'; '.join(faults)}" if faults else
            "those of ILSVRC2012: 1,281,167 train and 50,000 val images of 1,000 classes")
    if found.empty:
        faults.append(f"{len(found.empty)} empty classes, such as {'/'.join(found.empty[0])}")
        say("empty", f"{', '.join('/'.join(where) for where in found.empty[:5])}"
            f"{' ...' if len(found.empty) > 5 else ''}: no images; not a class of the prepared set")
    if strict and faults:
        raise DataError(f"--strict: {path} has {'; '.join(faults)}; complete it, or prepare it without --strict")


def _check_space(out: str, everything: list[Shard], todo: list[Shard], settings: Settings, say: Callable) -> None:
    """Print how many bytes will be written. DataError when the disk has no room for them."""
    each = settings.image_bytes * (1 if settings.encoding == "rgb" else JPEG_BYTES) * OVERHEAD
    whole, needed = (sum(len(shard.photos) for shard in which) * each for which in (everything, todo))
    free = shutil.disk_usage(out).free
    about = "" if settings.one_size else "about "
    finished = len(everything) - len(todo)
    already = f", {finished:,} of {len(everything):,} shards are finished already" if finished else ""
    say("space", f"{about}{_bytes(whole)} as {'uint8' if settings.encoding == 'rgb' else 'JPEGs'} of "
        f"{settings.shape}{already}; {about}{_bytes(needed)} to write, {_bytes(free)} free")
    if needed > free:
        less = "" if settings.encoding == "jpeg" else (f", or use --jpeg, which takes about "
                                                       f"{_bytes(whole * JPEG_BYTES)}")
        raise DataError(f"{out} has room for {_bytes(free)}, and {about}{_bytes(needed)} are needed; make room, choose "
                        f"another disk{less}")


def _complete(out: str, found: Source, shards: dict[str, list[Shard]], settings: Settings,
              strict: bool) -> tuple[dict, list[Row]]:
    """Index, statistics and report from the records of all shards; prepared.json last."""
    class_index = {name: k for k, name in enumerate(found.classes)}
    parts, rows, sums = {}, [], PixelStats((settings.size, settings.size, 3))
    indices: dict[str, dict] = {}
    for part, of_part in shards.items():
        records = [shard.record() for shard in of_part]
        if None in records:
            raise DataError(f"{of_part[records.index(None)].path} has changed while the set was prepared; run the same "
                            "command again")
        names = [photo.name.encode("utf-8", "surrogateescape") for photo in found.parts[part]]
        left_out = {k * settings.per_shard + row: reason
                    for k, record in enumerate(records) for row, reason in record.left_out.items()}
        indices[part] = {
            "labels": np.array([class_index[photo.label] for photo in found.parts[part]], np.int32),
            "names": np.frombuffer(b"".join(names), np.uint8), "name_ends": np.cumsum([len(name) for name in names]),
            "crc32": np.concatenate([record.crc32 for record in records]),
            "left_out": np.frombuffer(json.dumps(left_out).encode(), np.uint8)}
        if not settings.one_size:
            indices[part]["ends"] = np.concatenate([record.ends for record in records])
        if settings.resize == ASPECT:
            sizes = np.concatenate([record.sizes for record in records], axis=1)
            indices[part] |= {"heights": sizes[0].copy(), "widths": sizes[1].copy()}
        parts[part] = {"images": len(names), "left_out": len(left_out),
                       "shards": [{"file": shard.name, "bytes": record.bytes}
                                  for shard, record in zip(of_part, records, strict=True)]}
        rows += _rows(part, of_part, records)
        for record in records if part == "train" else []:
            sums.merge(record.total, record.products, record.count)
    rows += [("unused", f"{part}/{name}", why) for part, name, why in sorted(found.unused)]
    rows += [("empty", f"{part}/{name}", "no images") for part, name in sorted(found.empty)]
    write_report(os.path.join(out, REPORT), rows)
    _check_usable(out, found, rows, indices, strict)
    summary = {"size": settings.size, "encoding": settings.encoding, "per_shard": settings.per_shard,
               "classes": found.classes, "parts": parts} | ({"resize": ASPECT} if settings.resize == ASPECT else {})
    for part, index in indices.items():
        parts[part]["index_crc32"] = _write_checked(os.path.join(out, index_name(part)), index)
    if "train" in shards:
        known = statistics_of(sums)
        summary["statistics_crc32"] = _write_checked(os.path.join(out, STATISTICS), {
            "mean": known.mean, "eigenvalues": known.eigenvalues, "eigenvectors": known.eigenvectors,
            "count": np.array([known.count])})
    if found.words:
        words = {name: found.words[name] for name in found.classes if name in found.words}
        write_json(os.path.join(out, WORDS), signed(words, "words"))
    _remove_strays(out, parts)
    write_summary(os.path.join(out, PREPARED), summary)
    return summary, rows


def _rows(part: str, shards: list[Shard], records: list[Record]) -> list[Row]:
    """The lines of the report on the images of a part."""
    return [(kind, f"{part}/{shard.photos[row].label}/{shard.photos[row].name}", words)
            for shard, record in zip(shards, records, strict=True) for kind, row, words in record.odd]


def _check_usable(out: str, found: Source, rows: list[Row], indices: dict[str, dict], strict: bool) -> None:
    """DataError when a class has no image left, or, under --strict, when any image was left out."""
    report = os.path.join(out, REPORT)
    for part, index in indices.items():
        usable = np.ones(len(index["labels"]), bool)
        usable[[int(row) for row in json.loads(bytes(index["left_out"]))]] = False
        lost = np.setdiff1d(index["labels"], index["labels"][usable])
        if len(lost):
            raise DataError(f"no image of class {found.classes[lost[0]]} in {part} can be read (see {report}); repair "
                            "its images or remove the class, and run the same command again")
    lost = [row for row in rows if row[0] in LEFT_OUT]
    if strict and lost:
        raise DataError(f"--strict: {len(lost)} images cannot be read, the first is {lost[0][1]} ({lost[0][2]}); all "
                        f"are named in {report}. Replace them and run the same command again: finished shards are kept")


def _write_checked(path: str, tensors: dict[str, np.ndarray]) -> int:
    """Write the arrays; returns the file's checksum."""
    write_safetensors(path, tensors, {})
    with open(path, "rb") as file:
        return zlib.crc32(file.read())


def _remove_strays(out: str, parts: dict[str, dict]) -> None:
    """Remove shards of an earlier, interrupted call, when the source had more images."""
    ours = {shard["file"] for about in parts.values() for shard in about["shards"]}
    for name in os.listdir(out):
        if name.endswith(tuple(ENDINGS.values())) and name not in ours:
            os.unlink(os.path.join(out, name))


def _bar(total: int, done: int, progress: bool):
    from tqdm import tqdm

    return tqdm(desc="preparing", total=total, initial=done, unit=" images", dynamic_ncols=True, disable=not progress)


def _bytes(count: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.{1 if count < 10 * factor else 0}f} {unit}"
    return f"{count:.0f} bytes"
