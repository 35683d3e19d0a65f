"""Let PyTorch, in float64, take a step of each net of tests/models/families.py, and store what comes out.

    pip install -e .[judge]
    python -m tests.vectors.make_families          writes tests/vectors/families.npz

Each family is written again here, from its paper's table, with PyTorch's functions and automatic differentiation, in
its layout NCHW. From minicnn come only numbers: weights (transposed here, gradients transposed back), images, dropout
masks. Stored for each net: the loss, fingerprints of logits in training, of the gradient of every parameter and of the
images, of the state after the step, and of the logits of a prediction with that state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as fn

from minicnn import rng
from tests.models import families
from tests.models.families import CASES, Case

FILE = Path(__file__).with_name("families.npz")


class Twin:
    """The arrays of a net in PyTorch's layout, and layers that take theirs by name."""

    def __init__(self, case: Case):
        net = case.net(device="reference", dtype="float64")
        self.knobs, self.model, self.params, self.state, self.training = case.knobs, case.model, {}, {}, True
        for name, array in net.arrays().items():
            value = torch.tensor(families.weights(name, array.shape))
            if name.startswith("state/"):
                self.state[name.removeprefix("state/")] = value
            else:
                value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
                self.params[name] = value.contiguous().requires_grad_()

    def gradients(self) -> dict[str, np.ndarray]:
        """In minicnn's layout; 0 where nothing depends on the parameter."""
        found = {}
        for name, param in self.params.items():
            grad = torch.zeros_like(param) if param.grad is None else param.grad
            found[name] = (grad.permute(2, 3, 1, 0) if grad.ndim == 4 else grad).numpy()
        return found

    # ---- layers
    def conv(self, name, x, **options):
        return fn.conv2d(x, self.params[f"{name}.w"], self.params.get(f"{name}.b"), **options)

    def bn(self, name, x, eps=1e-5):
        (w, b), statistics = (self.params[f"{name}_bn.{what}"] for what in "wb"), (
            self.state[f"{name}_bn.{what}"] for what in ("mean", "var"))
        return fn.batch_norm(x, *statistics, w, b, training=self.training, momentum=0.1, eps=eps)

    def linear(self, name, x):
        """On (N, in), or on maps, whose pixels come first in minicnn's weights."""
        if x.ndim == 4:
            x = x.permute(0, 2, 3, 1).flatten(1)
        return x @ self.params[f"{name}.w"] + self.params[f"{name}.b"]

    def dropout(self, name, x, rate, inverted):
        if not self.training:
            return x if inverted else x * (1 - rate)
        last = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        drawn = rng.uniforms(0, rng.purpose_id(name), families.EPOCH, families.ids(), int(np.prod(last.shape[1:])))
        mask = torch.tensor(drawn.reshape(last.shape) >= rate)
        return x * (mask.permute(0, 3, 1, 2) if x.ndim == 4 else mask) / (1 - rate if inverted else 1)


def lrn(x, n, k, alpha, divided=True):
    """PyTorch divides alpha by n."""
    return fn.local_response_norm(x, n, alpha=alpha if divided else alpha * n, beta=0.75, k=k)


