"""The metrics file, metrics.jsonl: one JSON object a line.

A checkpoint holds the length of the file and its CRC-32, and a resumed run truncates the file to it. So an interrupted
run has the same lines as an uninterrupted one, except for the values under "time".
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path

from minicnn.errors import DataError
from minicnn.train.runs.checkpoint import NUMBER, misfit

SCORES = {"loss": NUMBER, "top1": NUMBER, "top5": NUMBER}
KINDS = {"run": {"recipe": dict, "majority": {"train": NUMBER, "val": NUMBER}},
         "step": {"epoch": int, "step": int, "steps": int, "lr": NUMBER, "loss": NUMBER, "time": dict},
         "epoch": {"epoch": int, "lr": NUMBER, "train": SCORES, "val": SCORES, "time": {"seconds": NUMBER}}}


class MetricsLog:
    """A file of JSON lines that only grows, except when a run is resumed."""

    def __init__(self, path: str | os.PathLike, keep: int = 0):
        """Open for appending after the first `keep` bytes; the rest is cut off."""
        self.path = Path(path)
        self._file = open(self.path, "ab")
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)
        self.crc32 = zlib.crc32(self.path.read_bytes())         # of all that it holds

    def write(self, record: dict) -> None:
        """Append one line; it survives a kill of the process from then on."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self.crc32 = zlib.crc32(line, self.crc32)

    def position(self) -> tuple[int, int]:
        """Length of the file in bytes, and its CRC-32, after bringing all of it to the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell(), self.crc32

    def close(self) -> None:
        self._file.close()


class NoLog:
    """The metrics log of ranks other than 0: writes nothing."""

    def write(self, record: dict) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The records of a metrics file; an unfinished last line, as a killed run may leave, is left out.

    DataError for a line that is damaged.
    """
    return [_record(path, number, line)
            for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], 1) if line]


def _record(path: str | os.PathLike, number: int, line: bytes) -> dict:
    with contextlib.suppress(ValueError):
        record = json.loads(line)
        if misfit(record, {"kind": str}, "record") is None and \
                misfit(record, KINDS.get(record["kind"], {}), "record") is None:
            return record
    raise DataError(f"{os.fspath(path)}, line {number}: damaged, not the metrics of a run; remove this line")


def training_minutes(path: str | os.PathLike) -> float:
    """Minutes that the epochs of a metrics file took, without interruptions."""
    return sum(record["time"]["seconds"] for record in read_metrics(path) if record["kind"] == "epoch") / 60
