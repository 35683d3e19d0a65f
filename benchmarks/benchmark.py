"""Shared by all benchmark scripts: read the command line, time case after case in turns, print, keep the results.

    bench = Benchmark("bench_lrn", "LRN", command_line(__doc__, peers=("eager", "compile")))
    for threads in bench.each_threads():
        for name in ...:
            if bench.selects(name):
                bench.measure(name, {"ours": f, "eager": g, "compile": h}, gbyte=0.15, limit="copy",
                              goals=[("eager", 10, None)])
    bench.finish()
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import limits
import numpy as np
from devices import Host
from ratios import ceiling, ratios_of, total
from side_by_side import import_torch, rounds
from tables import terminal_head, terminal_line
from threadpoolctl import threadpool_limits

from minicnn.backend.cpu import set_threads, thread_report
from minicnn.system.cores import available_cores

RUNS = 7                                # of the machine's limits, before the first comparison
PAIRS = 15                              # fewer are a trial and no result
PEERS = {
    "eager": "PyTorch eager, NCHW",
    "channels_last": "PyTorch eager, channels_last",
    "compile": "torch.compile, channels_last",
    "graphs": "torch.compile with CUDA graphs, channels_last",
    "step": "torch.compile, channels_last, LRN as a sum of shifted squares, and the whole step one CUDA graph",
    "fused": "PyTorch's fused SGD",
    "onnxruntime": "onnxruntime, from our ONNX file",
    "openvino": "OpenVINO in float32, from our ONNX file",
    "float32": "minicnn in float32",
    **{f"v{rung}": f"version {rung} of the matrix products" for rung in (1, 2, 3)},
}


def command_line(doc: str, peers: Sequence[str] = ("eager",), threads: Sequence[int] | None = None,
                 extra: Callable | None = None) -> argparse.Namespace:
    """The options that all benchmarks share. extra(parser) adds more; threads: the default, None being all cores."""
    title, _, rest = doc.partition("\n")
    parser = argparse.ArgumentParser(description=title, epilog=rest.strip("\n"),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = available_cores()
    default = [count for count in dict.fromkeys(threads or [cores]) if count <= cores] or [cores]
    parser.add_argument("--threads", type=int, nargs="+", default=default, metavar="N",
                        help=f"measure with these numbers of threads, one after the other (default: {_words(default)})")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N",
                        help=f"rounds in which all take their turn (default {PAIRS}; fewer are a trial, no result)")
    parser.add_argument("--peers", nargs="+", choices=peers, default=list(peers), metavar="PEER",
                        help="; ".join(f"{name}: {PEERS.get(name, name)}" for name in peers) + " (default: all)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains this")
    parser.add_argument("--json", metavar="FILE", help="keep the seconds of every round")
    parser.add_argument("--plot", metavar="FILE", help="draw a roofline of these cases (PNG)")
    if extra:
        extra(parser)
    options = parser.parse_args()
    if options.pairs < 1 or min(options.threads) < 1:
        parser.error("--pairs and --threads must be at least 1")
    return options


class Benchmark:
    """One run of one benchmark: its cases, as rows (ratios.py says what a row is)."""

    def __init__(self, name: str, title: str, options: argparse.Namespace, note: str = "", device=Host):
        self.torch, self.device = import_torch(), device
        self.options, self.threads = options, 0
        self.rows: list[dict] = []
        self.report = {"benchmark": name, "title": title, "note": note, "command": _command(),
                       "machine": device.name(), "versions": versions(), "others": limits.others(),
                       "pairs": options.pairs, "limits": {}, "rows": self.rows, "totals": []}
        self._limits: dict[str, tuple[float, Callable]] = {}    # its name -> (work of a call, the call)
        print(f"{title}\nmachine   {device.name()}; "
              + ", ".join(f"{key} {value}" for key, value in versions().items()))
        if self.report["others"] > limits.BUSY:
            print(f"busy      other programs use {100 * self.report['others']:.0f} % of the cores: a trial, no result")
        if options.pairs < PAIRS:
            print(f"trial     {options.pairs} rounds; a result takes {PAIRS}")

    def each_threads(self) -> Iterator[int]:
        """Each number of threads asked for, set for both sides, the machine's limits measured with it."""
        for threads in self.options.threads:
            self.use_threads(threads)
            yield threads

    def use_threads(self, threads: int) -> None:
        """Both sides run on this many threads from here on."""
        if threads == self.threads:
            return
        self.threads = threads
        set_threads(threads)
        threadpool_limits(1, user_api="blas")               # NumPy's: limits.sgemm calls it in each of our threads
        self.torch.set_num_threads(threads)
        self.torch.compiler.reset()                         # compiled for another number of threads
        whose, self._limits = self.device.limits(threads)
        rates = {key: rates_of(work, self._rounds({key: call}, RUNS)[key])
                 for key, (work, call) in self._limits.items()}
        self.report["limits"][str(threads)] = {"sgemm_of": whose} | rates
        print(f"\nthreads   {thread_report()}\nlimits    SGEMM {ceiling(rates['sgemm']):.0f} GFLOP/s ({whose}'s), copy "
              f"{ceiling(rates['copy']):.1f} GB/s\n\n" + terminal_head(self.options.peers))

    def _rounds(self, functions: dict[str, Callable], count: int) -> dict[str, list[float]]:
        return rounds(functions, count, self.device.finish, self.device.turn, self.device.pause)

    def selects(self, name: str) -> bool:
        """Whether --only includes this case."""
        return self.options.only in name

    def peers(self, functions: dict[str, Callable]) -> dict[str, Callable]:
        """Those of the peers that --peers names."""
        return {name: function for name, function in functions.items() if name in self.options.peers}

    def measure(self, name: str, functions: dict[str, Callable], *, gflop: float | None = None,
                gbyte: float | None = None, limit: str = "sgemm", batch: int | None = None,
                goals: Sequence = (), dot: tuple[str, str] | None = None) -> None:
        """Time "ours" and the peers among functions, and the machine's limit, in turns; print a line, keep the row.

        The other arguments are those of a row (ratios.py).
        """
        timed = {"ours": functions["ours"], **self.peers(functions)}
        work, call = self._limits[limit]
        seconds = self._rounds(timed | {limit: call}, self.options.pairs)
        self.keep({"name": name, "threads": self.threads, "batch": batch, "gflop": gflop, "gbyte": gbyte,
                   "limit": limit, "limit_rates": rates_of(work, seconds.pop(limit)),
                   "seconds": {key: [_digits(value) for value in values] for key, values in seconds.items()},
                   "dot": dot, "goals": list(goals)})

    def keep(self, row: dict) -> None:
        """Print a row, and keep it."""
        self.rows.append(row)
        print(terminal_line(ratios_of(row), row.get("limit"), self.options.peers), flush=True)
        self._write()

    def total(self, name: str, kind: str, of: Sequence[str], goals: Sequence = ()) -> None:
        """A row made of others on the present threads: kind "sum" or "geomean"; left out where one was not measured."""
        what = {"name": name, "kind": kind, "of": list(of), "threads": self.threads, "goals": list(goals)}
        measured = total(what, self.rows)
        if measured:
            self.report["totals"].append(what)
            print(terminal_line(measured, "sgemm", self.options.peers), flush=True)
            self._write()

    def finish(self) -> None:
        """Draw the picture, if --plot asks for one."""
        if not self.rows:
            sys.exit(f"error: no case of {self.report['benchmark']} has {self.options.only!r} in its name")
        if self.options.plot:
            from roofline import draw_roofline
            draw_roofline([self.report], self.options.plot)
            print(f"picture   {self.options.plot}")

    def _write(self) -> None:
        if self.options.json:
            write_report(self.report, self.options.json)


