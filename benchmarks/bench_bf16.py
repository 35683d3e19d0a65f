"""Device "cpu:bf16" beside our float32, and beside PyTorch's bf16 (autocast): layers of AlexNet, and training steps.

Each case has two rows: beside PyTorch, and beside our own float32. The activations of both sides are bf16 arrays;
PyTorch's weights are, too, in layers, while ours are float32, and are rounded within the time. Its steps are those of
autocast. Losses of a step are compared before anything is timed.
"""

from __future__ import annotations

import gc

import numpy as np
from alexnet_twins import batch_of, multiply_adds, our_network, our_training, their_training, torch_alexnet
from bench_conv import ALEXNET, OTHERS, PASSES, cases_of
from bench_linear import BATCHES, LAYERS
from bench_linear import PASSES as LINEAR_PASSES
from bench_linear import cases_of as linear_cases_of
from benchmark import Benchmark, command_line
from devices import Host
from family_twins import FAMILIES, family_loss, our_net, torch_net

from minicnn.backend.cpu import make_ops
from minicnn.kernels.cpu.combine import convert
from minicnn.kernels.cpu.stored import BF16

SETTINGS = ("eager", "channels_last", "compile")
# name -> (network (LRN or not, or a family), batch, goals beside the best of PyTorch, goals beside our float32)
STEPS = {
    "AlexNet, batch 32": (True, 32, (3.0, 3.5), (1.7, 2.0)),
    "AlexNet, batch 128": (True, 128, (2.5, 3.5), (2.0, 2.5)),
    "AlexNet without LRN, batch 32": (False, 32, (1.5, 1.7), None),
    "AlexNet without LRN, batch 128": (False, 128, (1.1, 1.4), None),
    "ResNet-18, batch 32": ("ResNet-18", 32, (0.8, 1.2), None),
    "VGG-16, batch 8": ("VGG-16", 8, (0.8, 1.2), None),
    "ResNet-50, batch 16": ("ResNet-50", 16, (0.8, 1.2), None),
    "GoogLeNet, batch 32": ("GoogLeNet", 32, (0.8, 1.2), None),
}
TOLERANCE = 0.03            # of the largest value of a layer, of the loss of a step


class HostInBf16(Host):
    """PyTorch's arrays are bf16, and so are our activations."""

    @staticmethod
    def dtype(torch):
        return torch.bfloat16

    @staticmethod
    def activations(tensor):
        convert(tensor.numpy(), stored := np.empty(tensor.shape, BF16))
        return stored

    @staticmethod
    def to_host(array):
        array = Host.to_host(array)
        if array.dtype == BF16:
            convert(array, wide := np.empty(array.shape, np.float32))
        return wide if array.dtype == BF16 else array


def main() -> None:
    options = command_line(__doc__, peers=(*SETTINGS, "float32"))
    bench = Benchmark("bench_bf16", "bf16 on the CPU", options, note=(
        "minicnn's device cpu:bf16 rounds the factors of matrix products, and stores activations in bf16. PyTorch's "
        "steps run in autocast to bfloat16, with the fused SGD; its layers have bfloat16 arrays in and out, weights "
        "included, while minicnn's weights are float32, and are rounded within the time. Rows that end with "
        "\"and float32\" compare with our own device cpu."))
    ops, float32 = make_ops("bf16"), make_ops()
    for threads in bench.each_threads():
        for name, (of, batch, *goals) in STEPS.items():
            if bench.selects(name):
                step(bench, name, of, batch, *(goals if threads > 1 else (None, None)))
        convolutions(bench, ops, float32)
        matrices(bench, ops, float32)
    bench.finish()


def beside(bench: Benchmark, name: str, functions: dict, own, goals=None, own_goals=None, **known) -> None:
    """Two rows: PyTorch's peers among functions, and our float32."""
    bench.measure(name, functions, goals=[("best", *goals)] if goals else [], **known)
    if "float32" in bench.options.peers:
        bench.measure(f"{name}, and float32", {"ours": functions["ours"], "float32": own},
                      goals=[("float32", *own_goals)] if own_goals else [], **known)


def step(bench: Benchmark, name: str, of, batch: int, goals, own_goals) -> None:
    """A training step of one network."""
    torch = bench.torch
    torch.manual_seed(0)
    torch.compiler.reset()
    family = FAMILIES.get(of)
    nets = {device: our_net(family, device) if family else our_network(of, device) for device in ("cpu:bf16", "cpu")}
    images, labels = batch_of(batch)
    if family:
        images /= 64                                        # about as large as standardised images
    steps = {device: our_training(net, images, labels) for device, net in nets.items()}
    losses = {device: run() for device, run in steps.items()}
    if not abs(losses["cpu:bf16"] - losses["cpu"]) < TOLERANCE * losses["cpu"]:
        raise SystemExit(f"error: {name}: the losses in bf16 and float32 are {losses['cpu:bf16']:.4f} and "
                         f"{losses['cpu']:.4f}; these times cannot be compared")
    functions = {"ours": steps["cpu:bf16"]}
    for setting in SETTINGS:
        if setting in bench.options.peers:
            twin = torch_net(torch, family, nets["cpu"]) if family else torch_alexnet(torch, nets["cpu"], of)
            functions[setting] = their_training(torch, setting, twin, images, labels, mixed="bfloat16",
                                                loss_of=family_loss)
    gflop = 2e-9 * multiply_adds(nets["cpu"], batch, train=True)
    beside(bench, name, functions, steps["cpu"], goals, own_goals, gflop=gflop, batch=batch)
    functions.clear()
    gc.collect()


def convolutions(bench: Benchmark, ops, float32) -> None:
    """AlexNet's, and three others."""
    for conv in ALEXNET + OTHERS:
        names = {what: f"{conv.name} {what}" for what in PASSES if not (conv.first and what == "dx")}
        if not any(map(bench.selects, names.values())):
            continue
        own = {what: functions["ours"] for what, functions, *_ in cases_of(bench.torch, float32, conv)}
        for what, functions, gflop, gbyte in cases_of(bench.torch, ops, conv, HostInBf16, TOLERANCE):
            if bench.selects(names[what]):
                beside(bench, names[what], functions, own[what], gflop=gflop, gbyte=gbyte, batch=conv.batch)


def matrices(bench: Benchmark, ops, float32) -> None:
    """The fully connected layers."""
    for batch in BATCHES:
        for layer, sizes in LAYERS.items():
            names = {what: f"{layer} {what}, batch {batch}" for what in LINEAR_PASSES}
            if not any(map(bench.selects, names.values())):
                continue
            own = {what: functions["ours"] for what, functions, _ in
                   linear_cases_of(bench.torch, float32, batch, *sizes)}
            for what, functions, gbyte in linear_cases_of(bench.torch, ops, batch, *sizes, HostInBf16):
                if bench.selects(names[what]):
                    beside(bench, names[what], functions, own[what], gflop=2e-9 * batch * sizes[0] * sizes[1],
                           gbyte=gbyte, batch=batch)


if __name__ == "__main__":
    main()
