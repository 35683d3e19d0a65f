"""Makes optimisers_torch.npz: what PyTorch's optimisers make of a small least-squares problem in 50 steps.

    python -m tests.vectors.make_optimisers          (needs torch; what `make judge` compares with what is stored)

`w` (7, 5) are the initial weights, `x` (50, 6, 7) and `y` (50, 6, 5) a batch for each step, `lr` (50,) what the
learning rate of each optimiser is multiplied by. NAME.DTYPE are the weights after 10 and after 50 steps. SETTINGS is
also what the tests run.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("optimisers_torch.npz")
STEPS, KEPT = 50, (10, 50)
SGD = {"lr": 0.02, "momentum": 0.9}
ADAM = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4}
# name -> (class in torch.optim and in minicnn.train, options of both; weight_decay is called `decay` in minicnn)
SETTINGS = {
    "sgd": ("SGD", SGD), "sgd_decay": ("SGD", {**SGD, "weight_decay": 0.1}),
    "sgd_nesterov": ("SGD", {**SGD, "weight_decay": 0.1, "nesterov": True}),
    "adam": ("Adam", ADAM), "adam_decay": ("Adam", {**ADAM, "weight_decay": 0.1}),
    "adam_default": ("Adam", {"lr": 0.05}), "adamw": ("AdamW", {**ADAM, "weight_decay": 0.1}),
    "adamw_default": ("AdamW", {"lr": 0.05}),
}


def problem() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((STEPS, 6, 7)), rng.standard_normal((7, 5))
    return {"w": rng.standard_normal((7, 5)), "x": x, "y": x @ w + 0.1 * rng.standard_normal((STEPS, 6, 5)),
            "lr": 0.5 + rng.random(STEPS)}


def vectors() -> dict[str, np.ndarray]:
    import torch

    arrays = problem()
    for name, (kind, options) in SETTINGS.items():
        for dtype in ("float32", "float64"):
            w, x, y = (torch.tensor(arrays[key].astype(dtype)) for key in ("w", "x", "y"))
            optimiser, found = getattr(torch.optim, kind)([w.requires_grad_()], **options), []
            for step in range(STEPS):
                optimiser.param_groups[0]["lr"] = options["lr"] * float(arrays["lr"][step])
                optimiser.zero_grad()
                (0.5 * (x[step] @ w - y[step]).square().sum() / 6).backward()
                optimiser.step()
                if step + 1 in KEPT:
                    found.append(w.detach().numpy().copy())
            arrays[f"{name}.{dtype}"] = np.array(found)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(FILE, **vectors())
