"""Single convolutions, ours beside PyTorch's: every one of AlexNet, one of VGG-16 and two of ResNet-50.

Forward (with bias and ReLU), the gradient by the data (dx) and by the weights (dw). PyTorch has its arrays in the
layout it is timed with, made before the clock runs; each of its backward passes computes one gradient, as ours does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host

from minicnn.backend.cpu import make_ops
from minicnn.shapes import window_output


@dataclass(frozen=True)
class Convolution:
    """One layer."""

    name: str
    batch: int
    size: int                                               # of the square image
    channels: int
    kernels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    ceil: bool = False
    first: bool = False                                     # reads the image: its dx is not needed


ALEXNET = (
    Convolution("conv1", 32, 224, 3, 96, 11, stride=4, ceil=True, first=True),
    Convolution("conv2", 32, 27, 96, 256, 5, padding=2, groups=2),
    Convolution("conv3", 32, 13, 256, 384, 3, padding=1),
    Convolution("conv4", 32, 13, 384, 384, 3, padding=1, groups=2),
    Convolution("conv5", 32, 13, 384, 256, 3, padding=1, groups=2),
)
OTHERS = (
    Convolution("VGG 3x3", 8, 28, 512, 512, 3, padding=1),                     # VGG-16, conv4_2
    Convolution("ResNet 1x1", 32, 28, 512, 128, 1),                            # ResNet-50, within conv3_x
    Convolution("ResNet 3x3 /2", 32, 28, 256, 256, 3, stride=2, padding=1),    # ResNet-50, first of conv4_x
)
PASSES = {"forward": (0.95, 1.0), "dx": (0.95, 1.0), "dw": (0.9, 1.0)}       # with gate and aim, for AlexNet's


def main() -> None:
    options = command_line(__doc__, peers=("eager", "channels_last"))
    bench = Benchmark("bench_conv", "Convolutions", options, note=(
        "The forward adds the bias and applies ReLU. AlexNet's convolutions at batch 32; VGG-16's conv4_2, 512 to 512 "
        "channels at 28 x 28, batch 8; of ResNet-50, 1 x 1 from 512 to 128 channels at 28 x 28 and 3 x 3 in steps of "
        "two, 256 to 256 channels from 28 x 28, both at batch 32. GFLOP are those of the sum as it is defined: "
        "Winograd's algorithm does with fewer, and may exceed the rate of matrix products."))
    ops = make_ops()
    for threads in bench.each_threads():
        for conv in ALEXNET + OTHERS:
            names = {f"{conv.name} {what}": what for what in PASSES if not (conv.first and what == "dx")}
            if not any(map(bench.selects, names)):
                continue
            for what, functions, gflop, gbyte in cases_of(bench.torch, ops, conv):
                name = f"{conv.name} {what}"
                if bench.selects(name):
                    goals = [("best", *PASSES[what])] if conv in ALEXNET and threads > 1 else []
                    bench.measure(name, functions, gflop=gflop, gbyte=gbyte, batch=conv.batch, goals=goals,
                                  dot=(conv.name, what))
        totals(bench, threads)
    bench.finish()


def totals(bench: Benchmark, threads: int) -> None:
    """Totals over AlexNet's convolutions."""
    names = [f"{conv.name} {what}" for conv in ALEXNET for what in PASSES if not (conv.first and what == "dx")]
    wanted = threads > 1
    bench.total("conv2 to conv5, all passes", "sum", [name for name in names if not name.startswith("conv1")],
                [("share", 0.75, 0.9)] if wanted else [])
    bench.total("AlexNet's, geometric mean", "geomean", names, [("best", 1.0, 1.15)] if wanted else [])


