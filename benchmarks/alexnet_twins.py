"""The paper's network twice, with the same weights: ours, and PyTorch's in each of its settings.

A training step is forward, loss, backward and SGD with momentum and weight decay; the images are in memory. PyTorch's
SGD is the fused one in every setting: faster than the default, and so the harder peer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from devices import Host

from minicnn.evaluate.metrics import RunningMetrics
from minicnn.graph import Net
from minicnn.models.alexnet import alexnet
from minicnn.train.loss_scale import LossScale
from minicnn.train.sgd import SGD
from minicnn.train.step import CapturedStep, backward_and_update

RECIPE = {"lr": 0.001, "momentum": 0.9}
DECAY = 0.0005
WITHOUT_LRN = {"after_conv": ("relu pool", "relu pool", "relu", "relu", "relu pool")}
CHANNELS_LAST = ("channels_last", "compile", "graphs", "step")
# torch.compile's mode; the second uses CUDA graphs, without SGD. "step" captures the whole step, with SGD.
COMPILED = {"compile": "default", "graphs": "reduce-overhead", "step": "default"}


def our_network(lrn: bool = True, device: str = "cpu") -> Net:
    """The paper's network, without LRN if lrn is False."""
    return alexnet("paper", device=device, **({} if lrn else WITHOUT_LRN))


def batch_of(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, H, W, 3), labels (N,)), drawn at random: times do not depend on what they show."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, 224, 224, 3), np.uint8).astype(np.float32) - 128
    return images, rng.integers(0, 1000, batch).astype(np.int32)


def our_training(net: Net, images: np.ndarray, labels: np.ndarray) -> Callable:
    """A step of ours; it returns the loss."""
    optimiser = SGD(net.params, decay=DECAY, **RECIPE)

    def step() -> float:
        loss = net.loss(images, labels)
        backward_and_update(net, optimiser)
        return loss

    return step


def our_captured_training(net: Net, images: np.ndarray, labels: np.ndarray) -> tuple[CapturedStep, Callable]:
    """A step of ours on a GPU, captured once and replayed; the host does not wait for it."""
    optimiser = SGD(net.params, decay=DECAY, **RECIPE)
    scale = LossScale(net.ops) if net.ops.needs_loss_scale else None
    step = CapturedStep(net, optimiser, scale, RunningMetrics())
    x, ids = net.ops.from_host(images), np.arange(len(labels))
    return step, lambda: step.run(x, labels, ids, epoch=0)


