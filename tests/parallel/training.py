"""Shared by the tests of this folder: training in one process and on ranks, and the distance of the results."""

from __future__ import annotations

import numpy as np

from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.sgd import SGD


def train(net, x, labels, steps: int, lr: float = 0.01) -> list[float]:
    """The losses of some steps with dropout; the batch is different in every step."""
    sgd, losses, count = SGD(net.params, lr), [], len(x)
    for step in range(steps):
        at = (np.arange(count) + step) % count
        rows = net.ranks.local_rows(count)
        ids = (at + 100 * step).astype(np.uint32)
        losses.append(net.loss(x[at][rows], labels[at][rows], sample_ids=ids[rows], epoch=0))
        net.backward()
        sgd.step(net.ops)
    return losses


def weights(net) -> dict[str, np.ndarray]:
    return net.ranks.gather({name: param.data.copy() for name, param in net.params.items()})


def train_on_ranks(make_net, scheme: str, size: int, x, labels, steps: int, **options) -> list[tuple]:
    """(losses, unsharded weights, logits for x) of every rank; the weights on rank 0."""
    def body(comm):
        net = SCHEMES[scheme](make_net(), comm)
        losses = train(net, x, labels, steps, **options)
        return losses, weights(net), net.ops.to_host(net.forward(x))
    return run_local(size, body, timeout=300)


def displacement(start: dict, one: dict, other: dict) -> float:
    """The largest relative distance of two displacements from `start`, over all layers.

    Weights and biases of a layer are taken together: the displacement of a bias alone may be too small to compare.
    """
    worst = 0.0
    for layer in {name.rpartition(".")[0] for name in start}:
        names = [name for name in start if name.rpartition(".")[0] == layer]
        a, b = (np.concatenate([(w[name].astype(np.float64) - start[name]).ravel() for name in names])
                for w in (one, other))
        if not np.array_equal(a, b):
            worst = max(worst, np.linalg.norm(a - b) / np.linalg.norm(b))
    return worst
