"""AlexNet on one rank and on several: measured here in turns, and what a model of the cost makes of many GPUs.

    python benchmarks/bench_scaling.py                            # one process on all cores beside 2 ranks, in turns
    python benchmarks/bench_scaling.py --ranks 2 4 --mpi          # processes; more ranks than cores are marked so
    python benchmarks/bench_scaling.py --results                  # keep them, and write results/<machine>-scaling.md
    python benchmarks/bench_scaling.py --predict-only --json FILE --plot FILE

Each configuration is a process of its own that takes one step on request; the others are idle meanwhile. The parameters
of the model (scaling_model.py) are fitted to the measured steps, and the model is then compared with whole steps on
several ranks that it was not fitted to. The second table is a prediction, not a measurement: its inputs are printed
above it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from limits import BUSY, machine, others, slug
from scaling_model import SCHEMES, Machine, efficiency, step
from scaling_page import scaling_page
from side_by_side import median_interval, order_of, write_json

from minicnn.backend.cpu import set_threads
from minicnn.models.alexnet import alexnet
from minicnn.parallel.launch import launch
from minicnn.parallel.parallel_net import SCHEMES as NETS
from minicnn.system.cores import available_cores
from minicnn.train.sgd import SGD

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


# ---- one configuration, in a process of its own
def worker(scheme: str, ranks: int, threads: int, batch: int) -> None:
    """Take a step for every line on standard input; after the last one, print the ledger."""
    set_threads(threads)
    if scheme == "alone":
        steps(alexnet(), batch, None)
    else:
        launch(ranks, lambda local_size: set_threads(threads),
               lambda comm, _: steps(NETS[scheme](alexnet(), comm), batch, comm))


def steps(net, batch: int, comm) -> None:
    rng = np.random.default_rng(0)
    rows = net.ranks.local_rows(batch)
    x = rng.standard_normal((batch, *net.input_shape), np.float32)[rows] * 50
    labels = rng.integers(0, 1000, batch)[rows]
    sgd = SGD(net.params, 1e-4)
    update = 0.0
    while True:
        go = sys.stdin.readline() if net.ranks.is_main else ""
        if comm is not None:
            go, _ = comm.broadcast_object(go)
        if not go:
            break
        began = time.perf_counter()
        net.loss(x, labels)
        net.backward()
        before = time.perf_counter()
        sgd.step(net.ops)
        update = time.perf_counter() - before
        if comm is not None:
            comm.barrier()
        if net.ranks.is_main:
            print(time.perf_counter() - began, flush=True)
    if net.ranks.is_main:
        print(json.dumps({"sgd": update, "rows": comm.ledger.rows() if comm is not None else []}), flush=True)


def mpiexec() -> str:
    """Its path: beside this Python, where pip puts it, or on the PATH."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("mpiexec", path=folders) or sys.exit("error: --mpi needs mpiexec: pip install 'minicnn[mpi]'")


