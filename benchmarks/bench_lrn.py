"""Local response normalisation, ours beside PyTorch's, on the outputs of AlexNet's conv1 and conv2.

Across channels as in the paper (n 5, k 2, alpha 1e-4, beta 0.75, the two halves of the channels apart), and within a
map (5 x 5 pixels), which PyTorch has no operation for: there it is put together from an average pool. The bytes counted
are those that must cross memory: x and y in the forward, x, dy and dx in the backward.
"""

from __future__ import annotations

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host
from torch_passes import SETTINGS, peers_of

from minicnn.backend.cpu import make_ops

N, K, ALPHA, BETA = 5, 2.0, 1e-4, 0.75
SHAPES = {"conv1": (32, 55, 55, 96), "conv2": (32, 27, 27, 256)}
ARRAYS = {"forward": 2, "forward + backward": 5}            # of the size of x, which must cross memory
OPERATIONS = 3 * N + 13         # for an element of x, forward + backward; the sum over n is taken three times
GOALS = [("eager", 10.0, None), ("compile", 4.0, None), ("share", None, 0.8)]      # of the paper's, forward + backward


def main() -> None:
    options = command_line(__doc__, peers=SETTINGS)
    bench = Benchmark("bench_lrn", "Local response normalisation", options, note=(
        "On the outputs of AlexNet's convolutions at batch 32. The copy stores past the caches, as memcpy does with "
        "large arrays; our kernels store in the usual way, for which a line of memory is read before it is written: "
        "the forward then moves three arrays where two are counted."))
    ops = make_ops()
    for threads in bench.each_threads():
        for layer, shape in SHAPES.items():
            for kind in ("across channels", "within a map"):
                names = {f"{layer} {kind}, {what}": what for what in ARRAYS}
                if not any(map(bench.selects, names)):
                    continue
                functions = functions_of(bench.torch, ops, kind, shape)
                for name, what in names.items():
                    if bench.selects(name):
                        size = float(np.prod(shape))
                        papers = kind == "across channels" and what != "forward"
                        bench.measure(name, {side: passes[what] for side, passes in functions.items()}, limit="copy",
                                      gflop=1e-9 * OPERATIONS * size if papers else None,
                                      gbyte=4e-9 * ARRAYS[what] * size, batch=shape[0],
                                      dot=(f"LRN ({layer})", what) if papers else None,
                                      goals=GOALS if papers and threads > 1 else [])
    bench.finish()


def functions_of(torch, ops, kind: str, shape: tuple, device=Host) -> dict:
    """Side -> pass -> function. Both sides read the same memory, which starts at a multiple of 64 bytes."""
    torch.manual_seed(0)
    tx, tdy = (device.tensor(torch.randn(shape)).permute(0, 3, 1, 2) for _ in range(2))     # channels last
    tx *= 50                                                                   # so that alpha counts
    x, dy = (device.array(a.permute(0, 2, 3, 1)) for a in (tx, tdy))
    y, dx = (device.array(device.tensor(torch.zeros(shape))) for _ in range(2))
    options = {"n": N, "k": K, "alpha": ALPHA, "beta": BETA}
    if kind == "across channels":
        forward, backward, options["groups"] = ops.lrn_forward, ops.lrn_backward, 2
    else:
        forward, backward = ops.lrn_within_forward, ops.lrn_within_backward

    def both():
        forward(x, y, **options)
        backward(x, dy, dx, **options)

    functions = {"ours": {"forward": lambda: forward(x, y, **options), "forward + backward": both}}
    both()
    return functions | peers_of(torch, f"LRN {kind}", theirs(torch, kind), tx, tdy, (y, dx), device)


def theirs(torch, kind: str):
    """The same in PyTorch, which divides alpha by the size of the window, as the paper does not."""
    def across(x):
        return torch.cat([torch.nn.functional.local_response_norm(half, N, N * ALPHA, BETA, K)
                          for half in x.chunk(2, 1)], 1)

    def within(x):
        return x * (K + ALPHA * N**2 * torch.nn.functional.avg_pool2d(x * x, N, 1, N // 2)) ** -BETA

    return across if kind == "across channels" else within


if __name__ == "__main__":
    main()
