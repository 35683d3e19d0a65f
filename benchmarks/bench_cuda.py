"""AlexNet and its parts on a GPU, ours beside PyTorch's: `make gpu-check`, or this for one precision.

A training step at batch 128, images and weights on the GPU; each convolution; LRN, pooling and the update. Times are
those of a stream of calls from Python with one wait at its end, so that they include launching. Our step is captured
once and replayed; neither side reads its loss. In bf16 and fp16 PyTorch's training runs under autocast and its
convolutions on tensors of that kind, so that it moves half of the bytes that we do: our arrays are float32 in every
precision. Softmax and dropout are timed twenty in a row, captured and replayed on both sides.
"""

from __future__ import annotations

import dataclasses
import gc

import bench_conv
import bench_lrn
import bench_pool
import bench_sgd
import loss_and_dropout
import numpy as np
from alexnet_twins import batch_of, our_captured_training, our_network, their_training, torch_alexnet
from bench_alexnet import multiply_adds
from benchmark import Benchmark, command_line
from devices import Gpu
from side_by_side import import_torch, order_of, seconds_of

from minicnn.backend.cuda.ops import PRECISION, PRECISIONS
from minicnn.backend.select import get_ops

BATCH = 128
SETTINGS = ("eager", "channels_last", "compile", "graphs", "step")
# of a training step, by precision: gates and aims
STEP = {"tf32": [("eager", 1.5, 2.5), ("best", 1.1, 1.5)], "bf16": [("best", 1.0, 1.3)],
        "fp16": [("best", 1.0, 1.3)], "fp32": []}
MEMORY_BOUND = [("best", 1.0, None), ("share", 0.8, None)]
# allowed difference of two sums of rounded products, relative to the largest
APART = {"fp32": 1e-3, "tf32": 4e-3, "bf16": 3e-2, "fp16": 4e-3}
MIXED = {"bf16": "bfloat16", "fp16": "float16"}             # what autocast computes in
AHEAD = 8                                                   # steps started before a wait


def main() -> None:
    options = command_line(__doc__, peers=(*SETTINGS, "fused"), threads=(1,), extra=lambda parser: parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISION, help=f"of matrix products (default: {PRECISION})"))
    gpu = Gpu(import_torch(), options.precision)
    bench = Benchmark(f"bench_cuda-{options.precision}", f"AlexNet on a GPU, products in {options.precision}", options,
                      __doc__.split("\n\n")[1].replace("\n", " "), gpu)
    ops = get_ops(f"cuda:{options.precision}")
    for _ in bench.each_threads():
        training(bench, gpu)
        convolutions(bench, gpu, ops)
        if options.precision == PRECISION:                  # the rest computes in float32 in every precision
            normalisation_and_pooling(bench, gpu, ops)
            update(bench, gpu, ops)
            small(bench, gpu, ops)
    bench.finish()


def training(bench: Benchmark, gpu) -> None:
    """The whole step."""
    name, torch = f"training in {gpu.precision}, batch {BATCH}", bench.torch
    if not bench.selects(name):
        return
    net = our_network(device=f"cuda:{gpu.precision}")
    images, labels = batch_of(BATCH)
    functions, losses = {}, {}
    for setting in (setting for setting in SETTINGS if setting in bench.options.peers):
        twin = torch_alexnet(torch, net, shifted=setting == "step")
        try:
            step = their_training(torch, setting, twin, images, labels, gpu, MIXED.get(gpu.precision, ""))
            losses[setting] = float(step())
        except RuntimeError as error:                       # PyTorch's side must not cost us the other results
            print(f"{setting:10s}is not measured: {str(error).splitlines()[0]}")
            continue
        functions[setting] = step
    step, functions["ours"] = our_captured_training(net, images, labels)
    functions["ours"]()
    losses["ours"], _ = step.read()
    if not np.ptp(list(losses.values())) < 0.1 * losses["ours"]:
        raise SystemExit(f"error: the losses of the first step, {losses}, differ by more than dropout explains; these "
                         "times cannot be compared")
    bench.measure(name, functions, gflop=2e-9 * multiply_adds(net, BATCH, True), batch=BATCH, goals=STEP[gpu.precision])
    started = python_times(functions, bench.options.pairs, gpu)
    bench.keep({"name": f"Python of it, {gpu.precision}", "threads": 1, "batch": None, "gflop": None, "gbyte": None,
                "limit": None, "limit_rates": [], "seconds": started, "dot": None, "goals": []})
    functions.clear()
    gc.collect()