class Configuration:
    """A worker process."""

    def __init__(self, scheme: str, ranks: int, threads: int, batch: int, mpi: bool):
        self.scheme, self.ranks, self.threads, self.seconds = scheme, ranks, threads, []
        start = [mpiexec(), "-n", str(ranks)] if mpi and scheme != "alone" else []
        command = [*start, sys.executable, __file__, "--worker", scheme, str(ranks), str(threads), str(batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def name(self) -> str:
        crowded = " (more ranks than cores)" if self.ranks * self.threads > available_cores() else ""
        ranks = f"{self.ranks} ranks x {self.threads} thread{'s' * (self.threads > 1)}{crowded}"
        return f"alone, {self.threads} thread{'s' * (self.threads > 1)}" if self.scheme == "alone" else \
            f"{self.scheme}, {ranks}"

    def turn(self) -> float:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> dict:
        self.process.stdin.close()
        last = json.loads(self.process.stdout.readline())
        self.process.wait()
        return last


def measure(options) -> tuple[list[dict], Machine]:
    """Steps in turns; a row for every configuration, and the model fitted to them."""
    cores, batch = available_cores(), options.batch
    wanted = [("alone", 1, threads) for threads in options.alone or sorted({1, cores})]
    wanted += [(scheme, ranks, 1) for ranks in options.ranks for scheme in options.schemes]
    configurations = [Configuration(*what, batch, options.mpi) for what in wanted]
    names = list(range(len(configurations)))
    for configuration in configurations:
        configuration.turn()                                # first touch of memory, kernels loaded
    for round_ in range(options.pairs):
        for i in order_of(names, round_):
            configurations[i].seconds.append(configurations[i].turn())
    last = [configuration.end() for configuration in configurations]
    fastest = min((c for c in configurations if c.scheme == "alone"), key=lambda c: statistics.median(c.seconds))
    rows = []
    for configuration, end in zip(configurations, last, strict=True):
        ratios = [theirs / ours for ours, theirs in zip(configuration.seconds, fastest.seconds, strict=True)]
        ratio, low, high = median_interval(ratios)
        rows.append({"name": configuration.name, "scheme": configuration.scheme, "ranks": configuration.ranks,
                     "threads": configuration.threads, "rounds": configuration.seconds,
                     "seconds": statistics.median(configuration.seconds),
                     "images_per_second": batch / statistics.median(configuration.seconds), "ratio": ratio,
                     "ratio_low": low, "ratio_high": high, "fastest": configuration is fastest,
                     "crowded": configuration.ranks * configuration.threads > cores, **end})
    fitted = fit(rows, batch)
    for row in rows:
        row["model_ms"] = 1e3 * step(fitted, row["scheme"], row["ranks"], batch) if row["scheme"] in SCHEMES else None
    return rows, fitted


def fit(rows: list[dict], batch: int) -> Machine:
    """seconds_per_image and sgd from one thread alone; messages and overlap from the ledger."""
    alone = min((row for row in rows if row["scheme"] == "alone"), key=lambda row: row["threads"])
    crossings = [(row["received"], row["moving_ms"] / 1e3) for each in rows if not each["crowded"]
                 for row in each["rows"] if row["received"] and row["point"] != "gradients"]
    latency, per_byte = 5e-5, 1e-10
    if len(crossings) > 2:                                  # least squares, with relative errors
        received, seconds = (np.array(column, float) for column in zip(*crossings, strict=True))
        system = np.stack([1 / seconds, received / seconds], axis=1)
        latency, per_byte = np.linalg.lstsq(system, np.ones(len(seconds)), rcond=None)[0]
    hidden = [row["hidden_ms"] / (row["moving_ms"] + row["waiting_ms"]) for each in rows if not each["crowded"]
              for row in each["rows"] if row["point"] == "gradients"]
    per_image = alone["threads"] * (alone["seconds"] - alone["sgd"]) / batch
    return Machine(per_image, max(latency, 1e-6), 1 / max(per_byte, 1e-12),
                   statistics.mean(hidden) if hidden else 1.0, alone["sgd"])


def show(rows: list[dict], fitted: Machine, batch: int) -> None:
    print(f"{'measured here, batch ' + str(batch):44s}{'ms':>8s}{'images/s':>10s}{'of the fastest alone':>24s}"
          f"{'model, ms':>12s}")
    for row in rows:
        model = "" if row["model_ms"] is None else f"{row['model_ms']:12.0f}"
        print(f"{row['name']:44s}{1e3 * row['seconds']:8.0f}{row['images_per_second']:10.1f}"
              f"{row['ratio']:10.3f} ({row['ratio_low']:.3f}-{row['ratio_high']:.3f}){model}")
    print(f"the model's parameters here: {1e3 * fitted.seconds_per_image:.2f} ms an image and thread, messages "
          f"{1e6 * fitted.latency:.0f} us + bytes / {fitted.bandwidth / 1e9:.2f} GB/s, "
          f"overlap {fitted.overlap:.2f}, SGD {1e3 * fitted.sgd:.0f} ms")


def predict(options) -> tuple[Machine, dict]:
    gpu = Machine(1 / options.gpu_rate, options.latency, options.bandwidth, options.overlap,
                      5 * 4 * 60_965_224 / options.memory)
    table = {scheme: {n: efficiency(gpu, scheme, n, options.gpu_batch * (1 if scheme == "columns" else n))
                      for n in COUNTS} for scheme in SCHEMES}
    print(f"\na prediction, not a measurement; assumed: {options.gpu_rate:,.0f} images/s on one GPU, messages "
          f"{1e6 * options.latency:.0f} us + bytes / {options.bandwidth / 1e9:.0f} GB/s between any two, overlap "
          f"{options.overlap:.2f}, memory {options.memory / 1e12:.1f} TB/s;\nshare of n times one GPU's images/s, "
          f"{options.gpu_batch} images on each GPU (columns: on all together)")
    print(f"{'GPUs':10s}" + "".join(f"{n:>8,d}" for n in COUNTS))
    for scheme, values in table.items():
        print(f"{scheme:10s}" + "".join(f"{value:8.3f}" for value in values.values()))
    return gpu, table


def plot(path: str, rows: list[dict], fitted: Machine | None, batch: int, table: dict, options) -> None:
    """Left what was measured here beside the model, right the prediction."""
    from minicnn.visualize.style import BLUE, GREEN, INK, ORANGE, QUIET, new_figure, quiet_axes, save_png

    colours = dict(zip(SCHEMES, (ORANGE, BLUE, GREEN), strict=True))
    figure = new_figure(4.0)
    here, there = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 2.2]})
    figure.subplots_adjust(left=0.065, right=0.975, top=0.78, bottom=0.14, wspace=0.16)
    figure.text(0.0465, 0.93, "AlexNet on several ranks", fontsize=11.5, color=INK, weight="bold")
    here.set_title("measured here (dots), and the model", loc="left", fontsize=9.5, color=INK)
    there.set_title("a prediction, not measured: share of n times one GPU", loc="left", fontsize=9.5, color=INK)
    for scheme, colour in colours.items():
        mine = [row for row in rows if row["scheme"] == scheme]
        if mine and fitted:
            alone = batch / step(fitted, "data", 1, batch)
            for row in mine:
                here.plot(row["ranks"], row["images_per_second"] / alone, "o", color=colour, markersize=6, zorder=3,
                          markerfacecolor="white" if row["crowded"] else colour)
            counts = [1, 2, *(row["ranks"] for row in mine if row["ranks"] > 2 and not row["crowded"])]
            here.plot(counts, [batch / step(fitted, scheme, n, batch) / alone for n in counts], color=colour)
        there.plot(list(COUNTS), list(table[scheme].values()), color=colour, linewidth=1.8, linestyle=(0, (5, 2)),
                   label=scheme)
    there.set_xscale("log", base=2)
    there.set_xticks(COUNTS, [str(n) for n in COUNTS])
    there.set_ylim(0, 1.05)
    there.set_xlabel(f"GPUs; assumed {options.gpu_rate:,.0f} images/s each, {options.bandwidth / 1e9:.0f} GB/s, "
                     f"{1e6 * options.latency:.0f} us", fontsize=8.5, color=QUIET)
    here.set_xlabel("ranks with one thread each; hollow: more than cores", fontsize=8.5, color=QUIET)
    here.set_ylabel("speed-up over one", fontsize=8.5, color=QUIET)
    here.set_ylim(bottom=0)
    here.set_xticks(sorted({1, 2, *(row["ranks"] for row in rows)}))
    there.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    for axes in (here, there):
        quiet_axes(axes)
    save_png(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], epilog=__doc__.partition("\n")[2].strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=128, help="images of all ranks together (default 128)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], help="how many ranks (default 2)")
    parser.add_argument("--alone", type=int, nargs="+", metavar="THREADS",
                        help="threads of the single process (default: 1 and all)")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--pairs", type=int, default=15, help="rounds (default 15)")
    parser.add_argument("--mpi", action="store_true", help="ranks are processes under mpiexec instead of threads")
    parser.add_argument("--predict-only", action="store_true", help="measure nothing")
    parser.add_argument("--gpu-rate", type=float, default=10_187, help="images/s of one GPU (default 10187: an A100 "
                        "40 GB, tf_cnn_benchmarks at TF32 as published by lambdal)")
    parser.add_argument("--gpu-batch", type=int, default=128, help="images on each GPU (default 128)")
    parser.add_argument("--bandwidth", type=float, default=25e9, help="bytes/s between two GPUs (assumed 25e9)")
    parser.add_argument("--latency", type=float, default=1e-5, help="seconds of a message (assumed 1e-5)")
    parser.add_argument("--overlap", type=float, default=0.9, help="of the backward pass (assumed 0.9)")
    parser.add_argument("--memory", type=float, default=1.5e12, help="bytes/s of a GPU's memory (assumed 1.5e12)")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--results", metavar="DIR", type=Path, nargs="?", const=Path(__file__).parent / "results",
                        help="keep the run, its picture and the page there (default: benchmarks/results)")
    options = parser.parse_args()
    if options.worker:
        scheme, *numbers = options.worker
        worker(scheme, *map(int, numbers))
        return 0
    if options.results and options.predict_only:
        parser.error("--results stores measurements, and --predict-only makes none: choose one of them")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    busy = others()
    rows, fitted = ([], None) if options.predict_only else measure(options)
    if fitted:
        show(rows, fitted, options.batch)
    assumed, table = predict(options)
    report = {"batch": options.batch, "pairs": options.pairs, "mpi": options.mpi, "others": busy, "busy": BUSY,
              "measured": rows, "fitted": vars(fitted) if fitted else None, "assumed": vars(assumed),
              "gpu_batch": options.gpu_batch, "predicted_efficiency": table}
    write_json(options.json, report)
    if options.plot:
        plot(options.plot, rows, fitted, options.batch, table, options)
        print(f"picture   {Path(options.plot)}")
    if options.results and fitted:
        keep(options.results / slug(machine()), report, lambda path: plot(path, rows, fitted, options.batch, table,
                                                                        options))
    return 0


def keep(folder: Path, report: dict, draw) -> None:
    """This run beside the other kind of ranks, and the page of both."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"scaling-{'processes' if report['mpi'] else 'threads'}"
    write_json(str(folder / f"{name}.json"), report)
    draw(str(folder / f"{name}.png"))
    kept = [path for path in (folder / "scaling-threads.json", folder / "scaling-processes.json") if path.exists()]
    page = folder.parent / f"{folder.name}-scaling.md"
    page.write_text(scaling_page([json.loads(path.read_text()) for path in kept],
                                 [f"{folder.name}/{path.stem}.png" for path in kept]))
    print(f"results   {page}")


if __name__ == "__main__":
    sys.exit(main())
