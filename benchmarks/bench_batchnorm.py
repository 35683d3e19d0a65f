"""Batch normalisation with the ReLU after it, in training, ours beside PyTorch's, on maps of ResNet-50.

The first map and the last ones, inside a residual block and at its end. Ours is the layer as a network calls it, with
the update of the running statistics and the gradients of scale and shift; so are PyTorch's BatchNorm2d and ReLU. The
bytes counted are those of x twice and y in the forward, x and dy twice and dx in the backward: both need all of x
before they can write anything.
"""

from __future__ import annotations

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host
from torch_passes import SETTINGS, peers_of

from minicnn.backend.cpu import make_ops
from minicnn.layers.base import Context
from minicnn.layers.batchnorm import BatchNorm2d

SHAPES = {"first": (32, 112, 112, 64), "last, inside": (32, 7, 7, 512), "last": (32, 7, 7, 2048)}
ARRAYS = {"forward": 3, "forward + backward": 8}            # of the size of x, which are read or written
APART = 1e-3            # from PyTorch, which sums these maps in float32 where they are channels-last: 7e-5 off
GOALS = [("eager", 2.0, None), ("channels_last", 2.0, None), ("compile", 1.0, None), ("share", None, 0.8)]


def main() -> None:
    options = command_line(__doc__, peers=SETTINGS)
    bench = Benchmark("bench_batchnorm", "Batch normalisation and ReLU", options, note=(
        "In training, at batch 32. The arrays of the last maps fit the caches, which are faster than the copy that "
        "they are compared with."))
    ops = make_ops()
    for threads in bench.each_threads():
        for layer, shape in SHAPES.items():
            names = {f"{layer}, {what}": what for what in ARRAYS}
            if not any(map(bench.selects, names)):
                continue
            functions = functions_of(bench.torch, ops, shape)
            for name, what in names.items():
                if bench.selects(name):
                    bench.measure(name, {side: passes[what] for side, passes in functions.items()}, limit="copy",
                                  gbyte=4e-9 * ARRAYS[what] * float(np.prod(shape)), batch=shape[0],
                                  goals=GOALS if what != "forward" and threads > 1 else [])
    bench.finish()


def functions_of(torch, ops, shape: tuple, device=Host) -> dict:
    """Side -> pass -> function. Both sides read the same memory, which starts at a multiple of 64 bytes."""
    torch.manual_seed(0)
    tx, tdy = (device.tensor(torch.randn(shape)).permute(0, 3, 1, 2) for _ in range(2))     # channels last
    x, dy = (device.array(a.permute(0, 2, 3, 1)) for a in (tx, tdy))
    y, dx = (device.array(device.tensor(torch.zeros(shape))) for _ in range(2))
    layer, saved, ctx = ours(ops, x, y)

    def forward():
        layer.forward(ctx, [x], y, saved)

    def both():
        forward()
        for param in layer.params.values():
            param.zero_grad()
        layer.backward(ctx, dy, saved, [dx])

    both()
    norm = device.tensor(torch.nn.BatchNorm2d(shape[-1]))
    peers = peers_of(torch, "batch normalisation", lambda x: torch.relu(norm(x)), tx, tdy, (y, dx), device,
                     tuple(norm.parameters()), APART)
    return {"ours": {"forward": forward, "forward + backward": both}} | peers


def ours(ops, x, y) -> tuple:
    """The layer, what its forward leaves for its backward, and its context in training."""
    layer = BatchNorm2d(x.shape[-1])
    layer.init_params("norm")
    for param in layer.params.values():
        param.data = ops.from_host(param.data)
    layer.state = {name: ops.from_host(array) for name, array in layer.state.items()}
    saved = layer.saved_for(layer.plan([x.shape], "float32", ops), ops, [x], y)
    return layer, saved, Context(ops, train=True, update_state=True, relu=True)


if __name__ == "__main__":
    main()