def their_training(torch, setting: str, twin, images: np.ndarray, labels: np.ndarray, device=Host,
                   mixed: str = "", loss_of: Callable | None = None) -> Callable:
    """A step of PyTorch's in one of its settings; it returns the loss, as a tensor where reading it would have to wait.

    mixed: bfloat16 or float16, in which autocast computes where it chooses to; for float16 with PyTorch's loss scaling.
    loss_of: (torch, outputs, labels) -> loss, if that is not the cross entropy of the outputs alone.
    """
    x, y = (device.tensor(tensor) for tensor in (torch_images(torch, setting, images),
                                                 torch.from_numpy(labels.astype(np.int64))))
    twin = device.tensor(twin)
    model = in_setting(torch, setting, twin.train())
    optimiser = torch.optim.SGD(twin.parameters(), weight_decay=DECAY, fused=True, **RECIPE)
    loss_of = loss_of or cross_entropy
    scaler = torch.amp.GradScaler(device.torch_device, enabled=mixed == "float16")

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.torch_device, getattr(torch, mixed or "bfloat16"), enabled=bool(mixed)):
            loss = loss_of(torch, model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        return loss.item() if device.torch_device == "cpu" else loss.detach()

    return device.captured(step, 1) if setting == "step" else step


def cross_entropy(torch, outputs, labels):
    return torch.nn.functional.cross_entropy(outputs, labels)


def their_inference(torch, setting: str, twin, images: np.ndarray) -> Callable:
    """PyTorch's logits (N, 1000) of the images, as an array."""
    x = torch_images(torch, setting, images)
    model = in_setting(torch, setting, twin.eval())

    def step() -> np.ndarray:
        with torch.inference_mode():
            return model(x).numpy()

    return step


def in_setting(torch, setting: str, twin):
    """The twin as a setting runs it."""
    if setting in CHANNELS_LAST:
        twin.to(memory_format=torch.channels_last)
    return torch.compile(twin, dynamic=False, mode=COMPILED[setting]) if setting in COMPILED else twin


def torch_images(torch, setting: str, images: np.ndarray):
    """The images (N, 3, H, W), in the memory layout of the setting."""
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return x.to(memory_format=torch.channels_last) if setting in CHANNELS_LAST else x


def multiply_adds(net: Net, batch: int, train: bool) -> int:
    """Of a step: the forward, and in training two gradients of each layer with weights (one of the first)."""
    total, shape = 0, {}
    for node in net.nodes:
        inputs = [shape.get(name, (batch, *net.inputs.get(name, ()))) for name in node.inputs]
        plan = node.layer.plan(inputs, net.dtype, net.ops)
        shape[node.name] = plan.out_shape
        total += plan.macs * (1 if not train else 2 if node.inputs[0] in net.inputs else 3)
    return total


def torch_alexnet(torch, net: Net | None = None, lrn: bool = True, shifted: bool = False):
    """The paper's network in PyTorch, with the weights of ours where given.

    shifted: LRN as sums of shifted squares, which torch.compile makes one kernel, in place of PyTorch's function.
    """
    from torch import nn

    class HalvesLRN(nn.Module):
        """LRN within each half of the channels. PyTorch divides alpha by n, the paper does not."""

        def forward(self, x):
            return torch.cat([nn.functional.local_response_norm(half, 5, 5 * 1e-4, 0.75, 2.0)
                              for half in x.chunk(2, 1)], 1)

    class ShiftedLRN(nn.Module):
        """The same as HalvesLRN."""

        def forward(self, x):
            return torch.cat([half * (2.0 + 1e-4 * self.sums(half)) ** -0.75 for half in x.chunk(2, 1)], 1)

        @staticmethod
        def sums(x):
            squares = nn.functional.pad(x * x, (0, 0, 0, 0, 2, 2))
            return sum(squares[:, i:i + x.shape[1]] for i in range(5))

    class PaperDropout(nn.Module):
        """Dropout that halves at test time instead of doubling in training."""

        def forward(self, x):
            return nn.functional.dropout(x, 0.5, self.training) * 0.5

    def relu():
        return nn.ReLU(inplace=True)

    def norm():
        return (ShiftedLRN if shifted else HalvesLRN)() if lrn else nn.Identity()

    twin = nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), relu(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), relu(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), relu(), nn.Conv2d(384, 384, 3, padding=1, groups=2), relu(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), relu(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), relu(), PaperDropout(), nn.Linear(4096, 4096), relu(), PaperDropout(),
        nn.Linear(4096, 1000))
    if net is not None:
        _copy_weights(torch, net, [layer for layer in twin if isinstance(layer, (nn.Conv2d, nn.Linear))])
    return twin


def _copy_weights(torch, net: Net, layers: list) -> None:
    names = [name[:-2] for name in net.params if name.endswith(".w")]
    with torch.no_grad():
        for name, layer in zip(names, layers, strict=True):
            w = net.ops.to_host(net.params[f"{name}.w"].data)
            if w.ndim == 4:
                w = w.transpose(3, 2, 0, 1)                                    # (R, S, C/G, K) -> (K, C/G, R, S)
            else:
                if w.shape[0] == 9216:                                         # ours is (H, W, C), theirs (C, H, W)
                    w = w.reshape(6, 6, 256, -1).transpose(2, 0, 1, 3).reshape(9216, -1)
                w = w.T                                                        # (in, out) -> (out, in)
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(w)))
            layer.bias.copy_(torch.from_numpy(net.ops.to_host(net.params[f"{name}.b"].data)))
