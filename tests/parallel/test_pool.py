"""Ranks that are threads share one pool of threads: nobody disturbs anybody, and nobody's bits."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.kernels.cpu import threads
from minicnn.parallel.threads import run_local


@pytest.fixture
def fresh_pool():
    """As in a process that has not computed yet; afterwards one thread again."""
    yield
    threads.set_threads(1)


def work(seed: int) -> list[np.ndarray]:
    """A convolution, its gradients, LRN and a fully connected layer, large enough to be cut into ranges."""
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
def test_several_ranks_at_once_compute_what_one_does(fresh_pool, count):
    threads.set_threads(count)
    alone = [work(seed) for seed in range(3)]
    together = run_local(3, lambda comm: [work(comm.rank) for _ in range(3)])
    for rank, rounds in enumerate(together):
        for arrays in rounds:
            for ours, theirs in zip(arrays, alone[rank], strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_the_first_to_come_makes_the_pool(fresh_pool, monkeypatch):
    """Several threads need it at the same moment; it is made once."""
    made, at_once = [], threading.Barrier(4)
    pool_of = threads.ThreadPoolExecutor
    monkeypatch.setattr(threads, "ThreadPoolExecutor", lambda *arguments: made.append(1) or pool_of(*arguments))
    monkeypatch.setattr(threads, "available_cores", lambda: 3)
    threads._after_fork()

    def come():
        at_once.wait()
        assert threads.threads() == 3
        done = []
        threads.run([(i,) for i in range(50)], done.append)
        assert sorted(done) == list(range(50))

    comers = [threading.Thread(target=come) for _ in range(4)]
    for comer in comers:
        comer.start()
    for comer in comers:
        comer.join(30)
    assert len(made) == 1
