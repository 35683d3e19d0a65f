"""Derived from the seconds of a benchmark: rates, shares of the machine's limit, speed ratios, goals.

A row is plain data, as in the JSON files:

  name, threads, batch      what was timed
  gflop, gbyte              arithmetic, and bytes that have to cross memory once, of one call; either may be None
  seconds                   "ours" and each peer -> seconds in each round
  limit, limit_rates        "sgemm" or "copy": the limit that the row is compared with, and its rate in each round
  dot                       (kernel, pass) as the roofline names it; a row without it is not drawn
  goals                     [(against, gate, aim)], against being "best", a peer, "share" or "memory"; gate or aim may
                            be None
  mib                       instead of seconds: peak memory of "ours" and each peer

A total is a row made of others: kind "sum" adds their seconds, round by round; "geomean" takes the geometric mean of
how many times as fast they are. All ratios of times are theirs / ours: 1.4 means that ours is 1.4 times as fast.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from side_by_side import median_interval

OURS = "ours"
Interval = tuple[float, float, float]                       # median, low, high


@dataclass(frozen=True)
class Ratios:
    """The values that the tables show of a row or total."""

    name: str
    threads: int
    ms: dict[str, float]                                    # median milliseconds, of ours and of each peer
    rate: float | None                                      # GFLOP/s or GB/s, by the limit
    limit_rate: float | None                                # the limit's rate in the same rounds
    share: Interval | None                                  # rate / limit_rate
    versus: dict[str, Interval]                             # peer -> times as fast as it (memory: ours / theirs)
    best: str | None                                        # the peer with the least median (of time, or of memory)
    goals: list                                             # [(against, gate, aim)]

    def value(self, against: str) -> Interval | None:
        """The value that a goal is about, as (median, low, high); None where it was not measured."""
        if against == "share":
            return self.share
        return self.versus.get(self.best if against in ("best", "memory") else against)


def ceiling(rates: list[float]) -> float:
    """The limit's rate: what it reached in the best tenth of its turns (GFLOP/s or GB/s).

    Not the median: on a busy machine the two halves of a matrix product wait for the slower core, and a kernel that
    divides its work into small pieces would seem to exceed a limit that cannot be exceeded. Not the best of all, which
    one outlier determines.
    """
    return sorted(rates)[math.ceil(0.9 * len(rates)) - 1]


def limit_of(report: dict, threads: str, limit: str) -> float:
    """The limit's rate over the whole run, with this number of threads."""
    rates = [rate for row in report["rows"] if row.get("limit") == limit and str(row["threads"]) == threads
             for rate in row["limit_rates"]]
    return ceiling(report["limits"][threads][limit] + rates)


def ratios_of(row: dict) -> Ratios:
    """The ratios of one row."""
    goals = [tuple(goal) for goal in row["goals"]]
    if "mib" in row:
        ours = row["mib"][OURS]
        versus = {peer: (ours / theirs,) * 3 for peer, theirs in row["mib"].items() if peer != OURS}
        best = max(versus, key=lambda peer: versus[peer][0], default=None)
        return Ratios(row["name"], row["threads"], dict(row["mib"]), None, None, None, versus, best, goals)
    seconds = row["seconds"]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peers = [name for name in seconds if name != OURS]
    versus = {peer: median_interval(_ratios(seconds[peer], seconds[OURS])) for peer in peers}
    work = row["gflop" if row["limit"] == "sgemm" else "gbyte"]
    rate = limit_rate = share = None
    if work:
        rate, limit_rate = work / medians[OURS], ceiling(row["limit_rates"])
        share = median_interval([work / value / limit_rate for value in seconds[OURS]])
    return Ratios(row["name"], row["threads"], {name: 1e3 * value for name, value in medians.items()}, rate,
                    limit_rate, share, versus, min(peers, key=medians.get, default=None), goals)


def total(what: dict, rows: list[dict]) -> Ratios | None:
    """Of a total {"name", "kind", "of": names, "threads", "goals"}; None where a row of it was not measured."""
    found = {row["name"]: row for row in rows if row["threads"] == what["threads"]}
    if not all(name in found for name in what["of"]):
        return None
    parts = [found[name] for name in what["of"]]
    return {"sum": _sum, "geomean": _mean}[what["kind"]](what, parts)


def _sum(what: dict, parts: list[dict]) -> Ratios:
    """The parts one after the other: their seconds added round by round, and their work and the limit's time for it."""
    names = [name for name in parts[0]["seconds"] if all(name in part["seconds"] for part in parts)]
    key = "gflop" if parts[0]["limit"] == "sgemm" else "gbyte"
    work = sum(part[key] for part in parts)
    limit_rate = work / sum(part[key] / ceiling(part["limit_rates"]) for part in parts)
    seconds = {name: [sum(times) for times in zip(*(part["seconds"][name] for part in parts), strict=True)]
               for name in names}
    return ratios_of(parts[0] | what | {key: work, "limit_rates": [limit_rate], "seconds": seconds})


def _mean(what: dict, parts: list[dict]) -> Ratios:
    """The geometric mean over the parts of how many times as fast as the best they are, and of their shares."""
    each = [(part["seconds"], ratios_of(part)) for part in parts]
    share = best = None
    versus = {}
    if all(m.share for _, m in each):
        share = tuple(_geomean(m.share[k] for _, m in each) for k in range(3))
    if all(m.best for _, m in each):
        best = "the best of each"
        versus[best] = median_interval([_geomean(s[m.best][i] / s[OURS][i] for s, m in each)
                                        for i in range(len(parts[0]["seconds"][OURS]))])
    return Ratios(what["name"], what["threads"], {}, None, None, share, versus, best,
                    [tuple(goal) for goal in what["goals"]])


def verdict(measured: Ratios, goal: tuple) -> str:
    """Whether a goal holds, by the median: "aim", "gate", "missed", or without a gate "not the aim".

    "(close)" is added where the interval contains the gate (the aim, without a gate).
    """
    against, gate, aim = goal
    median, low, high = measured.value(against)
    reached = (lambda wanted: median <= wanted) if against == "memory" else (lambda wanted: median >= wanted)
    if aim is not None and reached(aim):
        word = "aim"
    elif gate is None:
        word = "not the aim"
    else:
        word = "gate" if reached(gate) else "missed"
    return word + (" (close)" if low < (aim if gate is None else gate) < high else "")


def _ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def _geomean(values) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