def python_times(functions: dict, rounds: int, gpu) -> dict[str, list[float]]:
    """Seconds that Python takes to start a step while the GPU is busy: the rest of a step is free for other work."""
    seconds = {side: [] for side in functions}
    for i in range(rounds):
        for side in order_of(list(functions), i):
            gpu.finish()
            seconds[side].append(seconds_of(functions[side], AHEAD))
    return seconds


def convolutions(bench: Benchmark, gpu, ops) -> None:
    """Every pass of every convolution of AlexNet, and those of others that bench_conv.py has."""
    for conv in bench_conv.ALEXNET + bench_conv.OTHERS:
        conv = dataclasses.replace(conv, batch=BATCH)
        wanted = [what for what in bench_conv.PASSES if bench.selects(f"{conv.name} {what}")]
        if not wanted or (wanted == ["dx"] and conv.first):
            continue
        for what, functions, gflop, gbyte in bench_conv.cases_of(bench.torch, ops, conv, gpu, APART[gpu.precision]):
            if what in wanted:
                bench.measure(f"{conv.name} {what}, {gpu.precision}", functions, gflop=gflop, gbyte=gbyte, batch=BATCH,
                              goals=[("best", 0.5, 0.9)] if gpu.precision == "tf32" else [])


def normalisation_and_pooling(bench: Benchmark, gpu, ops) -> None:
    """Forward and backward, of LRN across channels and of max pooling."""
    both = "forward + backward"
    for layer, (_, *shape) in bench_lrn.SHAPES.items():
        if bench.selects(f"LRN {layer}"):
            shape = (BATCH, *shape)
            functions = bench_lrn.functions_of(bench.torch, ops, "across channels", shape, gpu)
            bench.measure(f"LRN {layer}, {both}", {side: passes[both] for side, passes in functions.items()},
                          gbyte=4e-9 * bench_lrn.ARRAYS[both] * float(np.prod(shape)), limit="copy", batch=BATCH,
                          goals=[("eager", 5.0, None), ("share", 0.8, 0.9)])
    for layer, (_, *shape) in bench_pool.SHAPES.items():
        if bench.selects(f"max-pool {layer}"):
            functions, gbyte = bench_pool.functions_of(bench.torch, ops, "max", (BATCH, *shape), gpu)
            bench.measure(f"max-pool {layer}, {both}", {side: passes[both] for side, passes in functions.items()},
                          gbyte=gbyte[both], limit="copy", batch=BATCH, goals=MEMORY_BOUND)


def update(bench: Benchmark, gpu, ops) -> None:
    """SGD on all parameters."""
    if bench.selects("update"):
        shapes = {name: param.data.shape for name, param in our_network(device="reference").params.items()}
        count = sum(int(np.prod(shape)) for shape in shapes.values())
        bench.measure(f"update of {count:,} parameters", bench_sgd.functions_of(bench.torch, ops, shapes, gpu),
                      gbyte=5 * 4e-9 * count, limit="copy", goals=MEMORY_BOUND)


def small(bench: Benchmark, gpu, ops) -> None:
    """Softmax with its loss, and dropout: twenty in a row, captured."""
    for name, functions_of in (("softmax and loss", loss_and_dropout.functions_of_loss),
                               ("dropout", loss_and_dropout.functions_of_dropout)):
        if bench.selects(name):
            bench.measure(f"{name}, forward + backward, {loss_and_dropout.TIMES} times",
                          functions_of(bench.torch, ops, gpu), batch=BATCH, goals=[("best", 1.0, None)])


if __name__ == "__main__":
    main()
