"""AlexNet's descendants twice, with the same weights: ours, and torchvision's own definitions (ZFNet's is here).

torchvision need not have its compiled operators, which these networks do not use: `pip install --no-deps torchvision`,
of the version that belongs to the installed torch.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from alexnet_twins import cross_entropy

from minicnn.graph import Net
from minicnn.interop.state_dict import export_state_dict
from minicnn.models.registry import build


class Family(NamedTuple):
    """A network on both sides."""

    ours: str                   # as `minicnn train` names it
    theirs: str                 # torchvision's function; "" for one that is written here
    batch: int
    knobs: dict = {}
    arguments: dict = {}        # torchvision's


FAMILIES = {
    "VGG-16": Family("vgg16", "vgg16", 8),
    "ZFNet": Family("zfnet", "", 32, {"dropout_inverted": True}),
    "ResNet-18": Family("resnet18", "resnet18", 32),
    "ResNet-50": Family("resnet50:v1.5", "resnet50", 16),
    "GoogLeNet": Family("googlenet:torchvision", "googlenet", 32, arguments={"init_weights": False}),
}
AUX_WEIGHT = 0.3                # of GoogLeNet's auxiliary losses: section 5 of its paper


def our_net(family: Family, device: str = "cpu") -> Net:
    return build(family.ours, num_classes=1000, device=device, **family.knobs)


def torch_net(torch, family: Family, net: Net | None = None):
    """PyTorch's, with the weights of ours where given."""
    twin = (getattr(import_torchvision(torch).models, family.theirs)(weights=None, **family.arguments)
            if family.theirs else torch_zfnet(torch))
    if net is not None:
        arrays = export_state_dict(net)
        arrays |= {name: value for name, value in twin.state_dict().items() if name.endswith("num_batches_tracked")}
        twin.load_state_dict({name: torch.as_tensor(np.ascontiguousarray(array)) for name, array in arrays.items()})
    return twin


def family_loss(torch, outputs, labels):
    """The cross entropy, with that of GoogLeNet's auxiliary classifiers."""
    main, *aux = [outputs] if torch.is_tensor(outputs) else [outputs.logits, outputs.aux_logits1, outputs.aux_logits2]
    return cross_entropy(torch, main, labels) + sum(AUX_WEIGHT * cross_entropy(torch, head, labels) for head in aux)


def import_torchvision(torch):
    """torchvision; the operators that it registers shapes for are declared where they are missing."""
    missing = torch.library.Library("torchvision", "FRAGMENT")
    for schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                   "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
        try:
            torch._C._dispatch_has_kernel_for_dispatch_key(f"torchvision::{schema.partition('(')[0]}", "Meta")
        except RuntimeError:
            missing.define(schema)
    try:
        import torchvision
    except ImportError:
        sys.exit("error: this benchmark compares with torchvision's networks, and torchvision is not installed: pip "
                 "install --no-deps torchvision")
    torchvision._declared = missing                         # undone when it is collected
    return torchvision


def torch_zfnet(torch):
    """ZFNet's Figure 3, numbered as the state dict of ours: features, then classifier."""
    from torch import nn

    class PaddedConv(nn.Conv2d):
        """With a row and a column of zeros after the image."""

        def forward(self, x):
            return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

    def relu():
        return nn.ReLU(inplace=True)

    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def norm():
        return nn.LocalResponseNorm(5, 5 * 1e-4, 0.75, 2.0)             # PyTorch divides alpha by n, the paper does not

    features = nn.Sequential(
        PaddedConv(3, 96, 7, 2), relu(), pool(), norm(), nn.Conv2d(96, 256, 5, 2), relu(), pool(), norm(),
        nn.Conv2d(256, 384, 3, padding=1), relu(), nn.Conv2d(384, 384, 3, padding=1), relu(),
        nn.Conv2d(384, 256, 3, padding=1), relu(), pool())
    classifier = nn.Sequential(nn.Linear(9216, 4096), relu(), nn.Dropout(), nn.Linear(4096, 4096), relu(), nn.Dropout(),
                               nn.Linear(4096, 1000))
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))
