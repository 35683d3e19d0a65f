"""Peak memory of a process that trains a network: ours beside PyTorch's, each in its own process. In bf16: device
cpu:bf16 beside PyTorch's autocast.

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
from minicnn.backend.select import get_ops
from minicnn.errors import DeviceError

ALEXNET, ALEXNET_BF16 = "AlexNet", "AlexNet in bf16"
GOALS = {ALEXNET: ("memory", 0.5, 0.4), ALEXNET_BF16: ("memory", 0.45, 0.4)}
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
        for net in (ALEXNET, ALEXNET_BF16, *FAMILIES):
            if net == ALEXNET_BF16 and (why := why_not_bf16()):
                print(f"without   {net}: {why}")
            elif bench.selects(net):
                run_case(bench, net, threads)
    bench.finish()


def run_case(bench: Benchmark, net: str, threads: int) -> None:
    """A process for each side."""
    batch = bench.options.batch or (FAMILIES[net].batch if net in FAMILIES else 128)
    mib = {}
    for who in ("ours", *bench.options.peers):
        command = [sys.executable, __file__, "--process", net, who, "--batch", str(batch), "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: training {net} with {who} failed:\n{done.stderr}")
        mib[who] = json.loads(done.stdout.splitlines()[-1])
    bench.keep({"name": f"{net}, batch {batch}", "threads": threads, "batch": batch, "mib": mib,
                "goals": [GOALS.get(net, ("memory", 0.8, 0.5))]})


def train(net: str, who: str, batch: int, threads: int) -> float:
    """MiB at the peak of some steps, in this process. Ours loads no PyTorch."""
    family, mixed = FAMILIES.get(net), net == ALEXNET_BF16
    if who == "ours":
        set_threads(threads)
        made = our_net(family) if family else our_network(device="cpu:bf16" if mixed else "cpu")
        step = our_training(made, *batch_of(batch))
    else:
        import torch
        torch.set_num_threads(threads)
        twin = torch_net(torch, family) if family else torch_alexnet(torch)
        step = their_training(torch, who, twin, *batch_of(batch), loss_of=family_loss,
                              mixed="bfloat16" if mixed else "")
    for _ in range(STEPS):
        step()
    return peak_mib()


def why_not_bf16() -> str:
    """Why device cpu:bf16 cannot be used here; empty where it can."""
    try:
        get_ops("cpu:bf16")
    except DeviceError as error:
        return str(error)
    return ""


def peak_mib() -> float:
    """VmHWM: the peak resident memory of this process. (ru_maxrss would include the process that started it.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("error: /proc/self/status has no line VmHWM")


if __name__ == "__main__":
    main()
