"""A complete AlexNet on the emulated GPU follows the reference in training: the .cu files, the launcher, the graph.

All layers of the paper's network, with fewer kernels in each so that one core can emulate a GPU: two groups, LRN in two
halves, overlapping pools, dropout, SGD. Images and initial weights are those of tests/models/trajectory.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.data.procedural import procedural_sets
from minicnn.models import reduced_alexnet
from minicnn.param import layer_of
from minicnn.train.sgd import SGD
from tests.cuda_emulator.device import emulated_ops, is_emulated
from tests.models import trajectory as run

STEPS = 5
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def take_steps(ops, dtype: str):
    """Losses and displacements."""
    net = reduced_alexnet(num_classes=run.CLASSES, device="reference", dtype=dtype, kernels=(16, 24, 32, 24, 16), fc=32)
    net.ops = ops
    net.load_arrays({name: run.initial_value(name, param.data.shape) for name, param in net.params.items()})
    start = {name: param.data.astype(np.float64) for name, param in net.params.items()}
    images, labels = run.images_and_labels(67)
    sgd, losses = SGD(net.params, lr=run.LR, momentum=run.MOMENTUM, decay=run.DECAY), []
    for step in range(STEPS):
        ids = run.batch(step)[:2]
        if hasattr(ops, "device"):
            ops.device.watch = step == 0                    # check every access in the first step; guard zones in all
        losses.append(net.loss(images[ids].astype(dtype), labels[ids], sample_ids=ids, epoch=step))
        net.backward()
        sgd.step(net.ops)
    return losses, {name: param.data.astype(np.float64) - start[name] for name, param in net.params.items()}


def needs_a_gpus_speed(device: str) -> None:
    """Skip what would take hours on the emulator."""
    if is_emulated(get_ops(device)):
        pytest.skip("all kernels of AlexNet for many steps: needs a GPU's speed")


@pytest.mark.cuda
def test_full_kernels_on_a_gpu_follow_the_reference():
    """For `make gpu-check`: the network of the reference trajectory, with all kernels, on CuPy's device."""
    needs_a_gpus_speed("cuda:fp32")
    images, labels = run.images_and_labels(67)
    moved = []
    for device, dtype in (("cuda:fp32", "float32"), ("reference", "float64")):
        net = reduced_alexnet(num_classes=run.CLASSES, device=device, dtype=dtype)
        net.load_arrays({name: run.initial_value(name, param.data.shape) for name, param in net.params.items()})
        moved.append(displacements(net, images, labels, map(run.batch, range(run.STEPS)), run.LR))
    compare(*moved)


@pytest.mark.parametrize(("device", "against"), [pytest.param("cuda:fp32", "cpu", marks=pytest.mark.cuda),
                                                 pytest.param("cpu", "reference", marks=pytest.mark.slow)])
def test_two_hundred_steps(device, against):
    """In float32 on both sides, at a learning rate that does not amplify rounding beyond the tolerance."""
    needs_a_gpus_speed(device)
    train = procedural_sets((64, 4, 4), seed=3, size=67)[0]
    x = np.stack([train.read(i) for i in range(64)]).astype(np.float32)
    compare(*(displacements(reduced_alexnet(num_classes=6, device=name), x - x.mean(axis=0), train.labels,
                            (np.arange(8 * step, 8 * step + 8) % 64 for step in range(200)), 0.001)
              for name in (device, against)))


def displacements(net, images, labels, batches, lr: float) -> dict:
    """The displacement of each parameter after steps on these batches (indices)."""
    start = {name: net.ops.to_host(param.data).copy() for name, param in net.params.items()}
    sgd = SGD(net.params, lr=lr, momentum=run.MOMENTUM, decay=run.DECAY)
    for step, ids in enumerate(batches):
        net.loss(images[ids].astype(net.dtype), labels[ids], sample_ids=ids, epoch=step)
        net.backward()
        sgd.step(net.ops)
    return {name: net.ops.to_host(param.data) - start[name] for name, param in net.params.items()}


def compare(moved: dict, wanted: dict) -> None:
    """Assert equal displacements, of the weights and biases of each layer together."""
    for layer in dict.fromkeys(map(layer_of, wanted)):
        a, b = (np.concatenate([arrays[name].ravel() for name in wanted if layer_of(name) == layer])
                for arrays in (moved, wanted))
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b), layer


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_alexnet_follows_the_reference(emulated, cuda_cache, dtype):
    losses, moved = take_steps(emulated_ops(cuda_cache), dtype)
    wanted_losses, wanted = take_steps(get_ops("reference"), "float64")
    np.testing.assert_allclose(losses, wanted_losses, rtol=TOLERANCE[dtype])
    for name in wanted:
        norm = np.linalg.norm(wanted[name])
        assert norm > 0, name
        assert np.linalg.norm(moved[name] - wanted[name]) <= TOLERANCE[dtype] * norm, name
