"""Damage files in every way, read them, and report: python -m tests.fuzz.run [--count 100000] [--seed 0] [--kind KIND].

A fault is an exception that is no MinicnnError (a traceback, for the user), ten seconds or more, a gigabyte or more, a
process that dies, and a damaged file of ours that is read as something else than was written. So are, for files of
other programs, memory of more than 64 MB and three times the file, and anything that is executed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random

from minicnn.errors import MinicnnError
from tests.fuzz.kinds import KINDS, digest
from tests.fuzz.mutants import mutant

SECONDS, BYTES, CHUNK = 10, 2**30, 250
FAULTS = ("traceback", "hang", "believed", "died", "memory", "executed")
LEAN = 64 * 2**20                                       # bytes for any file of another program
EXECUTES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pickle.find_class",
            "socket.connect", "ctypes.dlopen")


def fuzz(kind: str, seed: int, count: int) -> tuple[Counter, list[str]]:
    """Read `count` mutants; returns what came of them ("refused", "read" or a fault), and a line for each fault."""
    about, rng, found, faults = KINDS[kind], Random(f"{kind} {seed}"), Counter(), []
    watch_execution()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")                 # Pillow's, of images
        folder = Path(name)
        about.make(folder)
        files = [path for pattern in about.files for path in sorted(folder.glob(pattern)) if path.is_file()]
        whole = {path: path.read_bytes() for path in files}
        right = {path: digest(about.read(folder, path)) for path in files}
        for number in range(count):
            path = rng.choice(files)
            path.write_bytes(data := mutant(whole[path], list(whole.values()), rng))
            what, words = _read(about, folder, path, right[path])
            found[what] += 1
            if what in FAULTS:
                faults.append(f"{kind}, seed {seed}, number {number}, {path.relative_to(folder)}: {what}: {words}")
                _keep(kind, path, seed, number, data)
            path.write_bytes(whole[path])
    return found, faults


def _read(about, folder: Path, path: Path, right: int) -> tuple[str, str]:
    executed.clear()
    with peak_memory() as taken:
        found = _result(about, folder, path, right)
    if not about.foreign or found[0] in FAULTS:
        return found
    if taken[0] > max(LEAN, 3 * path.stat().st_size):
        return "memory", f"{taken[0] / 2**20:.0f} MB"
    return ("executed", ", ".join(executed)) if executed else found


def _result(about, folder: Path, path: Path, right: int) -> tuple[str, str]:
    try:
        with time_limit():
            result = digest(about.read(folder, path))
    except MinicnnError as error:
        return ("refused", "") if "\n" not in str(error) else ("traceback", f"several lines: {error!r}")
    except TimeoutError:
        return "hang", f"{SECONDS} s"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
    return ("believed", "") if about.ours and result != right else ("read", "")


def _keep(kind: str, path: Path, seed: int, number: int, data: bytes) -> None:
    """The mutant, for debugging, in the folder that MINICNN_FUZZ names."""
    if folder := os.environ.get("MINICNN_FUZZ"):
        Path(folder, f"{kind.replace(' ', '-')}-{seed}-{number}-{path.name}").write_bytes(data)


executed: list[str] = []                                # events of Python's auditing that files must not cause


@cache
def watch_execution() -> None:
    """Once in a process, since a hook of `sys.addaudithook` stays."""
    sys.addaudithook(lambda event, _: executed.append(event) if event.startswith(EXECUTES) else None)


@contextmanager
def peak_memory():
    """[bytes that were resident above those before, at most], once it has ended; 0 where Linux does not say."""
    taken, before = [0], _resident("VmRSS")
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")                       # the peak is counted anew
    yield taken
    taken[0] = _resident("VmHWM") - before


def _resident(what: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


@contextmanager
def time_limit():
    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """So much more than the process has now: what asks for more gets a MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, now + BYTES))


def main() -> int:
    parser = argparse.ArgumentParser(description="Read damaged files of every kind.")
    parser.add_argument("--count", type=int, default=100_000, help="mutants in all (default: 100,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this kind; may be repeated")
    options = parser.parse_args()
    chosen = {name: KINDS[name].weight for name in options.kind or KINDS}
    tasks = [(name, options.seed + chunk, min(CHUNK, count - chunk * CHUNK)) for name, weight in chosen.items()
             for count in [round(options.count * weight / sum(chosen.values()))] for chunk in range(-(-count // CHUNK))]
    began, totals, faults = time.perf_counter(), {name: Counter() for name in chosen}, []
    with ProcessPoolExecutor(initializer=limit_memory, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(fuzz, *task): task for task in tasks}
        for future in as_completed(futures):
            try:
                found, lines = future.result()
            except BrokenProcessPool:
                found, lines = Counter(died=1), [f"{futures[future]}: a process died"]
            totals[futures[future][0]] += found
            faults += lines
    _report(totals, sorted(set(faults)), time.perf_counter() - began)
    return 1 if faults else 0


def _report(totals: dict[str, Counter], faults: list[str], seconds: float) -> None:
    columns = ("refused", "read", *FAULTS)
    print(f"{'kind':22s}{'mutants':>9s}" + "".join(f"{name:>11s}" for name in columns))
    for kind, found in totals.items():
        print(f"{kind:22s}{found.total():9,}" + "".join(f"{found[name]:11,}" for name in columns))
    print(f"{sum(found.total() for found in totals.values()):,} mutants in {seconds:.0f} s, {len(faults)} faults; "
          f"at most {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.2f} GB in a process")
    print("\n".join(faults[:100]))


if __name__ == "__main__":
    sys.exit(main())
