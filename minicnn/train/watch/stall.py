"""The stall meter: how long the steps have waited for data, and what the loader's threads were doing meanwhile."""

from __future__ import annotations

import time

from minicnn.data.loader import Loader
from minicnn.data.stage_times import KINDS


class StallMeter:
    """Of the steps since it was made, or since the last `lap`.   loader: what the steps take their batches from."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self._before = self._now()
        self._waited, self._spent = loader.waited, loader.spent()              # until the last `step`
        self._lately = dict.fromkeys(KINDS, 0.0)        # seconds by kind, recent steps counting most
        self.share = 0.0                                # of a step that is waiting, recent steps counting most

    def _now(self) -> tuple[float, float, dict[str, float]]:
        return time.perf_counter(), self._loader.waited, self._loader.spent()

    def step(self, seconds: float) -> None:
        """A step is done that took so long, waiting included."""
        waited, self._waited = self._loader.waited - self._waited, self._loader.waited
        spent, self._spent = self._spent, self._loader.spent()
        self._lately = {kind: 0.9 * self._lately[kind] + self._spent[kind] - spent[kind] for kind in KINDS}
        self.share = 0.9 * self.share + 0.1 * min(1.0, waited / seconds if seconds else 0.0)

    def lap(self) -> dict:
        """{"seconds", "waited_for_data", "data": seconds of all threads by kind}, since the last lap."""
        (began, waited, spent), self._before = self._before, self._now()
        now, waited_now, spent_now = self._before
        return {"seconds": round(now - began, 3), "waited_for_data": round(waited_now - waited, 3),
                "data": {kind: round(spent_now[kind] - spent[kind], 3) for kind in KINDS}}

    def reason(self) -> str:
        """What the data threads have spent most of their time on lately: disk, decode or copy."""
        return max(KINDS, key=self._lately.get)
