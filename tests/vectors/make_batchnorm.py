"""Makes batchnorm_torch.npz: PyTorch's BatchNorm in float64, one step of training and an evaluation after it.

    python -m tests.vectors.make_batchnorm          (needs torch; what `make judge` compares with what is stored)

Names are "<case>/<what>": x, dy, residual, w, b; for training and evaluation y, dx, dw, db, and with "fused", as the
ReLU of the sum with the residual, also dresidual; mean, var: the running statistics after the step. Arrays are
channels-last; inputs fit float32. "offset": values around 10,000 with standard deviation 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).with_name("batchnorm_torch.npz")
CASES = {"maps": (2, 3, 4, 19), "pixels": (6, 1, 1, 7), "rows": (8, 5), "offset": (4, 5, 4, 3)}


def single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(np.float64)


def results(arrays: dict, training: bool, fused: bool, statistics: tuple) -> dict:
    x, residual = (torch.tensor(np.moveaxis(arrays[name], -1, 1)).requires_grad_() for name in ("x", "residual"))
    w, b = (torch.tensor(arrays[name]).requires_grad_() for name in ("w", "b"))
    y = torch.nn.functional.batch_norm(x, *statistics, w, b, training=training, momentum=0.1, eps=1e-5)
    inputs = {"dx": x, "dw": w, "db": b}
    if fused:
        y, inputs = torch.relu(y + residual), inputs | {"dresidual": residual}
    found = torch.autograd.grad(y, list(inputs.values()), torch.tensor(np.moveaxis(arrays["dy"], -1, 1)))
    return {name: np.moveaxis(value.detach().numpy(), 1, -1) if value.ndim > 1 else value.detach().numpy()
            for name, value in zip(["y", *inputs], [y, *found], strict=True)}


def vectors() -> dict[str, np.ndarray]:
    rng, stored = np.random.default_rng(2015), {}
    for case, shape in CASES.items():
        C = shape[-1]
        arrays = {name: single(rng.standard_normal(shape)) for name in ("x", "dy", "residual")}
        arrays |= {name: single(rng.standard_normal(C)) for name in ("w", "b")}
        arrays["x"] = single(arrays["x"] + 1e4) if case == "offset" else single(arrays["x"] * (1 + np.arange(C)) - 2)
        for fused in (False, True):
            statistics = torch.zeros(C, dtype=torch.float64), torch.ones(C, dtype=torch.float64)
            for mode in ("training", "evaluation"):
                found = results(arrays, mode == "training", fused, statistics)
                arrays |= {f"{mode}/{'fused/' * fused}{name}": value for name, value in found.items()}
        arrays |= {"mean": statistics[0].numpy(), "var": statistics[1].numpy()}
        stored |= {f"{case}/{name}": value for name, value in arrays.items()}
    return stored


if __name__ == "__main__":
    np.savez_compressed(FILE, **vectors())
