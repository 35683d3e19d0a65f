"""The fully connected layers of AlexNet, ours beside PyTorch's: forward, dx and dw at batch 32 and 128.

At these batches the 58 million weights are what costs: they are read (and dw written) once for a few images. The
forward adds the bias and applies ReLU; dw is written, as the first backward of a step does, and PyTorch always.
"""

from __future__ import annotations

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host

from minicnn.backend.cpu import make_ops

LAYERS = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}
BATCHES = (32, 128)
PASSES = ("forward", "dx", "dw")


def main() -> None:
    bench = Benchmark("bench_linear", "Fully connected layers of AlexNet", command_line(__doc__, peers=("eager",)))
    ops = make_ops()
    for _ in bench.each_threads():
        for batch in BATCHES:
            for layer, sizes in LAYERS.items():
                names = {what: f"{layer} {what}, batch {batch}" for what in PASSES}
                if any(map(bench.selects, names.values())):
                    for what, functions, gbyte in cases_of(bench.torch, ops, batch, *sizes):
                        if bench.selects(names[what]):
                            bench.measure(names[what], functions, gflop=2e-9 * batch * sizes[0] * sizes[1],
                                          gbyte=gbyte, batch=batch, dot=(f"{layer} ({batch})", what))
    bench.finish()


def cases_of(torch, ops, batch: int, n_in: int, n_out: int, device=Host):
    """(pass, functions, GB) of each pass of a layer."""
    rng = np.random.default_rng(0)
    x, w, b, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in
                   ((batch, n_in), (n_in, n_out), (n_out,), (batch, n_out)))
    work = np.empty(ops.linear_work(x.shape, w.shape, w.dtype), np.uint8)
    tx, tw, tb, tdy = (torch.from_numpy(np.ascontiguousarray(a)).to(device.dtype(torch)) for a in (x, w.T, b, dy))
    x, dy = (device.activations(torch.from_numpy(a)) for a in (x, dy))
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(w)
    gbyte = 1e-9 * (x.nbytes + w.nbytes + y.nbytes)                            # the same three arrays in every pass
    yield ("forward", {"ours": lambda: ops.linear_forward(x, w, y, epilogue=(b, True), work=work),
                       "eager": lambda: torch.relu_(torch.nn.functional.linear(tx, tw, tb))}, gbyte)
    yield ("dx", {"ours": lambda: ops.linear_backward_data(dy, w, dx, work=work), "eager": lambda: tdy @ tw}, gbyte)
    yield ("dw", {"ours": lambda: ops.linear_backward_weights(x, dy, dw, add=False, work=work),
                  "eager": lambda: tdy.t() @ tx}, gbyte)


if __name__ == "__main__":
    main()
