"""Every layer of AlexNet with weights: forward, data gradient and weight gradient, ours beside PyTorch's, in turns.

    python benchmarks/bench_conv.py [--threads 2] [--batch 32] [--pairs 15] [--only conv2] [--json FILE]
"""

from __future__ import annotations

import argparse

import numpy as np
from side_by_side import compare, import_torch, in_turns, machine, sgemm_rate, write_json

from minicnn.backend.cpu import make_ops, set_threads, thread_report
from minicnn.kernels.cpu.threads import threads
from minicnn.shapes import window_output

# name, image size, channels, kernels, kernel size, stride, padding, groups
CONVOLUTIONS = (("conv1", 224, 3, 96, 11, 4, 0, 1), ("conv2", 27, 96, 256, 5, 1, 2, 2),
                ("conv3", 13, 256, 384, 3, 1, 1, 1), ("conv4", 13, 384, 384, 3, 1, 1, 2),
                ("conv5", 13, 384, 256, 3, 1, 1, 2))
LINEARS = (("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000))


def conv_cases(torch, ops, batch, name, size, C, K, R, stride, padding, groups):
    """(name, GFLOP, ours, theirs) for each pass of one convolution; the forward includes bias and ReLU."""
    rng = np.random.default_rng(0)
    (P, Q), pads = window_output((size, size), R, stride, padding, ceil=name == "conv1")
    x, w, b, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in
                   ((batch, size, size, C), (R, R, C // groups, K), (K,), (batch, P, Q, K)))
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(w)
    options = {"stride": (stride, stride), "pads": pads, "groups": groups}
    options["work"] = np.empty(ops.conv_work(x.shape, w.shape, x.dtype, **options), np.uint8)

    top, left, bottom, right = pads
    tx, tw, tb, tdy = (torch.from_numpy(np.ascontiguousarray(a)) for a in
                       (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b, dy.transpose(0, 3, 1, 2)))
    tx = torch.nn.functional.pad(tx, (left - padding, right - padding, top - padding, bottom - padding))

    def their_backward(data, weights):
        return torch.ops.aten.convolution_backward(tdy, tx, tw, None, [stride] * 2, [padding] * 2, [1, 1], False,
                                                   [0, 0], groups, [data, weights, False])

    gflop = 2e-9 * batch * P * Q * K * R * R * (C // groups)
    forward = (f"{name} forward", gflop, lambda: ops.conv_forward(x, w, y, epilogue=(b, True), **options),
               lambda: torch.relu_(torch.conv2d(tx, tw, tb, stride, padding, 1, groups)))
    data = (f"{name} data", gflop, lambda: ops.conv_backward_data(dy, w, dx, **options),
            lambda: their_backward(True, False))
    weights = (f"{name} weights", gflop, lambda: ops.conv_backward_weights(x, dy, dw, **options),
               lambda: their_backward(False, True))
    return [forward, weights] if name == "conv1" else [forward, data, weights]     # nobody needs the image's gradient


def linear_cases(torch, ops, batch, name, n_in, n_out):
    """The same for a fully connected layer."""
    rng = np.random.default_rng(0)
    x, w, b, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in
                   ((batch, n_in), (n_in, n_out), (n_out,), (batch, n_out)))
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(w)
    work = np.empty(ops.linear_work(x.shape, w.shape, x.dtype), np.uint8)
    tx, tw, tb, tdy = (torch.from_numpy(np.ascontiguousarray(a)) for a in (x, w.T, b, dy))
    gflop = 2e-9 * batch * n_in * n_out
    return [(f"{name} forward", gflop, lambda: ops.linear_forward(x, w, y, epilogue=(b, True), work=work),
             lambda: torch.relu_(torch.nn.functional.linear(tx, tw, tb))),
            (f"{name} data", gflop, lambda: ops.linear_backward_data(dy, w, dx, work=work), lambda: tdy @ tw),
            (f"{name} weights", gflop, lambda: ops.linear_backward_weights(x, dy, dw, work=work),
             lambda: tdy.t() @ tx)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=None, help="default: all cores")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="", help="part of a name, such as conv2 or weights")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch = import_torch()
    set_threads(options.threads)
    torch.set_num_threads(threads())
    limit = sgemm_rate(threads())
    print(f"machine   {machine()}; {thread_report()}; PyTorch {torch.__version__}; SGEMM {limit:.0f} GFLOP/s\n")
    print(f"batch {options.batch:<10d}{'ours':>10s}{'PyTorch':>10s} ms{'ours':>9s}{'PyTorch':>9s} GFLOP/s"
          f"{'ratio':>8s}  90 % interval")
    rows, ops = [], make_ops()
    layers = [(conv_cases, layer) for layer in CONVOLUTIONS] + [(linear_cases, layer) for layer in LINEARS]
    for cases, layer in layers:
        for name, gflop, ours, theirs in cases(torch, ops, options.batch, *layer):
            if options.only not in name:
                continue
            row = compare(*in_turns(ours, theirs, options.pairs))
            a, b = row["ours_ms"], row["theirs_ms"]
            print(f"{name:16s}{a:10.1f}{b:10.1f}   {1e3 * gflop / a:9.0f}{1e3 * gflop / b:9.0f}        "
                  f"{row['ratio']:8.2f}  {row['ratio_low']:.2f} to {row['ratio_high']:.2f}", flush=True)
            rows.append({"name": name, "gflop": gflop} | row)
    write_json(options.json, {"benchmark": "AlexNet's layers", "batch": options.batch, "threads": threads(),
                              "sgemm_gflops": limit, "peer": f"PyTorch {torch.__version__}", "rows": rows})


if __name__ == "__main__":
    main()
