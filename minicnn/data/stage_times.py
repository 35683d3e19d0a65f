"""What the threads that make batches spend their time on: reading files, decoding them, copying images into batches.

Each loader has an account of its own, a StageTimes. A thread that works for a loader charges it: what runs inside
`with times.charged():` counts there, and in no other account. Without one, `stage` counts nowhere.

Of a prepared set, the first look at an image (its checksum) counts as disk; pages that are no longer in memory later
are read while they are copied, and count as copying.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

KINDS = ("disk", "decode", "copy")


class StageTimes:
    """Seconds by kind, summed over threads."""

    def __init__(self):
        self._totals, self._lock = dict.fromkeys(KINDS, 0.0), threading.Lock()

    def add(self, kind: str, seconds: float) -> None:
        with self._lock:
            self._totals[kind] += seconds

    def seconds(self) -> dict[str, float]:
        """Seconds of all threads by kind, so far."""
        with self._lock:
            return dict(self._totals)

    @contextmanager
    def charged(self) -> Iterator[None]:
        """The stages inside, in this thread, count here."""
        before = _charged.set(self)
        try:
            yield
        finally:
            _charged.reset(before)


_charged: ContextVar[StageTimes | None] = ContextVar("charged", default=None)


@contextmanager
def stage(kind: str) -> Iterator[None]:
    """The seconds inside, in this thread, count as `kind` in the account that this thread charges."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if (times := _charged.get()) is not None:
            times.add(kind, time.perf_counter() - began)


def in_words(spent: dict[str, float]) -> str:
    """Such as "disk 12 %, decode 80 %, copy 8 %", of time spent; "" where there was none."""
    whole = sum(spent.values())
    return ", ".join(f"{kind} {100 * part / whole:.0f} %" for kind, part in spent.items()) if whole else ""
