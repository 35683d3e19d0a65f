"""What the threads that make batches spend their time on: reading files, decoding them, copying images into batches.

Of a prepared set, the first look at an image (its checksum) counts as disk; pages that are no longer in memory later
are read while they are copied, and count as copying.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

KINDS = ("disk", "decode", "copy")
_totals, _lock = dict.fromkeys(KINDS, 0.0), threading.Lock()


@contextmanager
def stage(kind: str):
    """The seconds inside, in this thread, count as `kind`."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        with _lock:
            _totals[kind] += seconds


def seconds() -> dict[str, float]:
    """Seconds of all threads by kind, since the program began."""
    with _lock:
        return dict(_totals)


def since(before: dict[str, float]) -> dict[str, float]:
    """Seconds by kind since `before`, an earlier answer of `seconds`."""
    return {kind: total - before[kind] for kind, total in seconds().items()}


def in_words(spent: dict[str, float]) -> str:
    """Such as "disk 12 %, decode 80 %, copy 8 %", of time spent; "" where there was none."""
    whole = sum(spent.values())
    return ", ".join(f"{kind} {100 * part / whole:.0f} %" for kind, part in spent.items()) if whole else ""