def cases_of(torch, ops, conv: Convolution, device=Host, tolerance: float = 1e-3):
    """(pass, functions, GFLOP, GB) of each pass of a convolution, the two sides the same within the tolerance."""
    torch.manual_seed(0)
    N, C, K, R, groups, stride = conv.batch, conv.channels, conv.kernels, conv.kernel, conv.groups, conv.stride
    (P, Q), pads = window_output((conv.size, conv.size), R, stride, conv.padding, ceil=conv.ceil)
    shapes = (N, conv.size, conv.size, C), (R, R, C // groups, K), (K,), (N, P, Q, K)
    tx, tw, tb, tdy = (device.tensor(torch.randn(shape)) for shape in shapes)
    (x, dy), (w, b) = map(device.activations, (tx, tdy)), map(device.array, (tw, tb))
    dx, y = (device.activations(device.tensor(torch.zeros(shape))) for shape in (shapes[0], shapes[3]))
    dw = device.array(device.tensor(torch.zeros(shapes[1])))
    options = {"stride": (stride, stride), "pads": pads, "groups": groups}
    options["work"] = ops.empty((ops.conv_work(x.shape, w.shape, w.dtype, **options),), "uint8")
    ours = {"forward": lambda: ops.conv_forward(x, w, y, epilogue=(b, True), **options),
            "dx": lambda: ops.conv_backward_data(dy, w, dx, **options),
            "dw": lambda: ops.conv_backward_weights(x, dy, dw, **options)}
    peers = {setting: peer_of(torch, setting, conv, tx, tw, tb, tdy, pads, device.dtype(torch))
             for setting in ("eager", "channels_last")}
    same_results(conv, ours, peers, {"forward": y, "dx": dx, "dw": dw}, device, tolerance)

    gflop = 2e-9 * N * P * Q * K * R * R * (C // groups)
    gbyte = {"forward": 1e-9 * (x.nbytes + w.nbytes + y.nbytes), "dx": 1e-9 * (x.nbytes + w.nbytes + y.nbytes),
             "dw": 1e-9 * (x.nbytes + 2 * w.nbytes + y.nbytes)}                        # dw is added to
    for what in PASSES:
        if not (conv.first and what == "dx"):
            yield what, {"ours": ours[what]} | {name: peer[what] for name, peer in peers.items()}, gflop, gbyte[what]


def peer_of(torch, setting: str, conv: Convolution, tx, tw, tb, tdy, pads, dtype) -> dict:
    """PyTorch's three passes on the same values, given in our layout; computed in a setting's layout and this dtype."""
    form = torch.channels_last if setting == "channels_last" else torch.contiguous_format
    top, left, bottom, right = (max(0, pad - conv.padding) for pad in pads)    # padding beyond the edge by ceil
    tx, tw, tdy = tx.permute(0, 3, 1, 2), tw.permute(3, 2, 0, 1), tdy.permute(0, 3, 1, 2)
    tx = torch.nn.functional.pad(tx, (left, right, top, bottom))
    tx, tw, tdy = (a.contiguous(memory_format=form).to(dtype) for a in (tx, tw, tdy))
    tb = tb.to(dtype)
    stride, padding = [conv.stride] * 2, [conv.padding] * 2

    def backward(data: bool, weights: bool):
        return torch.ops.aten.convolution_backward(tdy, tx, tw, None, stride, padding, [1, 1], False, [0, 0],
                                                   conv.groups, [data, weights, False])

    return {"forward": lambda: torch.relu_(torch.conv2d(tx, tw, tb, stride, padding, 1, conv.groups)),
            "dx": lambda: backward(True, False)[0], "dw": lambda: backward(False, True)[1]}


def same_results(conv: Convolution, ours: dict, peers: dict, results: dict, device, tolerance: float) -> None:
    """Exit with an error where the two sides do not compute the same."""
    back = {"forward": (0, 2, 3, 1), "dx": (0, 2, 3, 1), "dw": (2, 3, 1, 0)}
    for what, result in results.items():
        ours[what]()
        result = device.to_host(result)
        for setting, passes in peers.items():
            theirs = device.to_host(passes[what]().float()).transpose(back[what])
            theirs = theirs[tuple(slice(length) for length in result.shape)]           # without ceil's padding
            difference = np.abs(result - theirs).max() / np.abs(theirs).max()
            if not difference < tolerance:
                raise SystemExit(f"error: {conv.name} {what}: PyTorch, {setting}, differs from ours by "
                                 f"{difference:.1e} of the largest, where {tolerance:.0e} is allowed; these times "
                                 "cannot be compared")


if __name__ == "__main__":
    main()
