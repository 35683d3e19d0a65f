"""Depthwise convolutions, ours beside PyTorch's: the 3 x 3 layers of MobileNet-v2 at batch 32.

Forward with bias; forward, dx and dw. In both passes together PyTorch computes dx and dw in one call. The bytes counted
are those that must cross memory: x and y in each of the three.
"""

from __future__ import annotations

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host
from torch_passes import SETTINGS

from minicnn.backend.cpu import make_ops

BATCH, TOLERANCE = 32, 1e-4                                   # of the largest value; dw is a sum over 400,000 pixels
LAYERS = ((112, 32, 1), (112, 96, 2), (56, 144, 1), (56, 144, 2), (28, 192, 1), (28, 192, 2), (14, 384, 1),
          (14, 576, 1), (14, 576, 2), (7, 960, 1))            # size of the map, channels, stride
PASSES = {"forward": 1, "forward + dx + dw": 3}               # pass -> how often x and y cross memory


def main() -> None:
    options = command_line(__doc__, peers=SETTINGS)
    bench = Benchmark("bench_depthwise", "Depthwise convolutions", options, note=(
        "3 x 3 kernels of MobileNet-v2, one for each channel, at batch 32. The arrays of the small maps stay in "
        "a cache; those of the copy that they are compared with do not."))
    ops = make_ops()
    for threads in bench.each_threads():
        for size, channels, stride in LAYERS:
            layer = f"{size} x {size} x {channels}" + (f" / {stride}" if stride > 1 else "")
            names = {f"{layer}, {what}": what for what in PASSES}
            if any(map(bench.selects, names)):
                functions, gbyte = functions_of(bench.torch, ops, layer, size, channels, stride)
                for name, what in names.items():
                    if bench.selects(name):
                        bench.measure(name, {side: passes[what] for side, passes in functions.items()}, limit="copy",
                                      gbyte=PASSES[what] * gbyte, batch=BATCH,
                                      goals=[("best", 1.0, None)] if what != "forward" and threads > 1 else [])
        bench.total("MobileNet-v2's, geometric mean", "geomean",
                    [row["name"] for row in bench.rows if row["threads"] == threads and "dw" in row["name"]])
    bench.finish()


def functions_of(torch, ops, layer: str, size: int, channels: int, stride: int, device=Host) -> tuple[dict, float]:
    """(side -> pass -> function, GB of x and y). Both sides read the same values; SystemExit where they differ."""
    torch.manual_seed(0)
    torch.compiler.reset()                                    # it compiles a function for few shapes at a time
    small = (size - 1) // stride + 1
    shapes = (BATCH, size, size, channels), (3, 3, 1, channels), (channels,), (BATCH, small, small, channels)
    tensors = [device.tensor(torch.randn(shape)) for shape in shapes]
    x, w, b, dy = (device.array(tensor) for tensor in tensors)
    dx, dw, _, y = (device.array(device.tensor(torch.zeros(shape))) for shape in shapes)
    options = {"stride": (stride, stride), "pads": (1, 1, 1, 1), "groups": channels}
    options["work"] = ops.empty((ops.conv_work(x.shape, w.shape, x.dtype, **options),), "uint8")

    def forward():
        ops.conv_forward(x, w, y, epilogue=(b, False), **options)

    def both():
        forward()
        ops.conv_backward_weights(x, dy, dw, add=False, **options)
        ops.conv_backward_data(dy, w, dx, **options)

    both()
    functions = {"ours": dict(zip(PASSES, (forward, both), strict=True))}
    for setting in SETTINGS:
        functions[setting] = peer_of(torch, setting, stride, *tensors)
        same_results(layer, setting, functions[setting]["forward + dx + dw"](), (y, dx, dw), device)
    return functions, 1e-9 * (x.nbytes + y.nbytes)


def peer_of(torch, setting: str, stride: int, tx, tw, tb, tdy) -> dict:
    """PyTorch's passes on the same values, in a setting's layout."""
    form = torch.contiguous_format if setting == "eager" else torch.channels_last
    tx, tw, tdy = (a.contiguous(memory_format=form) for a in (tx.permute(0, 3, 1, 2), tw.permute(3, 2, 0, 1),
                                                              tdy.permute(0, 3, 1, 2)))
    tx, tw = tx.requires_grad_(), tw.requires_grad_()

    def convolution(x, w):
        return torch.conv2d(x, w, tb, stride, 1, 1, len(tb))

    function = torch.compile(convolution, dynamic=False) if setting == "compile" else convolution

    def forward():
        with torch.no_grad():
            return function(tx, tw)

    def both():
        ty = function(tx, tw)
        return ty, *torch.autograd.grad(ty, (tx, tw), tdy)

    return dict(zip(PASSES, (forward, both), strict=True))


def same_results(layer: str, setting: str, theirs: tuple, ours: tuple, device) -> None:
    """Exit with an error where the two sides do not compute the same."""
    for our, their, back in zip(ours, theirs, ((0, 2, 3, 1), (0, 2, 3, 1), (2, 3, 1, 0)), strict=True):
        our, their = device.to_host(our), device.to_host(their.detach()).transpose(back)
        difference = np.abs(our - their).max() / np.abs(their).max()
        if not difference < TOLERANCE:
            raise SystemExit(f"error: {layer}: PyTorch, {setting}, differs from ours by {difference:.1e} of the "
                             f"largest, where {TOLERANCE:.0e} is allowed; these times cannot be compared")


if __name__ == "__main__":
    main()
