"""Timing programs in turns, and the interval of a median ratio.

Machines are noisy, but noise at one moment affects all programs alike: so they run in turns, in a different order in
each round, and only the ratio within a round counts. The median of the ratios comes with an interval
from the binomial distribution (order statistics; nothing is assumed about the shape of the noise).
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from limits import limit_vectors, machine

TURN = 0.02                     # seconds: a shorter call is repeated until its turn takes as long
PAUSE = 0.005                   # seconds between turns, in which idle threads of the last one stop spinning


def import_torch():
    """PyTorch, with vectors no longer than ours; exits with one line that says how to install it if missing."""
    limit_vectors()
    try:
        import torch
    except ImportError:
        sys.exit("error: this benchmark compares with PyTorch, which is not installed: pip install 'minicnn[judge]'")
    return torch


def in_turns(ours: Callable, theirs: Callable, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of each run of both. The first runs of each (compiling, first touch of memory) are not counted."""
    seconds = rounds({"ours": ours, "theirs": theirs}, pairs)
    return seconds["ours"], seconds["theirs"]


def rounds(functions: dict[str, Callable], count: int, finish: Callable = lambda: None, turn: float = TURN,
           pause: float = PAUSE) -> dict[str, list[float]]:
    """Seconds of one call of each function in each of `count` rounds, after two calls that are not counted.

    finish: waits for work that a call has only started, as on a GPU; called at the end of a turn.   turn, pause: as
    TURN and PAUSE.
    """
    repeats = {}
    for name, function in functions.items():
        function()
        finish()
        repeats[name] = max(1, math.ceil(turn / seconds_of(function, 1, finish)))
    seconds = {name: [] for name in functions}
    for i in range(count):
        for name in order_of(list(functions), i):
            time.sleep(pause)
            seconds[name].append(seconds_of(functions[name], repeats[name], finish))
    return seconds


def order_of(names: list[str], i: int) -> list[str]:
    """Names in the order of round i: each comes first equally often, and after each of its neighbours."""
    start = i // 2 % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if i % 2 else rotated


def seconds_of(function: Callable, repeats: int = 1, finish: Callable = lambda: None) -> float:
    """Seconds of one call, the mean over some."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    finish()
    return (time.perf_counter() - start) / repeats


def median_interval(values: list[float], confidence: float = 0.9) -> tuple[float, float, float]:
    """The median, and the narrowest pair of order statistics that contains it with at least this confidence.

    Fewer than five values cannot give 90 %; then the interval is from the least to the largest of them.
    """
    ordered, n = sorted(values), len(values)
    below, k = 0.0, 0                                       # chance that at most k values lie below the median
    while k < n // 2 and below + math.comb(n, k) / 2**n <= (1 - confidence) / 2:
        below += math.comb(n, k) / 2**n
        k += 1
    return statistics.median(ordered), ordered[max(k - 1, 0)], ordered[min(n - k, n - 1)]


def compare(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Medians in milliseconds, and the ratio ours / theirs with its 90 % interval (below 1: we are faster)."""
    ratio, low, high = median_interval([a / b for a, b in zip(ours, theirs, strict=True)])
    return {"ours_ms": 1e3 * statistics.median(ours), "theirs_ms": 1e3 * statistics.median(theirs),
            "ratio": ratio, "ratio_low": low, "ratio_high": high, "pairs": len(ours)}


def write_json(path: str | None, result: dict) -> None:
    """The result, with the machine and the versions of the run."""
    if path:
        about = {"machine": machine(), "python": platform.python_version(), "numpy": np.__version__}
        Path(path).write_text(json.dumps(about | result, indent=1) + "\n")
