"""The machine: its name, and the two rates that limit everything, measured: matrix products and copying.

Both are measured on the same threads and in the same run as the programs that are compared with them. The matrix
product is the faster of NumPy's BLAS and PyTorch's, where PyTorch is loaded; the copy is memcpy on arrays larger than
the caches, and counts the bytes read and the bytes written.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minicnn.kernels.cpu.threads import run, split
from minicnn.kernels.cpu.tile import VECTOR_VARIABLE

SIZE = 1536                             # of the square matrices: large enough for the full rate
COPY_BYTES = 128 << 20                  # of each of the two arrays, for each thread: more than its share of a cache
BUSY = 0.05                             # of all cores; if other programs use more, times are unreliable


def others(seconds: float = 0.5) -> float:
    """The share of all cores that other programs use, measured for a moment; 0 where the system has no such counter."""
    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]           # all, and idle or waiting for a disk

    if not Path("/proc/stat").exists():
        return 0.0
    before = ticks()
    time.sleep(seconds)
    total, idle = (after - earlier for after, earlier in zip(ticks(), before, strict=True))
    return round(1 - idle / total, 2) if total else 0.0


# What limits PyTorch and the libraries below it to vectors of as many bytes as ours.
SAME_VECTORS = {"32": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
                       "OPENBLAS_CORETYPE": "Haswell"},
                "16": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41",
                       "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem"}}


def limit_vectors() -> None:
    """Before PyTorch is imported: it gets no longer vectors than MINICNN_VECTOR_BYTES leaves us.

    What it compiles is kept apart: its cache gives code for one kind of vectors to the other, which crashes.
    """
    if (chosen := os.environ.get(VECTOR_VARIABLE)) in SAME_VECTORS:
        cache = Path(tempfile.gettempdir()) / f"torchinductor-vectors-of-{chosen}-bytes"
        os.environ.update(SAME_VECTORS[chosen], TORCHINDUCTOR_CACHE_DIR=str(cache))


def machine() -> str:
    """The processor's name as the system reports it, its cores, and the vectors where they were chosen."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass                                                # not Linux, or a processor that Linux does not name
    chosen = os.environ.get(VECTOR_VARIABLE)
    return f"{name}, {os.cpu_count()} cores{f', vectors of {chosen} bytes' if chosen else ''}"


def slug(name: str) -> str:
    """The machine's name as a file name: "Intel(R) Xeon(R) Processor, 2 cores" -> "intel-xeon-2-cores"."""
    plain = re.sub(r"\((r|tm|c)\)|\b(processor|cpu)\b|@ .*?(?=,)", " ", name.lower())
    return "-".join(re.findall(r"[a-z0-9.]+", plain))


def sgemm(threads: int) -> tuple[str, float, Callable]:
    """(library, GFLOP of one call, the call) of the faster float32 matrix product on these threads."""
    a, b = (np.random.default_rng(i).standard_normal((SIZE, SIZE), dtype=np.float32) for i in range(2))
    out = np.empty_like(a)
    calls = {"NumPy": lambda: run(split(SIZE, threads), lambda i, j: np.matmul(a[i:j], b, out=out[i:j]))}
    torch = sys.modules.get("torch")
    if torch is not None:
        ta, tb, tout = map(torch.from_numpy, (a, b, out))
        calls["PyTorch"] = lambda: torch.mm(ta, tb, out=tout)
    whose = min(calls, key=lambda name: min(seconds_of_runs(calls[name])))
    return whose, 2e-9 * SIZE**3, calls[whose]


def copy(threads: int) -> tuple[float, Callable]:
    """(GB read and written by one call, the call) of a copy on these threads."""
    x, y = (np.full(threads * COPY_BYTES // 4, i, np.float32) for i in range(2))
    return 2e-9 * x.nbytes, lambda: run(split(x.size, threads), lambda i, j: np.copyto(y[i:j], x[i:j]))


def seconds_of_runs(call: Callable, runs: int = 7) -> list[float]:
    """Of some runs, after one that does not count."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds
