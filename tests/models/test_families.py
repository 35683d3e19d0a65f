"""A training step of a reduced net of every family equals PyTorch's (tests/vectors/make_families.py): the loss, the
logits, every gradient, the running statistics, and the prediction with these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models import families
from tests.models.families import CASES, distance

GOLDEN = np.load(Path(__file__).parents[1] / "vectors" / "families.npz")
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
LEAST = 1e-2        # of the largest gradient; that of a bias before a normalisation is 0, and rounding errors here


def take_step(net) -> dict[str, np.ndarray]:
    """What make_families.py stores, as arrays."""
    families.load(net)
    dtype, host = net.dtype, net.ops.to_host
    images, labels = families.images_and_labels(net)
    images = images.astype(dtype)
    loss = net.loss(images, labels, sample_ids=families.ids(), epoch=families.EPOCH)
    found = {"loss": loss, "logits": host(net.logits), "images": host(net.backward(input_grad=True))}
    found |= {name: host(param.grad).copy() for name, param in net.params.items()}
    found |= {f"state/{name}": host(array).copy() for name, array in net.state.items()}
    return found | {"prediction": host(net(images))}


def check(case: str, found: dict[str, np.ndarray], tolerance: float) -> None:
    wanted = {key.partition("/")[2]: GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{case}/")}
    assert found.keys() == wanted.keys()
    assert found.pop("loss") == pytest.approx(float(wanted["loss"]), rel=tolerance)
    largest = max(wanted[name][0] for name in found if name.endswith((".w", ".b")) and "/" not in name)
    away = {name: distance(array, wanted[name], LEAST * largest) for name, array in found.items()}
    worst = max(away, key=away.get)
    assert away[worst] < tolerance, f"{worst} is {away[worst]:.1e} away"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("device", "dtype"), [("reference", "float64"), ("cpu", "float32")])
def test_a_step_equals_pytorchs(case, device, dtype):
    check(case, take_step(CASES[case].net(device=device, dtype=dtype)), TOLERANCE[dtype])


@pytest.mark.parametrize("case", [
    "resnet18-a", "squeezenet", "mobilenet",
    *(pytest.param(case, marks=pytest.mark.slow) for case in ("zfnet-spp", "googlenet-torchvision"))])
def test_a_step_on_the_emulated_gpu_equals_pytorchs(case, emulated):
    net = CASES[case].net(device="reference", dtype="float64")
    net.ops = emulated
    check(case, take_step(net), TOLERANCE["float64"])


@pytest.mark.parametrize(("case", "change"), [
    ("zfnet", {"lrn_alpha": 1.1e-4}), ("zfnet-spp", {"levels": (6, 3, 1, 2)}), ("vgg-a-lrn", {"lrn": False}),
    ("googlenet", {"aux_weight": 0.31}), ("googlenet", {"lrn": False}), ("resnet18-a", {"zeros_around": False}),
    ("resnet50", {"stride_3x3": True}), ("resnet50-c", {"pool1_ceil": False}), ("mobilenet", {"dropout": 0.21})])
def test_a_small_change_of_the_network_is_noticed(case, change):
    """None of them changes a shape of the parameters."""
    net = replace(CASES[case], knobs=CASES[case].knobs | change).net(device="reference", dtype="float64")
    with pytest.raises(AssertionError):
        check(case, take_step(net), 1e-6)
