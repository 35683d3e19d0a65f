"""A training step of the AlexNet paper's network, ours beside PyTorch's, in turns on the same machine and threads.

    python benchmarks/bench_alexnet.py [--threads 2] [--batch 32] [--pairs 15] [--peer eager] [--json FILE]

A step is forward, loss, backward and SGD with momentum and decay; the images lie in memory. The peer is the same
network with the same weights (their logits are compared before anything is timed): two groups, LRN on the halves, the
paper's sizes, dropout without rescaling. `--peer channels_last` and `--peer compile` are PyTorch's other settings.
"""

from __future__ import annotations

import argparse

import numpy as np
from side_by_side import compare, import_torch, in_turns, machine, sgemm_rate, write_json

from minicnn.backend.cpu import set_threads, thread_report
from minicnn.kernels.cpu.threads import threads
from minicnn.models.alexnet import alexnet
from minicnn.train.sgd import SGD

RECIPE = {"lr": 0.001, "momentum": 0.9}
DECAY = 0.0005


def torch_alexnet(torch, net):
    """The paper's network in PyTorch, with the weights of ours."""
    from torch import nn

    class HalvesLRN(nn.Module):
        """LRN that does not look across the halves of the channels. PyTorch divides alpha by n, the paper does not."""

        def forward(self, x):
            return torch.cat([nn.functional.local_response_norm(half, 5, 5 * 1e-4, 0.75, 2.0)
                              for half in x.chunk(2, 1)], 1)

    class PaperDropout(nn.Module):
        """Dropout that halves at test time instead of doubling in training."""

        def forward(self, x):
            return nn.functional.dropout(x, 0.5, self.training) * 0.5

    def relu():
        return nn.ReLU(inplace=True)

    twin = nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), relu(), HalvesLRN(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), relu(), HalvesLRN(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), relu(), nn.Conv2d(384, 384, 3, padding=1, groups=2), relu(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), relu(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), relu(), PaperDropout(), nn.Linear(4096, 4096), relu(), PaperDropout(),
        nn.Linear(4096, 1000))
    layers = [layer for layer in twin if isinstance(layer, (nn.Conv2d, nn.Linear))]
    names = [name[:-2] for name in net.params if name.endswith(".w")]
    with torch.no_grad():
        for name, layer in zip(names, layers, strict=True):
            w = np.asarray(net.params[f"{name}.w"].data)
            if w.ndim == 4:
                w = w.transpose(3, 2, 0, 1)                                    # (R, S, C/G, K) -> (K, C/G, R, S)
            else:
                if w.shape[0] == 9216:                                         # ours is (H, W, C), theirs (C, H, W)
                    w = w.reshape(6, 6, 256, -1).transpose(2, 0, 1, 3).reshape(9216, -1)
                w = w.T                                                        # (in, out) -> (out, in)
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(w)))
            layer.bias.copy_(torch.from_numpy(np.asarray(net.params[f"{name}.b"].data)))
    return twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=None, help="default: all cores")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--peer", choices=("eager", "channels_last", "compile"), default="eager",
                        help="PyTorch's setting; compile is channels_last as well")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch = import_torch()
    set_threads(options.threads)
    torch.set_num_threads(threads())
    torch.manual_seed(0)

    print(f"machine   {machine()}; {thread_report()}; PyTorch {torch.__version__}, {options.peer}")
    limit = sgemm_rate(threads())
    net = alexnet("paper", device="cpu")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.batch, *net.input_shape)).astype(np.float32) - 128
    labels = rng.integers(0, 1000, options.batch).astype(np.int32)
    twin = torch_alexnet(torch, net)
    twin_images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    twin_labels = torch.from_numpy(labels.astype(np.int64))
    with torch.no_grad():
        wanted = twin.eval()(twin_images).numpy()
    difference = np.abs(net.forward(images) - wanted).max() / np.abs(wanted).max()
    print(f"the same  logits of {options.batch} images differ by {difference:.1e} of the largest")
    if not difference < 1e-3:
        raise SystemExit("error: the two networks do not compute the same; their times cannot be compared")

    optimiser = SGD(net.params, decay=DECAY, **RECIPE)
    twin.train()
    if options.peer != "eager":
        twin = twin.to(memory_format=torch.channels_last)
        twin_images = twin_images.to(memory_format=torch.channels_last)
    twin_optimiser = torch.optim.SGD(twin.parameters(), weight_decay=DECAY, fused=True, **RECIPE)
    model = torch.compile(twin) if options.peer == "compile" else twin

    def our_step():
        net.loss(images, labels)
        net.backward()
        optimiser.step(net.ops)

    def their_step():
        twin_optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(twin_images), twin_labels).backward()
        twin_optimiser.step()

    result = compare(*in_turns(our_step, their_step, options.pairs))
    gflop = 2e-9 * step_macs(net, options.batch)
    print(f"\nAlexNet 'paper', batch {options.batch}, {threads()} threads: a training step of {gflop:.0f} GFLOP "
          f"(NumPy's SGEMM here: {limit:.0f} GFLOP/s)\n")
    print(f"{'':10s}{'ms a step':>12s}{'images/s':>12s}{'GFLOP/s':>12s}")
    for name, key in (("minicnn", "ours_ms"), ("PyTorch", "theirs_ms")):
        seconds = result[key] / 1e3
        print(f"{name:10s}{result[key]:12.0f}{options.batch / seconds:12.1f}{gflop / seconds:12.0f}")
    print(f"\nratio of times, minicnn / PyTorch: {result['ratio']:.3f}  "
          f"(90 % interval {result['ratio_low']:.3f} to {result['ratio_high']:.3f}, {result['pairs']} pairs)")
    write_json(options.json, result | {"benchmark": "alexnet paper, training step", "batch": options.batch,
                                       "threads": threads(), "peer": f"PyTorch {torch.__version__} {options.peer}",
                                       "gflop": gflop, "sgemm_gflops": limit, "logits_difference": float(difference)})


def step_macs(net, batch: int) -> int:
    """Multiply-adds of a step: forward and two gradients for each layer with weights, one for the first."""
    total, shape = 0, {}
    for node in net.nodes:
        inputs = [shape.get(name, (batch, *net.inputs.get(name, ()))) for name in node.inputs]
        plan = node.layer.plan(inputs, net.dtype, net.ops)
        shape[node.name] = plan.out_shape
        total += plan.macs * (2 if node.inputs[0] in net.inputs else 3)
    return total


if __name__ == "__main__":
    main()
