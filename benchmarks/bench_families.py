"""A training step of AlexNet's descendants, ours beside PyTorch's: VGG-16, ZFNet, ResNet-18 and 50, GoogLeNet.

PyTorch's networks are torchvision's, with the same weights as ours; their logits are compared before anything is timed.
"""

from __future__ import annotations

import gc

import numpy as np
from alexnet_twins import batch_of, multiply_adds, our_training, their_training, torch_images
from benchmark import Benchmark, command_line
from family_twins import FAMILIES, Family, family_loss, our_net, torch_net

GOALS = {"VGG-16": (1.5, 2.2), "ZFNet": (1.5, 2.2), "ResNet-18": (1.1, 1.6), "ResNet-50": (1.0, 1.4),
         "GoogLeNet": (1.0, 1.4)}


def main() -> None:
    options = command_line(__doc__, peers=("eager", "channels_last", "compile"))
    bench = Benchmark("bench_families", "AlexNet's descendants", options, note=(
        "A training step is forward, loss, backward and SGD with momentum and weight decay; PyTorch's SGD is the "
        "fused one in every setting. GoogLeNet has its auxiliary classifiers. GFLOP: layers with weights, two for a "
        "multiply-add."))
    for threads in bench.each_threads():
        for name, family in FAMILIES.items():
            if bench.selects(name):
                run_case(bench, name, family, [("best", *GOALS[name])] if threads > 1 else [])
    bench.finish()


def run_case(bench: Benchmark, name: str, family: Family, goals: list) -> None:
    """Build the networks, check that they compute the same, time a training step of each, and free them."""
    torch = bench.torch
    torch.manual_seed(0)
    torch.compiler.reset()
    net = our_net(family)
    images, labels = batch_of(family.batch)
    images /= 64                                            # about as large as standardised images
    functions = {"ours": our_training(net, images, labels)}
    difference = logits_differ(torch, net, torch_net(torch, family, net), images)
    if not difference < 1e-3:
        raise SystemExit(f"error: {name}: the logits of PyTorch differ from ours by {difference:.1e} of the largest, "
                         "where 1e-3 is allowed; these times cannot be compared")
    for setting in bench.options.peers:
        functions[setting] = their_training(torch, setting, torch_net(torch, family, net), images, labels,
                                            loss_of=family_loss)
    bench.measure(f"{name}, batch {family.batch}", functions, gflop=2e-9 * multiply_adds(net, family.batch, train=True),
                  batch=family.batch, goals=goals)
    for setting, step in functions.items():
        if not np.isfinite(step()):
            raise SystemExit(f"error: {name}: the loss of {setting} is not finite; the times mean nothing")
    functions.clear()
    gc.collect()


def logits_differ(torch, net, twin, images: np.ndarray) -> float:
    """The largest difference of the logits, of the largest of ours, with running statistics."""
    wanted = net.forward(images)
    with torch.inference_mode():
        logits = twin.eval()(torch_images(torch, "eager", images)).numpy()
    return float(np.abs(logits - wanted).max() / np.abs(wanted).max())


if __name__ == "__main__":
    main()
