"""Reduced nets of every family, for comparison with PyTorch: odd image sizes, few kernels, all kinds of layers.

tests/vectors/make_families.py runs one step of each in PyTorch, tests/models/test_families.py in minicnn. Weights,
images and dropout masks are uniform numbers from minicnn.rng, bit-identical on every machine.

Where a value lies within float32's rounding error of a kink, the gradients differ by more than that: of sizes 83 to 123
of GoogLeNet with batch normalisation, 99 and 103 have one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minicnn import rng
from minicnn.graph import Net
from minicnn.models.registry import build

BATCH, CLASSES, EPOCH, SAMPLES = 3, 5, 2, 12
VGG_C = ("3-4", "3-5 3-6", "3-7 3-6 1-5", "3-6 1-8", "3-7")
SMALL = {"blocks": (1, 2, 1, 1), "widths": (4, 6, 5, 7)}        # of ResNets
CIFAR = {"widths": (4, 6, 7)}


@dataclass(frozen=True)
class Case:
    """A net of the registry and its knobs; `twin`: the function of make_families.py that is the same in PyTorch."""

    twin: str
    model: str
    knobs: dict = field(default_factory=dict)

    def net(self, **common) -> Net:
        return build(self.model, num_classes=CLASSES, **self.knobs, **common)


CASES: dict[str, Case] = {
    "zfnet": Case("zfnet", "zfnet", {"input_size": 93, "kernels": (4, 6, 5, 7, 4), "fc": (9, 8)}),
    "zfnet-spp": Case("zfnet", "zfnet:spp", {"input_size": 127, "kernels": (4, 6, 5, 7, 4), "fc": (9, 8)}),
    "zfnet-onnx": Case("zfnet", "zfnet:onnx", {"input_size": 101, "kernels": (4, 6, 5, 7, 4), "fc": (9, 8)}),
    "vgg-c": Case("vgg", "vgg:c", {"input_size": 37, "blocks": VGG_C, "fc": 9}),
    "vgg-a-lrn": Case("vgg", "vgg:a-lrn", {"input_size": 33, "blocks": VGG_C, "fc": 9}),
    "vgg-a-bn": Case("vgg", "vgg:a-bn", {"input_size": 47, "blocks": VGG_C, "fc": 9}),
    "googlenet": Case("googlenet", "googlenet", {"input_size": 107, "width": 0.06, "aux_fc": 9}),
    "googlenet-torchvision": Case("googlenet", "googlenet:torchvision",
                                  {"input_size": 119, "width": 0.06, "aux_fc": 9}),
    "googlenet-naive": Case("googlenet", "googlenet:naive", {"input_size": 75, "width": 0.03, "aux": False}),
    "resnet18": Case("resnet", "resnet18", {"input_size": 51, **SMALL}),
    "resnet18-a": Case("resnet", "resnet18:a", {"input_size": 47, **SMALL, "widths": (4, 6, 8, 10),
                                                "zeros_around": True}),
    "resnet50": Case("resnet", "resnet50", {"input_size": 57, **SMALL}),
    "resnet50-v1.5": Case("resnet", "resnet50:v1.5", {"input_size": 45, **SMALL}),
    "resnet50-c": Case("resnet", "resnet50", {"input_size": 49, **SMALL, "shortcut": "c", "pool1_ceil": True}),
    "plain18": Case("resnet", "plain18", {"input_size": 43, **SMALL}),
    "resnet20": Case("cifar_resnet", "resnet20", {"input_size": 17, **CIFAR}),
    "plain20": Case("cifar_resnet", "plain20", {"input_size": 15, **CIFAR}),
    "squeezenet": Case("squeezenet", "squeezenet1_1", {"input_size": 69, "width": 0.1}),
    "mobilenet": Case("mobilenet", "mobilenet_v2", {"input_size": 65, "width": 0.25}),
}


def uniform(purpose: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float64 in [-0.5, 0.5), a function of the purpose only."""
    numbers = rng.uniforms(15, rng.purpose_id(purpose), 0, [0], int(np.prod(shape)))
    return numbers.reshape(shape).astype(np.float64) - 0.5


def images_and_labels(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """Images in about -2..2, and a label for each."""
    return 4 * uniform("images", (BATCH, *net.input_shape)), np.arange(BATCH) % CLASSES


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of a parameter or of state ("state/bn.mean"): activations keep their size; gammas and variances are near 1."""
    drawn = uniform(name, shape)
    if len(shape) > 1:
        return drawn * np.sqrt(24 / np.prod(shape[:-1]))                    # He's standard deviation
    return 1 + drawn if name.endswith(("_bn.w", ".var")) else drawn


def load(net: Net) -> Net:
    """The net with these weights and state."""
    net.load_arrays({name: weights(name, array.shape) for name, array in net.arrays().items()})
    return net


def ids() -> np.ndarray:
    """Sample ids of the images, for dropout."""
    return np.arange(7, 7 + BATCH, dtype=np.uint32)


def fingerprint(array: np.ndarray) -> np.ndarray:
    """Norm, projection onto a fixed direction, and some elements: what is stored of an array. Float64."""
    flat = np.asarray(array, np.float64).reshape(-1)
    direction = uniform("direction", flat.shape) * np.sqrt(12 / flat.size)
    some = flat[np.arange(min(SAMPLES, flat.size)) * 104729 % flat.size]
    return np.array([np.linalg.norm(flat), flat @ direction, *some])


def distance(array: np.ndarray, wanted: np.ndarray, least: float) -> float:
    """The largest difference of fingerprints, relative to the norm of the array; `least`: where that is less."""
    return float(np.abs(fingerprint(array) - wanted).max() / max(wanted[0], least))
