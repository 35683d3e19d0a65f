"""Inference of the AlexNet paper's network, ours beside PyTorch, onnxruntime and OpenVINO: batch 1 and 32 in float32;
batch 32 in bf16 beside OpenVINO in the precision of its choice.

onnxruntime and OpenVINO read the file that `minicnn export` writes; one that is not installed is named and left out. In
float32 OpenVINO is asked for it, which is not its default where the machine has bf16. The images are in memory, in the
layout of each; the logits of all are compared before anything is timed.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from alexnet_twins import batch_of, multiply_adds, our_network, their_inference, torch_alexnet
from benchmark import Benchmark, command_line

from minicnn.errors import DeviceError
from minicnn.graph import Net
from minicnn.interop.write import write
from minicnn.kernels.cpu.tile import VECTOR_VARIABLE

GOALS = {1: ("best", 1.0, 1.1), 32: ("best", 1.4, 1.7)}     # batch -> goal, on two threads and more
SETTINGS = ("eager", "channels_last", "compile")            # of PyTorch
BF16_BATCH, BF16_GOAL = 32, ("best", 0.9, 1.2)
ALLOWED, ALLOWED_BF16 = 1e-3, 0.1                           # difference of logits, of the largest


def main() -> None:
    options = command_line(__doc__, peers=(*SETTINGS, *RUNTIMES))
    missing = {name: why for name in options.peers if (why := reason_without(name))}
    options.peers = [name for name in options.peers if name not in missing]
    bench = Benchmark("bench_inference", "AlexNet, inference", options, note=" ".join(
        ["GFLOP are those of the layers with weights, two for a multiply-add.",
         *(f"**Without {name}: {why}.**" for name, why in missing.items())]))
    for name, why in missing.items():
        print(f"without   {name}: {why}")
    with tempfile.TemporaryDirectory() as folder:
        net, path = our_network(), Path(folder) / "alexnet.onnx"
        write(net, path)
        for threads in bench.each_threads():
            for batch, goal in GOALS.items():
                if bench.selects(f"batch {batch}"):
                    run_case(bench, net, path, batch, [goal] if threads > 1 else [])
            if bench.selects(f"batch {BF16_BATCH}, bf16") and "openvino" in options.peers:
                run_bf16(bench, net, path, [BF16_GOAL] if threads > 1 else [])
    bench.finish()


def reason_without(peer: str) -> str:
    """Why this peer cannot be compared here; empty where it can."""
    if peer in RUNTIMES and find_spec(peer) is None:
        return "it is not installed (pip install 'minicnn[judge]')"
    limited = peer in RUNTIMES and os.environ.get(VECTOR_VARIABLE)
    return f"its vectors cannot be limited, and {VECTOR_VARIABLE} limits ours" if limited else ""


def run_case(bench: Benchmark, net: Net, path: Path, batch: int, goals: list) -> None:
    """Check that all compute the same logits, time them, and free them. path: the network as ONNX."""
    bench.torch.compiler.reset()
    images, _ = batch_of(batch)
    functions = {"ours": lambda: net.forward(images)}
    for peer in bench.options.peers:
        functions[peer] = (RUNTIMES[peer](path, images, bench.threads) if peer in RUNTIMES else
                           their_inference(bench.torch, peer, torch_alexnet(bench.torch, net), images))
    compare(bench, f"batch {batch}", functions, ALLOWED, net, batch, goals)


def run_bf16(bench: Benchmark, net: Net, path: Path, goals: list) -> None:
    """The same on device cpu:bf16, beside OpenVINO in the precision of its choice."""
    try:
        rounded = net.copy(device="cpu:bf16")
    except DeviceError as error:
        print(f"without   bf16: {error}")
        return
    images, _ = batch_of(BF16_BATCH)
    functions = {"ours": lambda: rounded.forward(images),
                 "openvino": openvino_logits(path, images, bench.threads, precision=None)}
    compare(bench, f"batch {BF16_BATCH}, bf16", functions, ALLOWED_BF16, net, BF16_BATCH, goals)


def compare(bench: Benchmark, name: str, functions: dict, allowed: float, net: Net, batch: int, goals: list) -> None:
    """Time these functions, whose logits must be the same but for `allowed`, and free them."""
    wanted = functions["ours"]()
    for peer, logits in functions.items():
        difference = np.abs(logits() - wanted).max() / np.abs(wanted).max()
        if not difference < allowed:
            raise SystemExit(f"error: {name}: the logits of {peer} differ from ours by {difference:.1e} of the "
                             f"largest, where {allowed:.0e} is allowed; these times cannot be compared")
    bench.measure(name, functions, gflop=2e-9 * multiply_adds(net, batch, train=False), batch=batch, goals=goals)
    functions.clear()
    gc.collect()


def onnxruntime_logits(path: Path, images: np.ndarray, threads: int) -> Callable:
    """onnxruntime's logits of the images, as an array."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3                          # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: _channels_first(images)}
    return lambda: session.run(None, given)[0]


def openvino_logits(path: Path, images: np.ndarray, threads: int, precision: str | None = "f32") -> Callable:
    """OpenVINO's logits of the images in this precision, None: as it chooses, as an array."""
    import openvino

    given = _channels_first(images)
    model = openvino.Core().read_model(path)
    model.reshape(given.shape)                              # fixed sizes: its faster setting
    compiled = openvino.compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
        **({"INFERENCE_PRECISION_HINT": precision} if precision else {})})
    request = compiled.create_infer_request()
    return lambda: request.infer([given])[compiled.output(0)]


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


RUNTIMES = {"onnxruntime": onnxruntime_logits, "openvino": openvino_logits}     # by the name of their package


if __name__ == "__main__":
    main()