def lrn_within(x, n, alpha):
    """The mean of squares over n x n pixels, padding counted."""
    return x / (1 + alpha * fn.avg_pool2d(x * x, n, 1, n // 2)) ** 0.75


def zfnet(t: Twin, x):
    paper, spp, onnx = (t.model == name for name in ("zfnet", "zfnet:spp", "zfnet:onnx"))
    if paper:
        x = fn.pad(x, (0, -(x.shape[3] - 7) % 2, 0, -(x.shape[2] - 7) % 2))         # the last window passes the edge
    pool = lambda x: fn.max_pool2d(x, 3, 2, ceil_mode=not onnx)  # noqa: E731
    for layer, stride in ((1, 2), (2, 2)):
        x = fn.relu(t.conv(f"conv{layer}", x, stride=stride, padding=int(spp and layer == 1)))
        if paper:
            x = lrn(pool(x), 5, 2.0, 1e-4, divided=False)
        else:
            x = pool(lrn_within(x, 3, 5e-5) if spp else lrn(x, 5, 2.0, 5e-4))
    for layer in (3, 4, 5):
        x = fn.relu(t.conv(f"conv{layer}", x, padding=1))
    if spp:
        x = torch.cat([_bins(x, n).permute(0, 2, 3, 1).flatten(1) for n in (6, 3, 2, 1)], dim=1)
    else:
        x = fn.max_pool2d(x, 2, 2) if onnx else pool(x)
    for layer in (6, 7):
        x = t.dropout(f"drop{layer}", fn.relu(t.linear(f"fc{layer}", x)), 0.5, inverted=not paper)
    return t.linear("fc8", x), []


def _bins(x, n):
    stride = x.shape[2] // n
    return fn.max_pool2d(x, x.shape[2] - (n - 1) * stride, stride)


def vgg(t: Twin, x):
    bn, norm = t.model.endswith("-bn"), t.model.endswith("-lrn")
    for block, row in enumerate(t.knobs["blocks"], start=1):
        for number, kernel in enumerate((int(entry[0]) for entry in row.split()), start=1):
            name = f"conv{block}_{number}"
            x = t.conv(name, x, padding={3: 1, 1: 0}[kernel])
            x = fn.relu(t.bn(name, x) if bn else x)
            if norm and name == "conv1_1":
                x = lrn(x, 5, 2.0, 1e-4, divided=False)
        x = fn.max_pool2d(x, 2)
    for layer in (6, 7):
        x = t.dropout(f"drop{layer}", fn.relu(t.linear(f"fc{layer}", x)), 0.5, inverted=True)
    return t.linear("fc8", x), []


def googlenet(t: Twin, x):
    torchvision, naive = t.model == "googlenet:torchvision", t.model == "googlenet:naive"
    aux = []

    def conv(name, x, **options):
        x = t.conv(name, x, **options)
        return fn.relu(t.bn(name, x, eps=1e-3) if torchvision else x)

    def module(name, x):
        name = f"inception_{name}"
        five = {"padding": 1 if torchvision else 2}
        reduce = (lambda branch, x: x) if naive else (lambda branch, x: conv(f"{name}_{branch}_reduce", x))
        pooled = fn.max_pool2d(x, 3, 1, 1)
        return torch.cat([conv(f"{name}_1x1", x), conv(f"{name}_3x3", reduce("3x3", x), padding=1),
                          conv(f"{name}_5x5", reduce("5x5", x), **five),
                          pooled if naive else conv(f"{name}_pool_proj", pooled)], dim=1)

    def auxiliary(name, x):
        if not t.training or not t.knobs.get("aux", True):
            return
        x = fn.adaptive_avg_pool2d(x, 4) if torchvision else fn.avg_pool2d(x, 5, 3, ceil_mode=True)
        x = fn.relu(t.linear(f"{name}_fc1", conv(f"{name}_conv", x)))
        aux.append((0.3, t.linear(f"{name}_fc2", t.dropout(f"{name}_drop", x, 0.7, inverted=True))))

    norm = (lambda x: x) if torchvision else (lambda x: lrn(x, 5, 1.0, 1e-4))
    x = norm(fn.max_pool2d(conv("conv1", x, stride=2, padding=3), 3, 2, ceil_mode=True))
    x = norm(conv("conv2", conv("conv2_reduce", x), padding=1))
    x = module("3b", module("3a", fn.max_pool2d(x, 3, 2, ceil_mode=True)))
    x = module("4a", fn.max_pool2d(x, 3, 2, ceil_mode=True))
    auxiliary("aux1", x)
    x = module("4d", module("4c", module("4b", x)))
    auxiliary("aux2", x)
    x = fn.max_pool2d(module("4e", x), 2 if torchvision else 3, 2, ceil_mode=True)
    x = module("5b", module("5a", x)).mean(dim=(2, 3))
    return t.linear("fc", t.dropout("drop", x, 0.2 if torchvision else 0.4, inverted=True)), aux


def _residual(t: Twin, name, x, kernels, strides, shortcut):
    """A block; `shortcut`: "" for a plain net, "a", "around" (A with zeros on both sides), "b" or "c"."""
    start = x
    for number, (kernel, stride) in enumerate(zip(kernels, strides, strict=True), start=1):
        x = t.bn(f"{name}_conv{number}", t.conv(f"{name}_conv{number}", x, stride=stride, padding=(kernel - 1) // 2))
        if number < len(kernels):
            x = fn.relu(x)
    step, more = max(strides), x.shape[1] - start.shape[1]
    if not shortcut:
        return fn.relu(x)
    if shortcut == "c" or (shortcut == "b" and (more or step > 1)):
        start = t.bn(f"{name}_shortcut", t.conv(f"{name}_shortcut", start, stride=step))
    elif more or step > 1:
        before = more // 2 if shortcut == "around" else 0
        start = fn.pad(start[:, :, ::step, ::step], (0, 0, 0, 0, before, more - before))
    return fn.relu(x + start)


def resnet(t: Twin, x):
    bottleneck, shortcut = "50" in t.model, t.knobs.get("shortcut", "b")
    shortcut = "" if "plain" in t.model else "around" if t.model.endswith(":a") else shortcut
    x = fn.relu(t.bn("conv1", t.conv("conv1", x, stride=2, padding=3)))
    x = fn.max_pool2d(x, 3, 2, ceil_mode=True) if t.knobs.get("pool1_ceil") else fn.max_pool2d(x, 3, 2, padding=1)
    for stage, blocks in enumerate(t.knobs["blocks"], start=2):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            strides = [stride, 1]
            if bottleneck:
                strides = [1, stride, 1] if t.model.endswith("v1.5") else [stride, 1, 1]
            x = _residual(t, f"conv{stage}_{block}", x, (1, 3, 1) if bottleneck else (3, 3), strides, shortcut)
    return t.linear("fc", x.mean(dim=(2, 3))), []


def cifar_resnet(t: Twin, x):
    x = fn.relu(t.bn("conv1", t.conv("conv1", x, padding=1)))
    for stage in (2, 3, 4):
        for block in (1, 2, 3):
            stride = 2 if stage > 2 and block == 1 else 1
            x = _residual(t, f"conv{stage}_{block}", x, (3, 3), (stride, 1), "" if "plain" in t.model else "a")
    return t.linear("fc", x.mean(dim=(2, 3))), []


def squeezenet(t: Twin, x):
    x = fn.relu(t.conv("conv1", x, stride=2))
    for fire in range(2, 10):
        if fire in (2, 4, 6):
            x = fn.max_pool2d(x, 3, 2, ceil_mode=True)
        x = fn.relu(t.conv(f"fire{fire}_squeeze1x1", x))
        x = torch.cat([fn.relu(t.conv(f"fire{fire}_expand1x1", x)),
                       fn.relu(t.conv(f"fire{fire}_expand3x3", x, padding=1))], dim=1)
    x = fn.relu(t.conv("conv10", t.dropout("drop9", x, 0.5, inverted=True)))
    return x.mean(dim=(2, 3)), []


def mobilenet(t: Twin, x):
    def conv(name, x, groups=1, relu=True, **options):
        x = t.bn(name, t.conv(name, x, groups=groups, **options))
        return fn.relu6(x) if relu else x

    x = conv("conv1", x, stride=2, padding=1)
    table = [(1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1)]       # t, n, s
    for stage, (factor, blocks, stride) in enumerate(table, start=2):
        for block in range(1, blocks + 1):
            name, start, step = f"conv{stage}_{block}", x, stride if block == 1 else 1
            if factor > 1:
                x = conv(f"{name}_expand", x)
            x = conv(f"{name}_depthwise", x, groups=x.shape[1], stride=step, padding=1)
            x = conv(f"{name}_project", x, relu=False)
            if step == 1 and start.shape[1] == x.shape[1]:
                x = x + start
    x = conv("conv9", x).mean(dim=(2, 3))
    return t.linear("fc", t.dropout("drop", x, 0.2, inverted=True)), []


def take_step(case: Case) -> dict[str, np.ndarray]:
    """Fingerprints of one step and of a prediction after it."""
    twin, net = Twin(case), case.net(device="reference", dtype="float64")
    images, labels = families.images_and_labels(net)
    x, labels = torch.tensor(images).permute(0, 3, 1, 2).requires_grad_(), torch.tensor(labels)
    logits, auxiliary = globals()[case.twin](twin, x)
    loss = sum(weight * fn.cross_entropy(other, labels) for weight, other in [(1, logits), *auxiliary])
    loss.backward()
    found = {"logits": logits.detach().numpy(), "images": x.grad.permute(0, 2, 3, 1).numpy(), **twin.gradients()}
    found |= {f"state/{name}": value.numpy() for name, value in twin.state.items()}
    twin.training = False
    with torch.no_grad():
        found["prediction"] = globals()[case.twin](twin, x)[0].numpy()
    return {"loss": np.array(loss.item()), **{name: families.fingerprint(array) for name, array in found.items()}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    stored = {}
    for name, case in CASES.items():
        found = take_step(case)
        stored |= {f"{name}/{key}": value for key, value in found.items()}
        print(f"{name:24s} loss {found['loss']:.6f}, {len(found)} arrays")
    np.savez_compressed(FILE, **stored)
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
