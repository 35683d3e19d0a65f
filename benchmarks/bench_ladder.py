"""The ladder of kernels/README.md, rung by rung: AlexNet's convolutions on a GPU by each version of our products.

v1 writes the matrix of all windows, v2 does without it, v3 fetches while it multiplies, v4 uses the tensor cores (in
TF32, as v5; the others in float32), v5 those of an H100 or H200 by instructions of their own. Each rung computes the
same from the same arrays; the last that the GPU supports is shown as minicnn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from bench_conv import ALEXNET, PASSES, Convolution
from bench_cuda import APART, BATCH
from benchmark import Benchmark, command_line
from devices import Gpu
from side_by_side import import_torch

from minicnn.backend.cuda.gemm_tiling import TILES
from minicnn.backend.cuda.ops import ON_HOPPER, CudaOps
from minicnn.shapes import window_output


def main() -> None:
    options = command_line(__doc__, peers=sorted(TILES)[:-1], threads=(1,))
    gpu = Gpu(import_torch(), "tf32")
    from minicnn.backend.cuda.device import CupyDevice

    bench = Benchmark("bench_ladder", "The ladder", options, __doc__.split("\n\n")[1].replace("\n", " "), gpu)
    device = CupyDevice()
    rungs = {version: CudaOps(device, version, "Tf32") for version in TILES
             if device.architecture == "90" or version not in ON_HOPPER.values()}
    for _ in bench.each_threads():
        for conv in ALEXNET:
            conv = dataclasses.replace(conv, batch=BATCH)
            if any(bench.selects(f"{conv.name} {what}") for what in PASSES):
                for what, functions, gflop in rungs_of(rungs, conv):
                    if bench.selects(f"{conv.name} {what}"):
                        bench.measure(f"{conv.name} {what}", functions, gflop=gflop, batch=BATCH)
    bench.finish()


def rungs_of(rungs: dict[str, CudaOps], conv: Convolution) -> Iterator[tuple[str, dict[str, Callable], float]]:
    """(pass, version -> call, GFLOP) for each pass; the top rung is called "ours". Their results are compared first."""
    rng, (ops, *_), top = np.random.default_rng(0), rungs.values(), max(rungs)
    N, C, K, R, groups = conv.batch, conv.channels, conv.kernels, conv.kernel, conv.groups
    (P, Q), pads = window_output((conv.size, conv.size), R, conv.stride, conv.padding, ceil=conv.ceil)
    shapes = (N, conv.size, conv.size, C), (R, R, C // groups, K), (N, P, Q, K)
    x, w, dy = (ops.from_host(rng.standard_normal(shape, np.float32)) for shape in shapes)
    dx, dw, y = (ops.empty(shape, "float32") for shape in shapes)
    options = {"stride": (conv.stride, conv.stride), "pads": pads, "groups": groups}

    def passes(ops: CudaOps) -> dict[str, Callable]:
        work = ops.empty((ops.conv_work(x.shape, w.shape, x.dtype, **options),), "uint8")
        return {"forward": lambda: ops.conv_forward(x, w, y, work=work, **options),
                "dx": lambda: ops.conv_backward_data(dy, w, dx, work=work, **options),
                "dw": lambda: ops.conv_backward_weights(x, dy, dw, add=False, work=work, **options)}

    calls = {version: passes(ops) for version, ops in rungs.items()}
    for what, result in {"forward": y, "dx": dx, "dw": dw}.items():
        if conv.first and what == "dx":
            continue
        wanted = None
        for version, of_version in calls.items():
            of_version[what]()
            got = ops.to_host(result).copy()
            wanted = got if wanted is None else wanted
            apart = float(np.abs(got - wanted).max() / np.abs(wanted).max())
            if not apart < APART["tf32"]:
                raise SystemExit(f"error: {conv.name} {what}: {version} differs by {apart:.1e} of the largest, where "
                                 f"{APART['tf32']:.0e} is allowed; these times cannot be compared")
        yield (what, {("ours" if version == top else version): calls[version][what] for version in sorted(calls)},
               2e-9 * N * P * Q * K * R * R * (C // groups))


if __name__ == "__main__":
    main()
