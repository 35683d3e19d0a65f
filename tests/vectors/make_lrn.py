"""Makes lrn_torch.npz: what PyTorch's LocalResponseNorm gives on each half of the channels, forward and gradient.

    python -m tests.vectors.make_lrn          (needs torch; what `make judge` compares with what is stored)

PyTorch divides alpha by the window, so its alpha = 5e-4 is the paper's 1e-4. Arrays are channels-last, in float64; x is
as large as activations in AlexNet's first layer, where the normalisation matters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).with_name("lrn_torch.npz")


def vectors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2012)
    x = (30 * rng.standard_normal((2, 3, 4, 14))).astype(np.float32).astype(np.float64)
    dy = rng.standard_normal(x.shape).astype(np.float32).astype(np.float64)

    norm = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    channels_first = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()                    # (N, C, H, W)
    y = torch.cat([norm(half) for half in channels_first.chunk(2, dim=1)], dim=1)
    (dx,) = torch.autograd.grad(y, channels_first, torch.tensor(dy).permute(0, 3, 1, 2))

    return {"x": x, "dy": dy, "y": y.detach().permute(0, 2, 3, 1).numpy(), "dx": dx.permute(0, 2, 3, 1).numpy()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **vectors())
