"""Ranks that are threads share one thread pool, and their results do not depend on each other."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.kernels.cpu import threads
from minicnn.parallel.threads import run_local


@pytest.fixture
def fresh_pool():
    """Restores a pool of one thread after the test."""
    yield
    threads.set_threads(1)


def work(seed: int) -> list[np.ndarray]:
    """A convolution, its gradients, LRN and a fully connected layer, large enough to be split into ranges."""
    rng, ops = np.random.default_rng(seed), get_ops("cpu")
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 20, 20, 32), (3, 3, 32, 48)))
    options = {"stride": (1, 1), "pads": (1, 1, 1, 1)}
    y, dx, dw, z = np.empty((4, 20, 20, 48), np.float32), np.empty_like(x), np.zeros_like(w), np.empty_like(x)
    ops.conv_forward(x, w, y, **options)
    ops.conv_backward_weights(x, y, dw, **options)
    ops.conv_backward_data(y, w, dx, **options)
    ops.lrn_forward(x, z, n=5, k=2.0, alpha=1e-2, beta=0.75)
    v = rng.standard_normal((20 * 20 * 48, 64)).astype(np.float32)
    out = np.empty((4, 64), np.float32)
    ops.linear_forward(y.reshape(4, -1), v, out)
    return [y, dx, dw, z, out]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_concurrent_ranks_compute_the_same_as_one(fresh_pool, count):
    threads.set_threads(count)
    alone = [work(seed) for seed in range(3)]
    together = run_local(3, lambda comm: [work(comm.rank) for _ in range(3)])
    for rank, rounds in enumerate(together):
        for arrays in rounds:
            for ours, theirs in zip(arrays, alone[rank], strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_the_pool_is_created_once(fresh_pool, monkeypatch):
    """Even if several threads need it at the same time."""
    made, barrier = [], threading.Barrier(4)
    pool_of = threads.ThreadPoolExecutor
    monkeypatch.setattr(threads, "ThreadPoolExecutor", lambda *arguments: made.append(1) or pool_of(*arguments))
    monkeypatch.setattr(threads, "available_cores", lambda: 3)
    threads._after_fork()

    def call():
        barrier.wait()
        assert threads.threads() == 3
        done = []
        threads.run([(i,) for i in range(50)], done.append)
        assert sorted(done) == list(range(50))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(made) == 1
