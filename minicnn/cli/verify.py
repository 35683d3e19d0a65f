"""minicnn verify: whether what minicnn wrote is still what is on the disk."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from minicnn import pretrained
from minicnn.data.prepared import PREPARED, STATISTICS, WORDS, Shards, index_name, is_prepared, read_summary
from minicnn.errors import CheckpointError, ConfigError, DataError, MinicnnError
from minicnn.evaluate.predict import read_words
from minicnn.experiment.options import add_out
from minicnn.system.files import has_checksums, read_safetensors, unsigned
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.runs.run_dir import BEST, LAST, LEDGER, METRICS, PREVIOUS, TEST, find_checkpoint, kept_weights

ABOUT = "Check runs, prepared sets and single files against the checksums that they were written with."
MORE = """For each file: fine, or damaged and where. Exit code 0 if all are fine, 1 if one is damaged. Files of version
0.1.0 have no checksums: they are only read. Pictures and report.tsv are not checked."""
CHECKPOINTS = (LAST, PREVIOUS, BEST)
Check = tuple[Path, Callable[[], str]]           # a file, and what checks it: a remark, or MinicnnError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RUN|SHARDS|FILE", nargs="+", help="a run's folder or name, a folder of "
                        "runs, a prepared set, or one of their files")
    add_out(parser)


def run(options: argparse.Namespace) -> int:
    damaged = 0
    for what in options.what:
        found = (path for path in (Path(what), Path(options.out) / what) if path.exists())
        path = find_checkpoint(options.out, what, BEST) if what == pretrained.WORD else next(found, None)
        if path is None:
            raise ConfigError(f"{what}: no such run, prepared set or file; expected a path, or the name of a run in "
                              f"{options.out}")
        for file, check in checks(path):
            damaged += not verify(file, check)
    return 1 if damaged else 0


def verify(file: Path, check: Callable[[], str]) -> bool:
    """Print whether the file is fine; returns it."""
    try:
        print(f"fine      {file}{check()}", flush=True)
    except (MinicnnError, OSError) as error:
        text = str(error)
        print(f"damaged   {text if str(file) in text else f'{file}: {text}'}", flush=True)
        return False
    return True


def checks(path: Path) -> Iterator[Check]:
    """The files to check. ConfigError for what minicnn does not write."""
    if path.is_file():
        yield path, _check_of(path)
    elif is_prepared(path):
        yield from _of_set(path)
    else:
        names = (*CHECKPOINTS, METRICS, TEST, LEDGER)
        found = [file for run in (path, *sorted(path.iterdir()))
                 for file in (*(run / name for name in names), *kept_weights(run).values()) if file.is_file()]
        if not found:
            raise ConfigError(f"{path} holds neither a run nor a prepared set")
        yield from ((file, _check_of(file)) for file in found)


def _check_of(path: Path) -> Callable[[], str]:
    kinds = {METRICS: _metrics, TEST: _json, WORDS: _words, PREPARED: lambda path: _nothing(read_summary(path.parent))}
    if path.name in CHECKPOINTS or path in kept_weights(path.parent.parent).values():
        return lambda: _checkpoint(path)
    if path.suffix == ".safetensors":
        return lambda: _tensors(path)
    if path.name in kinds or path.suffix == ".json":
        return lambda: kinds.get(path.name, _json)(path)
    raise ConfigError(f"{path}: not a file that can be checked; expected .safetensors, {METRICS}, a .json, or a folder")


def _nothing(*results) -> str:
    return ""


def _tensors(path: Path) -> str:
    read_safetensors(path)
    return "" if has_checksums(path) else " (can be read; it has no checksums)"


def _checkpoint(path: Path) -> str:
    meta = load_checkpoint(path).meta
    where = f": epoch {meta['epoch']}" + (f" and {meta['step']} steps" if meta["step"] else "")
    return where + ("" if has_checksums(path) else " (can be read; it has no checksums)")


def _metrics(path: Path) -> str:
    """Every line, and the part that the last checkpoint knows."""
    count = len(read_metrics(path))
    with contextlib.suppress(CheckpointError):          # none, or a damaged one: it has its own line
        meta = load_checkpoint(path.parent / LAST, parts=()).meta
        if meta.get("metrics_crc32") not in (None, zlib.crc32(path.read_bytes()[:meta["metrics_bytes"]])):
            raise DataError(f"{path}: has changed since the last checkpoint was written (checksum)")
    return f": {count:,} lines"


def _json(path: Path) -> str:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        for part in data if isinstance(data, list) else [data]:
            unsigned(part)
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: {error}") from error
    return ""


def _words(path: Path) -> str:
    return f": {len(read_words(path)):,} classes"


def _of_set(path: Path) -> Iterator[Check]:
    """The files of a prepared set. Without prepared.json nothing can be checked, and without an index not its part."""
    yield path / PREPARED, lambda: _nothing(read_summary(path))
    with contextlib.suppress(DataError):
        summary = read_summary(path)
        for part in summary["parts"]:
            yield path / index_name(part), lambda part=part: _nothing(_part(path, part, summary))
            with contextlib.suppress(DataError):
                shards = _part(path, part, summary)
                for number, file in enumerate(shards.files):
                    yield path / file["file"], partial(_shard, shards, number)
        yield from _rest_of_set(path, summary)


def _part(path: Path, part: str, summary: dict) -> Shards:
    return Shards(os.fspath(path), part, summary, check=False)


def _rest_of_set(path: Path, summary: dict) -> Iterator[Check]:
    if "statistics_crc32" in summary:
        yield path / STATISTICS, lambda: _whole(path / STATISTICS, summary["statistics_crc32"])
    if (path / WORDS).is_file():
        yield path / WORDS, lambda: _words(path / WORDS)


def _shard(shards: Shards, number: int) -> str:
    shards.check_size(number)
    images, bad = shards.rows(number), shards.damaged(number)
    if bad:
        raise DataError(f"{len(bad):,} of {len(images):,} images have changed since they were written (checksum), "
                        f"the first is {bad[0]}")
    return f": {len(images):,} images"


def _whole(path: Path, expected: int) -> str:
    if zlib.crc32(path.read_bytes()) != expected:
        raise DataError(f"{path}: has another checksum than when it was written")
    return ""
