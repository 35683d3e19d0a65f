"""What the benchmarks share: timing two programs in turns, the interval of a median ratio, the machine and its limits.

Machines are noisy, and the noise of one second is the same for both: so the two are run in turns, the order of each
pair swapped every time, and what counts is the ratio within a pair. The median of the ratios comes with an interval
from the binomial distribution (order statistics; nothing is assumed about the shape of the noise).
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def import_torch():
    """PyTorch, or an end with one line that says how to get it."""
    try:
        import torch
    except ImportError:
        sys.exit("error: this benchmark compares with PyTorch, which is not installed: pip install 'minicnn[judge]'")
    return torch


def in_turns(ours: Callable, theirs: Callable, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of each run of both. The first run of each (compiling, first touch of memory) is not counted."""
    functions, seconds = (ours, theirs), ([], [])
    for i in range(pairs + 1):
        for which in ((0, 1) if i % 2 else (1, 0)):
            start = time.perf_counter()
            functions[which]()
            seconds[which].append(time.perf_counter() - start)
    return seconds[0][1:], seconds[1][1:]


def median_interval(values: list[float], confidence: float = 0.9) -> tuple[float, float, float]:
    """The median, and the narrowest pair of order statistics that holds it with at least this confidence."""
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


def sgemm_rate(threads: int, size: int = 1536, runs: int = 7) -> float:
    """GFLOP/s of NumPy's matrix product on all threads: what convolutions and fully connected layers are limited by."""
    from threadpoolctl import threadpool_limits

    a, b = (np.random.default_rng(i).standard_normal((size, size), dtype=np.float32) for i in range(2))
    out, best = np.empty_like(a), math.inf
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(runs):
            start = time.perf_counter()
            np.matmul(a, b, out=out)
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def machine() -> str:
    """The processor's name as the system gives it, and its cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass                                                # not Linux, or a processor that Linux does not name
    return f"{name}, {os.cpu_count()} cores"


def write_json(path: str | None, result: dict) -> None:
    """The result, beside the machine and the versions that it holds for."""
    if path:
        about = {"machine": machine(), "python": platform.python_version(), "numpy": np.__version__}
        Path(path).write_text(json.dumps(about | result, indent=1) + "\n")
