"""The AlexNet paper's network, ours beside PyTorch's: training steps (inference: bench_inference.py).

By default on all cores: with LRN at batch 32 and 128, without LRN at batch 32; and at batch 32 on one thread. At batch
128 and on one thread PyTorch runs eager and compiled, but not eager in channels_last, which takes minutes more. --all
adds all that; --only TEXT runs what it names, of everything. PyTorch's networks have the same weights as ours; their
logits are compared before anything is timed.
"""

from __future__ import annotations

import gc

import numpy as np
from alexnet_twins import (
    batch_of,
    multiply_adds,
    our_network,
    our_training,
    their_inference,
    their_training,
    torch_alexnet,
)
from benchmark import Benchmark, command_line

from minicnn.system.cores import available_cores

# name -> (LRN, batch, goals on two threads and more)
CASES = {
    "training, batch 32": (True, 32, [("best", 2.5, 3.0), ("eager", 2.0, 2.5)]),
    "training, batch 128": (True, 128, [("best", 2.9, 3.5), ("eager", 2.0, 2.5)]),
    "training without LRN, batch 32": (False, 32, [("best", 1.0, 1.15)]),
    "training without LRN, batch 128": (False, 128, [("best", 1.0, 1.15)]),
}
BY_DEFAULT = ("training, batch 32", "training, batch 128", "training without LRN, batch 32")
ON_ONE_THREAD = ("training, batch 32",)


def main() -> None:
    options = command_line(__doc__, peers=("eager", "channels_last", "compile"), threads=(available_cores(), 1),
                           extra=lambda parser: parser.add_argument("--all", action="store_true",
                                                                    help="every case on every number of threads"))
    bench = Benchmark("bench_alexnet", "AlexNet, the paper's network", options, note=(
        "A training step is forward, loss, backward and SGD with momentum and weight decay; PyTorch's SGD is the fused "
        "one in every setting. GFLOP are those of the layers with weights, two for a multiply-add."))
    for threads in bench.each_threads():
        usual = ON_ONE_THREAD if threads == 1 and len(options.threads) > 1 else BY_DEFAULT
        for name, (lrn, batch, goals) in CASES.items():
            if bench.selects(name) and (options.all or options.only or name in usual):
                run_case(bench, name, lrn, batch, goals if threads > 1 else [])
    bench.finish()


def run_case(bench: Benchmark, name: str, lrn: bool, batch: int, goals: list) -> None:
    """Build the networks, check that they compute the same, time them, and free them."""
    torch = bench.torch
    torch.manual_seed(0)
    torch.compiler.reset()
    net = our_network(lrn)
    images, labels = batch_of(batch)
    wanted = net.forward(images)
    functions = {"ours": our_training(net, images, labels)}
    everything = bench.options.all or bench.options.only or (batch == 32 and bench.threads == bench.options.threads[0])
    for setting in bench.options.peers:
        if setting == "channels_last" and not everything:
            continue
        twin = torch_alexnet(torch, net, lrn)
        logits = their_inference(torch, "eager", twin, images)()
        difference = np.abs(logits - wanted).max() / np.abs(wanted).max()
        if not difference < 1e-3:
            raise SystemExit(f"error: {name}: the logits of PyTorch, {setting}, differ from ours by {difference:.1e} "
                             "of the largest, where 1e-3 is allowed; these times cannot be compared")
        functions[setting] = their_training(torch, setting, twin, images, labels)
    bench.measure(name, functions, gflop=2e-9 * multiply_adds(net, batch, train=True), batch=batch, goals=goals)
    for setting, step in functions.items():
        if not np.isfinite(step()):
            raise SystemExit(f"error: {name}: the loss of {setting} is not finite; the times mean nothing")
    functions.clear()
    gc.collect()


if __name__ == "__main__":
    main()
