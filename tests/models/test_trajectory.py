"""Twenty training steps of the reduced AlexNet agree with PyTorch's (tests/vectors/make_trajectory.py).

The displacement w_20 - w_0 of every parameter tensor is compared, by relative distance: relative to w itself, the
error would be hidden by the common initial weights.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minicnn.models import reduced_alexnet
from minicnn.train.sgd import SGD
from tests.models import trajectory as run

GOLDEN = np.load(Path(__file__).parents[1] / "vectors" / "trajectory.npz")
CASES = [(67, "reference", "float64", 1e-9), (67, "cpu", "float32", 1e-3), (96, "cpu", "float64", 1e-9)]


@cache
def take_steps(size: int, device: str, dtype: str, **knobs) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses, and the displacement of every parameter in float64."""
    net = reduced_alexnet(num_classes=run.CLASSES, seed=0, device=device, dtype=dtype, input_size=size, **knobs)
    net.load_arrays({name: run.initial_value(name, param.data.shape) for name, param in net.params.items()})
    start = {name: param.data.copy() for name, param in net.params.items()}
    images, labels = run.images_and_labels(size)
    sgd = SGD(net.params, lr=run.LR, momentum=run.MOMENTUM, decay=run.DECAY)
    losses = []
    for step in range(run.STEPS):
        ids = run.batch(step)
        losses.append(net.loss(images[ids].astype(dtype), labels[ids], sample_ids=ids, epoch=step))
        net.backward()
        sgd.step(net.ops)
    return np.array(losses), {name: param.data.astype(np.float64) - start[name] for name, param in net.params.items()}


def distance(displacement: np.ndarray, size: int, name: str) -> float:
    """Distance of the sampled elements from PyTorch's, relative to these."""
    wanted = GOLDEN[f"{size}/{name}/sample"]
    return np.linalg.norm(run.sampled(displacement) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("size, device, dtype, tolerance", CASES)
def test_displacements_follow_pytorch(size, device, dtype, tolerance):
    _, displacements = take_steps(size, device, dtype)
    for name, displacement in displacements.items():
        error = distance(displacement, size, name)
        assert error < tolerance, f"{name}: the sampled displacement is {error:.1e} away"
        norm = GOLDEN[f"{size}/{name}/norm"]
        assert abs(np.linalg.norm(displacement) - norm) < tolerance * norm, f"{name}: the norm of the displacement"


@pytest.mark.parametrize("size, device, dtype, tolerance", CASES)
def test_losses_follow_pytorch(size, device, dtype, tolerance):
    losses, _ = take_steps(size, device, dtype)
    np.testing.assert_allclose(losses, GOLDEN[f"{size}/loss"], rtol=tolerance)


@pytest.mark.parametrize("knobs", [{"lrn_groups": 1}, {"lrn_divide_alpha": True}], ids=str)
def test_a_small_change_of_the_network_is_noticed(knobs):
    """Both only change the normalisation, whose effect is small for alpha = 1e-4."""
    _, displacements = take_steps(67, "cpu", "float64", **knobs)
    assert all(distance(displacements[name], 67, name) > 1e-6 for name in ("conv1.w", "conv2.w", "fc7.w"))


@pytest.mark.parametrize("size", run.SIZES)
def test_the_reference_run_learns(size):
    """Otherwise the comparison would be weak: the loss falls, and weight decay explains little of the displacement."""
    losses = GOLDEN[f"{size}/loss"]
    assert losses[-5:].mean() < 0.75 * losses[:5].mean()
    shape = (3, 3, 192, 384)
    decayed = run.DECAY * run.LR * run.STEPS / (1 - run.MOMENTUM) * np.linalg.norm(run.initial_value("conv4.w", shape))
    assert GOLDEN[f"{size}/conv4.w/norm"] > 5 * decayed
