"""The ledger: statistics of the communication between ranks, per exchange point and direction.

    bytes      sent and received by this rank, per step
    moving     milliseconds spent copying and adding the data
    waiting    milliseconds until the other ranks arrived at the same point: load imbalance, not data transfer
    hidden     the part of both that overlapped with computation, in a background thread during the backward pass

The first step is not counted, since it may compile kernels.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

# points that are not listed: consistency checks and results
INTERNAL = {"agreement", "loss", "numbers", "barrier", "broadcast_object", "logits", "broadcast", "weights"}


@dataclass
class Entry:
    """One exchange point in one direction, summed over the steps."""

    point: str
    direction: str
    times: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    blocked: float | None = None       # seconds during which computation was blocked; None: all


class Ledger:
    """The communication statistics of one rank."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.steps = 0
        self.in_step = False
        self._entries: dict[tuple[str, str], Entry] = {}
        self._lock = threading.Lock()

    def record(self, point: str, direction: str, sent: int, received: int, seconds: float, waited: float) -> None:
        """Record one exchange; ignored outside of training steps."""
        if not self.in_step:
            return
        with self._lock:
            entry = self._entries.setdefault((point, direction), Entry(point, direction))
            entry.times += 1
            entry.sent += sent
            entry.received += received
            entry.seconds += seconds
            entry.waited += waited

    def record_exposed(self, point: str, direction: str, seconds: float) -> None:
        """Add time during which computation was blocked by exchanges in the background (exposed communication)."""
        with self._lock:
            entry = self._entries.setdefault((point, direction), Entry(point, direction))
            entry.blocked = (entry.blocked or 0.0) + seconds

    def begin_step(self) -> None:
        """Exchanges from now on belong to a training step."""
        self.in_step = True

    def end_step(self) -> None:
        """The step is complete; statistics of the first step are discarded."""
        self.in_step = False
        self.steps += 1
        if self.steps == 1:
            self._first, self._entries = self._entries, {}

    def rows(self) -> list[dict]:
        """Per step, in order of first use: bytes sent and received, and milliseconds."""
        steps = max(self.steps - 1, 1)
        entries = self._entries or getattr(self, "_first", {})
        rows = []
        for entry in entries.values():
            if entry.point in INTERNAL:
                continue
            hidden = 0.0 if entry.blocked is None else max(0.0, entry.seconds - entry.blocked)
            rows.append({"point": entry.point, "direction": entry.direction, "sent": entry.sent // steps,
                         "received": entry.received // steps,
                         "moving_ms": 1e3 * (entry.seconds - entry.waited) / steps,
                         "waiting_ms": 1e3 * entry.waited / steps, "hidden_ms": 1e3 * hidden / steps})
        return rows

    def table(self) -> str:
        """The rows as a text table."""
        rows = [("exchange point", "", "bytes out", "bytes in", "moving ms", "waiting ms", "hidden ms")]
        for row in self.rows():
            rows.append((row["point"], row["direction"], f"{row['sent']:,}", f"{row['received']:,}",
                         f"{row['moving_ms']:.2f}", f"{row['waiting_ms']:.2f}", f"{row['hidden_ms']:.2f}"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in
                           enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
        total = self.rows()
        head = (f"rank {self.rank} of {self.size}, per step, mean of {max(self.steps - 1, 1)}: "
                f"{sum(row['sent'] for row in total):,} bytes out, {sum(row['received'] for row in total):,} in, "
                f"{sum(row['moving_ms'] + row['waiting_ms'] - row['hidden_ms'] for row in total):.1f} ms not hidden")
        return "\n".join([head, lines[0], "-" * max(map(len, lines)), *lines[1:]])
