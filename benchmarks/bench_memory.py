"""Peak memory of a process that trains a network: ours beside PyTorch's, each in its own process.

Counted is the peak resident memory (VmHWM of Linux) over three steps, with interpreter, libraries and images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from alexnet_twins import batch_of, our_network, our_training, their_training, torch_alexnet
from benchmark import Benchmark, command_line
from family_twins import FAMILIES, family_loss, our_net, torch_net

from minicnn.backend.cpu import set_threads

ALEXNET = "AlexNet"
STEPS = 3


def options_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, metavar="N", help="images in a step (default: 128 for AlexNet, 8 to 32 "
                                                               "for others, as in bench_families)")
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)   # what this one trains: net, and by whom


def main() -> None:
    if not Path("/proc/self/status").exists():
        sys.exit("error: peak memory is read from /proc/self/status, which only Linux has")
    options = command_line(__doc__, peers=("eager", "channels_last", "compile"), extra=options_of)
    if options.process:
        print(json.dumps(train(*options.process, options.batch, options.threads[0])))
        return
    bench = Benchmark("bench_memory", "Peak memory of a training process", options)
    for threads in options.threads:
        for net in (ALEXNET, *FAMILIES):
            if bench.selects(net):
                run_case(bench, net, threads)
    bench.finish()


def run_case(bench: Benchmark, net: str, threads: int) -> None:
    """A process for each side."""
    batch = bench.options.batch or (128 if net == ALEXNET else FAMILIES[net].batch)
    mib = {}
    for who in ("ours", *bench.options.peers):
        command = [sys.executable, __file__, "--process", net, who, "--batch", str(batch), "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: training {net} with {who} failed:\n{done.stderr}")
        mib[who] = json.loads(done.stdout.splitlines()[-1])
    bench.keep({"name": f"{net}, batch {batch}", "threads": threads, "batch": batch, "mib": mib,
                "goals": [("memory", 0.7 if net == ALEXNET else 0.8, 0.5)]})


def train(net: str, who: str, batch: int, threads: int) -> float:
    """MiB at the peak of some steps, in this process. Ours loads no PyTorch."""
    if who == "ours":
        set_threads(threads)
        step = our_training(our_network() if net == ALEXNET else our_net(FAMILIES[net]), *batch_of(batch))
    else:
        import torch
        torch.set_num_threads(threads)
        twin = torch_alexnet(torch) if net == ALEXNET else torch_net(torch, FAMILIES[net])
        step = their_training(torch, who, twin, *batch_of(batch), loss_of=family_loss)
    for _ in range(STEPS):
        step()
    return peak_mib()


def peak_mib() -> float:
    """VmHWM: the peak resident memory of this process. (ru_maxrss would include the process that started it.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("error: /proc/self/status has no line VmHWM")


if __name__ == "__main__":
    main()
