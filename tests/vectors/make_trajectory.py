"""Let PyTorch, in float64, take the steps of tests/models/trajectory.py, and store where they lead.

    python -m tests.vectors.make_trajectory        (needs torch; what `make judge` compares with what is stored)

The network is written with PyTorch's own layers and automatic differentiation, in PyTorch's layout: images NCHW,
kernels (K, C, R, S), and fc6 reading its input in the order C, H, W. From minicnn come only numbers: data, starting
weights (transposed here, displacements transposed back), and the uniforms behind the dropout masks. Stored for each
image size: the loss of every step and, for each tensor, the norm of w_20 - w_0 and a sample of its entries.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from minicnn import rng
from tests.models import trajectory as run

FILE = Path(__file__).with_name("trajectory.npz")


class ReducedAlexNet(nn.Module):
    """The paper's layers; fully connected ones of 64 units."""

    def __init__(self, size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.overhang = -(size - 11) % 4                        # what conv1's last window lacks at the edge
        width = (size + self.overhang - 11) // 4 + 1
        for _ in range(3):                                      # three poolings
            width = (width - 3) // 2 + 1
        self.last = (256, width, width)                         # shape of pool5's output, C H W
        self.fc6 = nn.Linear(int(np.prod(self.last)), 64)
        self.fc7 = nn.Linear(64, 64)
        self.fc8 = nn.Linear(64, run.CLASSES)
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)     # divides alpha by 5

    def forward(self, x, masks):
        x = functional.pad(x, (0, self.overhang, 0, self.overhang))
        for conv in (self.conv1, self.conv2):
            x = functional.relu(conv(x))
            x = torch.cat([self.norm(half) for half in x.chunk(2, dim=1)], dim=1)     # each GPU its own maps
            x = functional.max_pool2d(x, 3, 2)
        x = functional.relu(self.conv3(x))
        x = functional.relu(self.conv4(x))
        x = functional.max_pool2d(functional.relu(self.conv5(x)), 3, 2)
        x = functional.relu(self.fc6(x.flatten(1))) * masks[0]
        x = functional.relu(self.fc7(x)) * masks[1]
        return self.fc8(x)

    def to_torch(self, name: str, w: np.ndarray) -> np.ndarray:
        """A parameter of minicnn in this network's layout."""
        if w.ndim == 4:
            return w.transpose(3, 2, 0, 1)                      # (R, S, C, K) -> (K, C, R, S)
        if name == "fc6.w":
            C, H, W = self.last
            return w.reshape(H, W, C, -1).transpose(3, 2, 0, 1).reshape(w.shape[1], -1)
        return w.T                                              # (in, out) -> (out, in); biases stay

    def to_minicnn(self, name: str, w: np.ndarray) -> np.ndarray:
        """The inverse of `to_torch`."""
        if w.ndim == 4:
            return w.transpose(2, 3, 1, 0)
        if name == "fc6.w":
            return w.reshape(-1, *self.last).transpose(2, 3, 1, 0).reshape(-1, w.shape[0])
        return w.T


def take_steps(size: int) -> dict[str, np.ndarray]:
    """Losses and displacements for one image size."""
    net = ReducedAlexNet(size).double()
    images, labels = run.images_and_labels(size)
    images, labels = torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(labels)
    params = {name.replace("weight", "w").replace("bias", "b"): param for name, param in net.named_parameters()}
    with torch.no_grad():
        for name, param in params.items():
            shape = net.to_minicnn(name, np.empty(param.shape)).shape
            param.copy_(torch.tensor(np.ascontiguousarray(net.to_torch(name, run.initial_value(name, shape)))))
    start = {name: param.detach().clone() for name, param in params.items()}
    velocity = {name: torch.zeros_like(param) for name, param in params.items()}
    losses = []
    for step in range(run.STEPS):
        ids = run.batch(step)
        masks = [torch.tensor(rng.uniforms(0, rng.purpose_id(name), step, ids, 64) >= 0.5) for name in run.DROPOUTS]
        loss = functional.cross_entropy(net(images[ids], masks), labels[ids])
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(params.values()))
        with torch.no_grad():
            for (name, param), gradient in zip(params.items(), gradients, strict=True):
                v = velocity[name]
                v.mul_(run.MOMENTUM).sub_(run.DECAY * run.LR * param).sub_(run.LR * gradient)
                param.add_(v)
    stored = {f"{size}/loss": np.array(losses)}
    for name, param in params.items():
        displacement = np.ascontiguousarray(net.to_minicnn(name, (param.detach() - start[name]).numpy()))
        stored[f"{size}/{name}/norm"] = np.array(np.linalg.norm(displacement))
        stored[f"{size}/{name}/sample"] = run.sampled(displacement)
    return stored


def vectors() -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    return {key: value for size in run.SIZES for key, value in take_steps(size).items()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **vectors())