def write_report(report: dict, path: str | Path) -> None:
    """As JSON, a row to a line."""
    parts = []
    for key, value in report.items():
        if isinstance(value, list):
            lines = ",\n".join("  " + json.dumps(item) for item in value)
            parts.append(f' "{key}": [\n{lines}\n ]' if value else f' "{key}": []')
        else:
            parts.append(f' "{key}": {json.dumps(value)}')
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def rates_of(work: float, seconds: list[float]) -> list[float]:
    """GFLOP/s or GB/s of each turn."""
    return [_digits(work / value) for value in seconds]


def versions() -> dict[str, str]:
    """Of the programs that results depend on."""
    names = {"Numba": "numba", "PyTorch": "torch", "CuPy (13)": "cupy-cuda13x", "CuPy (12)": "cupy-cuda12x",
             "onnxruntime": "onnxruntime", "OpenVINO": "openvino", "minicnn": "minicnn"}
    found = {}
    for name, package in names.items():
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(package)
    return {"Python": platform.python_version(), "NumPy": np.__version__, **found}


def _command() -> str:
    """The command line, without where the results were written."""
    words, skip = [f"python benchmarks/{Path(sys.argv[0]).name}"], False
    for word in sys.argv[1:]:
        if not skip and word not in ("--json", "--plot") and not word.startswith(("--json=", "--plot=")):
            words.append(f'"{word}"' if " " in word else word)
        skip = word in ("--json", "--plot")
    return " ".join(words)


def _digits(value: float) -> float:
    """Rounded to four digits."""
    return float(f"{value:.4g}")


def _words(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
