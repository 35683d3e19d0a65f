"""Numbers at the sizes that users run: every family at its full depth of channels, against float64.

Small shapes do not reach the branches of large ones: panels that are cut into pieces, Winograd's tiles, sums in chunks.
"""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.models.alexnet import alexnet
from minicnn.models.alexnet_variants import VARIANTS
from minicnn.models.cifar import cifar_18pct, cifar_paper

IMAGES = 4                  # so many that conv3 to conv5 have enough tiles for Winograd's algorithm, and no more
NETS = {f"alexnet:{variant}": (lambda variant=variant, **options: alexnet(variant, 10, fc=16, **options))
        for variant in VARIANTS} | {"cifar_18pct": cifar_18pct, "cifar_paper": cifar_paper}
QUICK = {"alexnet:paper", "cifar_18pct", "cifar_paper"}
FARTHEST = 2e-3             # of a gradient, in units of its norm; 6e-4 measured; a wrong branch is at 0.1 or more


def weights(make) -> dict[str, np.ndarray]:
    """Values at which activations keep their size from layer to layer, and gradients too."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(0, (2 / array[..., 0].size) ** 0.5 if array.ndim > 1 else 0.1, array.shape)
            for name, array in make(device="reference").arrays().items()}


def step(make, dtype: str, values: dict) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and all gradients for images like photographs minus their mean, with dropout."""
    net = make(device="cpu", dtype=dtype, values={name: array.astype(dtype) for name, array in values.items()})
    x = np.random.default_rng(5).normal(0, 60, (IMAGES, *net.input_shape)).astype("float32").astype(dtype)
    loss = net.loss(x, np.arange(IMAGES) % net.num_classes, sample_ids=np.arange(IMAGES), epoch=0)
    dx = net.backward(input_grad=True)
    return loss, {"x": dx, **{name: param.grad for name, param in net.params.items()}}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NETS])
def test_a_step_in_float32_is_that_in_float64(name):
    values = {key: array.astype("float32") for key, array in weights(NETS[name]).items()}
    (loss, gradients), (exact_loss, exact) = (step(NETS[name], dtype, values) for dtype in ("float32", "float64"))
    assert loss == pytest.approx(exact_loss, rel=1e-4)
    for key, gradient in gradients.items():
        norm = np.linalg.norm(exact[key])
        assert norm > 0 and np.linalg.norm(gradient - exact[key]) < FARTHEST * norm, key
