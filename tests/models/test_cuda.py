"""A whole AlexNet trains on the emulated GPU and goes where the reference goes: the .cu files, the launcher, the graph.

All layers of the paper's network, with fewer kernels in each so that one core can play a GPU: two groups, LRN in two
halves, overlapping pools, dropout, SGD. The golden run's images and starting weights (tests/models/trajectory.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.ops import get_ops
from minicnn.models import reduced_alexnet
from minicnn.train.sgd import SGD
from tests.cuda_emulator.device import emulated_ops
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
            ops.device.watch = step == 0                    # every access of the first step; guard zones in all
        losses.append(net.loss(images[ids].astype(dtype), labels[ids], sample_ids=ids, epoch=step))
        net.backward()
        sgd.step(net.ops)
    return losses, {name: param.data.astype(np.float64) - start[name] for name, param in net.params.items()}


@pytest.mark.parametrize(("device", "against", "steps"), [
    pytest.param("cuda:fp32", "reference", run.STEPS, marks=pytest.mark.cuda),
    pytest.param("cuda:fp32", "cpu", 200, marks=pytest.mark.cuda),
    pytest.param("cpu", "reference", 200, marks=pytest.mark.slow)])
def test_full_kernels_go_the_same_way(device, against, steps):
    """For `make gpu-check`, on CuPy's device: the golden run's network, all of its kernels, in float32."""
    nets = [reduced_alexnet(num_classes=run.CLASSES, device=name, dtype="float64" if name == "reference" else "float32")
            for name in (device, against)]
    images, labels = run.images_and_labels(67)
    moved = []
    for net in nets:
        net.load_arrays({name: run.initial_value(name, param.data.shape) for name, param in net.params.items()})
        sgd = SGD(net.params, lr=run.LR, momentum=run.MOMENTUM, decay=run.DECAY)
        for step in range(steps):
            ids = run.batch(step)
            net.loss(images[ids].astype(net.dtype), labels[ids], sample_ids=ids, epoch=step)
            net.backward()
            sgd.step(net.ops)
        moved.append({name: net.ops.to_host(param.data) - run.initial_value(name, param.data.shape).astype(net.dtype)
                      for name, param in net.params.items()})
    for name, wanted in moved[1].items():
        assert np.linalg.norm(moved[0][name] - wanted) <= 1e-3 * np.linalg.norm(wanted), name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_alexnet_follows_the_reference(emulated, cuda_cache, dtype):
    losses, moved = take_steps(emulated_ops(cuda_cache), dtype)
    wanted_losses, wanted = take_steps(get_ops("reference"), "float64")
    np.testing.assert_allclose(losses, wanted_losses, rtol=TOLERANCE[dtype])
    for name in wanted:
        norm = np.linalg.norm(wanted[name])
        assert norm > 0, name
        assert np.linalg.norm(moved[name] - wanted[name]) <= TOLERANCE[dtype] * norm, name
