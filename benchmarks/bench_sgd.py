"""The update of all 61 million parameters of AlexNet by SGD with momentum and weight decay, ours beside PyTorch's.

Five arrays of 244 MB cross memory: w, dw and v are read, w and v are written. Every cache line
that is written has been read before, so nothing else moves; an ordinary copy first reads the lines that it writes.
"""

from __future__ import annotations

import numpy as np
from benchmark import Benchmark, command_line
from devices import Host

from minicnn.backend.select import get_ops
from minicnn.models.alexnet import alexnet
from minicnn.param import Param
from minicnn.train.sgd import SGD

RECIPE = {"lr": 1e-4, "momentum": 0.9}
DECAY = 0.0005
GOALS = [("fused", 1.0, None), ("share", None, 0.9)]


def main() -> None:
    bench = Benchmark("bench_sgd", "Update of AlexNet's parameters", command_line(__doc__, peers=("fused", "eager")),
                      note="Eager is PyTorch's SGD as it is by default, one operation after the other.")
    shapes = {name: param.data.shape for name, param in alexnet("paper", device="reference").params.items()}
    for threads in bench.each_threads():
        functions = functions_of(bench.torch, get_ops("cpu"), shapes)
        count = sum(int(np.prod(shape)) for shape in shapes.values())
        bench.measure(f"update of {count:,} parameters", functions, limit="copy", gflop=6e-9 * count,
                      gbyte=5 * 4e-9 * count, dot=("SGD", "update"), goals=GOALS if threads > 1 else [])
    bench.finish()


def functions_of(torch, ops, shapes: dict[str, tuple[int, ...]], device=Host) -> dict:
    """Side -> one update of its own weights, the same at first. Their results are compared after two."""
    def tensors(scale: float, seed: int):
        torch.manual_seed(seed)
        return {name: device.tensor(scale * torch.randn(shape)) for name, shape in shapes.items()}

    params = {}
    for (name, w), grad in zip(tensors(0.01, 0).items(), tensors(1e-3, 1).values(), strict=True):
        params[name] = Param(name, device.array(w))
        params[name].grad[...] = device.array(grad)
    sgd = SGD(params, decay=DECAY, **RECIPE)
    functions = {"ours": lambda: sgd.step(ops)}
    for _ in range(2):
        sgd.step(ops)
    for peer in ("fused", "eager"):
        leaves = [w.requires_grad_() for w in tensors(0.01, 0).values()]
        for leaf, grad in zip(leaves, tensors(1e-3, 1).values(), strict=True):
            leaf.grad = grad
        optimiser = torch.optim.SGD(leaves, weight_decay=DECAY, fused=peer == "fused", **RECIPE)
        for _ in range(2):
            optimiser.step()
        for (name, param), leaf in zip(params.items(), leaves, strict=True):
            difference = np.abs(device.to_host(param.data) - device.to_host(leaf)).max()
            if not difference < 1e-7:                       # two steps move a weight by up to 1e-6
                raise SystemExit(f"error: {name}: PyTorch's {peer} update differs from ours by {difference:.1e}, where "
                                 "1e-7 is allowed; these times cannot be compared")
        functions[peer] = optimiser.step
    return functions


if __name__ == "__main__":
    main()
