"""What is counted during training, and the file it goes to.

`Tally` sums loss and hits over images; `MetricsLog` appends one JSON object a line (metrics.jsonl). A checkpoint keeps
the length that the file had, and a resumed run cuts the file back to it: so the lines of a run that was interrupted are
those of one that was not, up to what is kept under "time".
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np


def hits(scores: np.ndarray, labels: np.ndarray, k: int) -> int:
    """How many labels are among the k highest scores of their row; scores (N, K). The lower index wins a tie."""
    own = scores[np.arange(len(labels)), labels][:, None]                                     # (N, 1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]                           # (N, K)
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)                         # (N,)
    return int((rank < k).sum())


def majority(labels: np.ndarray) -> float:
    """Share of the most frequent label: what always giving one answer scores."""
    return float(np.bincount(labels).max() / len(labels))


class Tally:
    """Sums over images; `result()` gives the means. Top-5 is only of interest with more than five classes."""

    def __init__(self, images: int = 0, loss: float = 0.0, top1: int = 0, top5: int = 0):
        self.images, self.loss, self.top1, self.top5 = images, loss, top1, top5

    def add(self, loss: float, scores: np.ndarray, labels: np.ndarray) -> None:
        """loss: mean over these images; scores: logits or probabilities (N, K); labels (N,)."""
        self.images += len(labels)
        self.loss += float(loss) * len(labels)
        self.top1 += hits(scores, labels, 1)
        self.top5 += hits(scores, labels, 5)

    def result(self) -> dict[str, float]:
        """{"loss", "top1", "top5"}: means over the images counted so far."""
        images = max(self.images, 1)
        return {"loss": self.loss / images, "top1": self.top1 / images, "top5": self.top5 / images}

    def since(self, state: dict[str, float]) -> Tally:
        """What was added since this earlier `state`."""
        return Tally(**{name: now - state[name] for name, now in self.state().items()})

    def state(self) -> dict[str, float]:
        return {"images": self.images, "loss": self.loss, "top1": self.top1, "top5": self.top5}


class MetricsLog:
    """A file of JSON lines that only grows, except when a run is resumed."""

    def __init__(self, path: str | os.PathLike, keep: int = 0):
        """Open for appending after the first `keep` bytes; what lies beyond is cut off."""
        self.path = Path(path)
        self._file = open(self.path, "ab")
        self._file.truncate(min(keep, self._file.tell()))
        self._file.seek(0, os.SEEK_END)

    def write(self, record: dict) -> None:
        """Append one line; it is with the operating system when this returns."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def position(self) -> int:
        """Length of the file in bytes, all of it on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class NoLog:
    """What a rank that is not the lead writes to."""

    def write(self, record: dict) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The records of a metrics file; an unfinished last line, as a killed run may leave, is left out."""
    lines = Path(path).read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]


def training_minutes(path: str | os.PathLike) -> float:
    """Minutes that the epochs of a metrics file took, interruptions left out."""
    return sum(record["time"]["seconds"] for record in read_metrics(path) if record["kind"] == "epoch") / 60
