"""The metrics file, metrics.jsonl: one JSON object a line.

A checkpoint holds the length of the file, and a resumed run truncates the file to it. So an interrupted run has the
same lines as an uninterrupted one, except for the values under "time".
"""

from __future__ import annotations

import json
import os
from pathlib import Path


class MetricsLog:
    """A file of JSON lines that only grows, except when a run is resumed."""

    def __init__(self, path: str | os.PathLike, keep: int = 0):
        """Open for appending after the first `keep` bytes; the rest is cut off."""
        self.path = Path(path)
        self._file = open(self.path, "ab")
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)

    def write(self, record: dict) -> None:
        """Append one line; it survives a kill of the process from then on."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def position(self) -> int:
        """Length of the file in bytes, after bringing all of it to the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class NoLog:
    """The metrics log of ranks other than 0: writes nothing."""

    def write(self, record: dict) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The records of a metrics file; an unfinished last line, as a killed run may leave, is left out."""
    lines = Path(path).read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]


def training_minutes(path: str | os.PathLike) -> float:
    """Minutes that the epochs of a metrics file took, without interruptions."""
    return sum(record["time"]["seconds"] for record in read_metrics(path) if record["kind"] == "epoch") / 60
