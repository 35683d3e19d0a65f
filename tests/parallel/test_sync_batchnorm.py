"""Batch normalisation on several ranks: its own statistics on each, those of all, or its channels."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.init import Normal
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.sgd import SGD

STEPS = 4


def net(sync: bool, device: str = "reference"):
    """A residual block and a hidden layer, normalised."""
    b = Builder((6, 5, 3), name="normalised")
    b.conv("conv1", 4, 3, padding=1, init=Normal(0.3))
    b.layer("bn1", BatchNorm2d(4, sync=sync))
    start = b.relu("relu1")
    b.conv("conv2", 4, 3, padding=1, init=Normal(0.3))
    b.layer("bn2", BatchNorm2d(4, sync=sync, momentum=0.3))
    b.add("sum", ["bn2", start])
    b.relu("relu2")
    b.flatten("flat")
    b.linear("fc1", 8, init=Normal(0.1))
    b.layer("bn3", BatchNorm2d(8, sync=sync))
    b.relu("relu3")
    b.linear("fc2", 3, init=Normal(0.5))
    b.loss("loss")
    return b.net(device=device, dtype="float64")


def batch(count: int = 8):
    """Images whose brightness rises, so that ranks see different statistics."""
    generator = np.random.default_rng(3)
    x = generator.standard_normal((count, 6, 5, 3)) + np.linspace(-1, 2, count)[:, None, None, None]
    return x, generator.integers(0, 3, count)


def train(trained, steps: int = STEPS) -> list[float]:
    (x, labels), sgd, losses = batch(), SGD(trained.params, lr=0.1), []
    rows = trained.ranks.local_rows(len(x))
    for step in range(steps):
        losses.append(trained.loss(x[rows], labels[rows], sample_ids=np.arange(len(x))[rows], epoch=step))
        trained.backward()
        sgd.step(trained.ops)
    return losses


def on_ranks(scheme: str, size: int, sync: bool, device: str = "reference"):
    """Of every rank: losses, weights and state, own state, and the points at which something was exchanged."""
    def body(comm):
        own = SCHEMES[scheme](net(sync, device), comm)
        losses = train(own)
        points = {row["point"] for row in comm.ledger.rows()}
        return losses, own.ranks.gather(own.arrays()), {name: array.copy() for name, array in own.state.items()}, points

    return run_local(size, body)


def assert_equal_to_a_single_process(found) -> None:
    alone = net(sync=False)
    losses = train(alone)
    for rank in found:
        np.testing.assert_allclose(rank[0], losses, rtol=1e-9)
    for name, array in alone.arrays().items():
        np.testing.assert_allclose(found[0][1][name], array, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("size, device", [(2, "reference"), (4, "reference"), (2, "cpu")])
def test_synchronised_over_ranks_it_equals_a_single_process(size, device):
    found = on_ranks("data", size, True, device)
    assert_equal_to_a_single_process(found)
    assert {"bn1", "bn2", "bn3"} <= found[0][3]                                 # what is exchanged is in the ledger
    for rank in found[1:]:
        for name, array in rank[2].items():
            np.testing.assert_array_equal(array, found[0][2][name], err_msg=name)


def test_without_it_each_rank_normalises_its_own_images():
    """The loss is another one; running statistics are averaged over the ranks, and equal on all."""
    found = on_ranks("data", 2, False)
    losses = train(net(sync=False))
    assert abs(found[0][0][0] - losses[0]) > 1e-3
    assert not {"bn1", "bn2", "bn3"} & found[0][3]
    (x, _), running = batch(), {}
    for rank in found:
        np.testing.assert_array_equal(rank[2]["bn1.mean"], found[0][2]["bn1.mean"])
    own = net(sync=False)
    for rows in (slice(0, 4), slice(4, 8)):                                     # one step by hand
        twin = own.copy()
        twin.forward(x[rows], train=True)
        running = {name: running.get(name, 0) + array / 2 for name, array in twin.state.items()}

    def body(comm):
        first = SCHEMES["data"](net(False), comm)
        train(first, 1)
        return {name: array.copy() for name, array in first.state.items()}

    for state in run_local(2, body):
        for name, array in running.items():
            np.testing.assert_allclose(state[name], array, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("scheme, size", [("columns", 2), ("columns", 4)])
def test_a_rank_normalises_its_channels(scheme, size):
    """Statistics are those of all images, and nothing is exchanged for them."""
    found = on_ranks(scheme, size, False)
    assert_equal_to_a_single_process(found)
    assert not {"bn1", "bn2", "bn3"} & found[0][3]


def test_hybrid_synchronises_what_is_data_parallel_and_splits_the_rest():
    found = on_ranks("hybrid", 2, True)
    assert_equal_to_a_single_process(found)
    assert {"bn1", "bn2"} <= found[0][3] and "bn3" not in found[0][3]
