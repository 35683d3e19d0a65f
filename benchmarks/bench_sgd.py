"""Updates of all parameters by SGD, Adam and AdamW with weight decay, ours beside PyTorch's.

For SGD five arrays of the size of the weights cross memory: w, dw and v are read, w and v are written. For Adam it is
seven. Every cache line that is written has been read before, so nothing else moves; an ordinary copy first reads the
lines that it writes. AlexNet has 61 million parameters in 16 arrays, and ResNet-50 25.6 million in 161, half of them
with 64 to 2,048 elements.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host

from minicnn.backend.select import get_ops
from minicnn.models.alexnet import alexnet
from minicnn.param import Param
from minicnn.train.adam import Adam, AdamW
from minicnn.train.sgd import SGD

LR, DECAY = 1e-4, 0.0005
GOALS = [("fused", 1.0, None), ("share", None, 0.9)]


@dataclass(frozen=True)
class Update:
    """One optimiser on both sides.   theirs: its name in torch.optim.   options: of both; form: of ours alone.
    arrays: how many cross memory."""

    ours: type
    theirs: str
    options: dict = field(default_factory=dict)
    form: dict = field(default_factory=dict)
    arrays: int = 5


MOMENTUM = {"momentum": 0.9}
UPDATES = {
    "SGD": Update(SGD, "SGD", MOMENTUM),
    "SGD, PyTorch's form": Update(SGD, "SGD", MOMENTUM, {"lr_in_velocity": False}),
    "SGD, Nesterov": Update(SGD, "SGD", {**MOMENTUM, "nesterov": True}, {"lr_in_velocity": False}),
    "Adam": Update(Adam, "Adam", arrays=7),
    "AdamW": Update(AdamW, "AdamW", arrays=7),
}


def main() -> None:
    bench = Benchmark("bench_sgd", "Updates of all parameters", command_line(__doc__, peers=("fused", "eager")),
                      note="Eager is PyTorch's optimiser as it is by default, one operation after the other.")
    nets = {"AlexNet": {name: param.data.shape for name, param in alexnet("paper", device="reference").params.items()},
            "ResNet-50": resnet50()}
    for threads in bench.each_threads():
        for net, shapes in nets.items():
            count = sum(int(np.prod(shape)) for shape in shapes.values())
            for name, update in UPDATES.items():
                case = f"{name}, {count:,} parameters of {net}"
                if bench.selects(case):
                    bench.measure(case, functions_of(bench.torch, get_ops("cpu"), shapes, update=update),
                                  limit="copy", gflop=6e-9 * count, gbyte=update.arrays * 4e-9 * count,
                                  dot=("SGD", "update") if (net, name) == ("AlexNet", "SGD") else None,
                                  goals=GOALS if threads > 1 else [])
    bench.finish()


def resnet50() -> dict[str, tuple[int, ...]]:
    """The shapes of its parameters: convolutions without bias, each followed by a batch normalisation."""
    convs, channels = [(7, 7, 3, 64)], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convs += [(1, 1, channels, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            convs += [(1, 1, channels, 4 * width)] if block == 0 else []
            channels = 4 * width
    shapes = [shape for conv in convs for shape in (conv, conv[-1:], conv[-1:])]
    return {str(i): shape for i, shape in enumerate([*shapes, (2048, 1000), (1000,)])}


def functions_of(torch, ops, shapes: dict[str, tuple[int, ...]], device=Host, update: Update = UPDATES["SGD"]) -> dict:
    """Side -> one update of its own weights, the same at first. Their results are compared after two."""
    def tensors(scale: float, seed: int):
        torch.manual_seed(seed)
        return {name: device.tensor(scale * torch.randn(shape)) for name, shape in shapes.items()}

    params = {}
    for (name, w), grad in zip(tensors(0.01, 0).items(), tensors(1e-3, 1).values(), strict=True):
        params[name] = Param(name, device.array(w))
        params[name].grad[...] = device.array(grad)
    ours = update.ours(params, LR, decay=DECAY, **update.options, **update.form)
    functions = {"ours": lambda: ours.step(ops)}
    for _ in range(2):
        ours.step(ops)
    for peer in ("fused", "eager"):
        leaves = [w.requires_grad_() for w in tensors(0.01, 0).values()]
        for leaf, grad in zip(leaves, tensors(1e-3, 1).values(), strict=True):
            leaf.grad = grad
        theirs = getattr(torch.optim, update.theirs)(leaves, LR, weight_decay=DECAY, fused=peer == "fused",
                                                     **update.options)
        for _ in range(2):
            theirs.step()
        for (name, param), leaf in zip(params.items(), leaves, strict=True):
            difference = np.abs(device.to_host(param.data) - device.to_host(leaf)).max()
            if not difference < 1e-7:                       # two steps move a weight by 1e-6 and more
                raise SystemExit(f"error: {name}: PyTorch's {peer} update differs from ours by {difference:.1e}, where "
                                 "1e-7 is allowed; these times cannot be compared")
        functions[peer] = theirs.step
    return functions


if __name__ == "__main__":
    main()
