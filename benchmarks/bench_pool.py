"""Pooling, ours beside PyTorch's: AlexNet's three overlapping pools, and the average over the same windows.

3 x 3 every 2 pixels, on the outputs of conv1, conv2 and conv5. The bytes counted are those that must cross memory: x, y
and the winners (one byte each; PyTorch keeps eight) in the forward, dy, the winners and dx in the backward.
"""

from __future__ import annotations

from benchmark import Benchmark, command_line
from devices import Host
from torch_passes import SETTINGS, peers_of

from minicnn.backend.cpu import make_ops

KERNEL, STRIDE = 3, 2
SHAPES = {"conv1": (32, 55, 55, 96), "conv2": (32, 27, 27, 256), "conv5": (32, 13, 13, 256)}
GOALS = [("best", 2.0, None), ("share", None, 0.8)]           # of the maximum, forward + backward


def main() -> None:
    options = command_line(__doc__, peers=SETTINGS)
    bench = Benchmark("bench_pool", "Pooling", options, note=(
        "On the outputs of AlexNet's convolutions at batch 32. conv5's is small enough to stay in a cache; the copy "
        "that it is compared with is not."))
    ops = make_ops()
    for threads in bench.each_threads():
        for layer, shape in SHAPES.items():
            for kind in ("max", "average"):
                names = {f"{layer} {kind}, {what}": what for what in ("forward", "forward + backward")}
                if any(map(bench.selects, names)):
                    functions, gbyte = functions_of(bench.torch, ops, kind, shape)
                    for name, what in names.items():
                        if bench.selects(name):
                            papers = kind == "max" and what != "forward"
                            bench.measure(name, {side: passes[what] for side, passes in functions.items()},
                                          limit="copy", gflop=operations(shape) if papers else None,
                                          gbyte=gbyte[what], batch=shape[0],
                                          dot=(f"pool ({layer})", what) if papers else None,
                                          goals=GOALS if papers and threads > 1 else [])
    bench.finish()


def operations(shape: tuple) -> float:
    """GFLOP of the maximum, forward + backward: for an element of y, the comparisons of a window and one addition."""
    batch, size, _, channels = shape
    return 1e-9 * batch * ((size - KERNEL) // STRIDE + 1) ** 2 * channels * KERNEL**2


def functions_of(torch, ops, kind: str, shape: tuple, device=Host) -> tuple[dict, dict]:
    """(side -> pass -> function, pass -> GB). Both sides read the same memory, at a multiple of 64 bytes."""
    torch.manual_seed(0)
    batch, size, _, channels = shape
    small = batch, (size - KERNEL) // STRIDE + 1, (size - KERNEL) // STRIDE + 1, channels
    tx, tdy = (device.tensor(torch.randn(form)).permute(0, 3, 1, 2) for form in (shape, small))     # channels last
    x, dy = (device.array(a.permute(0, 2, 3, 1)) for a in (tx, tdy))
    y, dx = (device.array(device.tensor(torch.zeros(form))) for form in (small, shape))
    argmax = device.array(device.tensor(torch.zeros(small, dtype=torch.uint8)))
    window = {"kernel": (KERNEL, KERNEL), "stride": (STRIDE, STRIDE), "pads": (0, 0, 0, 0)}

    def forward(keep: bool = True):
        if kind == "max":
            ops.maxpool_forward(x, y, argmax if keep else None, **window)
        else:
            ops.avgpool_forward(x, y, counted=window["pads"], **window)

    def both():
        forward()
        if kind == "max":
            ops.maxpool_backward(dy, argmax, dx, **window)
        else:
            ops.avgpool_backward(dy, dx, counted=window["pads"], **window)

    functions = {"ours": {"forward": lambda: forward(keep=False), "forward + backward": both}}
    both()
    theirs = torch.nn.MaxPool2d(KERNEL, STRIDE) if kind == "max" else torch.nn.AvgPool2d(KERNEL, STRIDE)
    functions |= peers_of(torch, f"{kind} pool", theirs, tx, tdy, (y, dx), device)
    once = x.nbytes + y.nbytes
    winners = argmax.nbytes if kind == "max" else 0
    return functions, {"forward": 1e-9 * once, "forward + backward": 2e-9 * (once + winners)}


if __name__ == "__main__":
    main()
