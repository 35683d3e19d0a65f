"""After the first steps, training takes no memory: every array has its place, and the system is asked for no page."""

from __future__ import annotations

import gc
import resource
import tracemalloc

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.data.augment import Augment
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch
from minicnn.data.preprocess import Preprocess
from minicnn.train.sgd import SGD

BATCH, SIZE = 32, 40
STEPS = 8


def make_net():
    """Every kind of layer that training is done with, and a few megabytes of arrays."""
    b = Builder((32, 32, 3), name="some size")
    b.conv("conv1", 24, 5, stride=1)
    b.relu()
    b.lrn("norm1", groups=2)
    b.maxpool("pool1", 3, stride=2)
    b.conv("conv2", 32, 3, padding=1, groups=2)
    b.relu()
    b.conv("conv3", 32, 3, padding=1, bias=False)
    b.tanh()
    b.avgpool("pool3", 3, stride=2)
    b.flatten()
    b.linear("fc4", 256)
    b.relu()
    b.dropout("drop4")
    b.linear("fc5", 10, bias=False)
    b.loss()
    return b.net(device="cpu")


@pytest.fixture
def step():
    """A function that does one step: images cut and shifted, forward, backward, update."""
    rng, net = np.random.default_rng(0), make_net()
    pipeline = InputPipeline(net, Preprocess(size=SIZE, crop=32), np.zeros((SIZE, SIZE, 3)),
                             augment=Augment(colour="paper"), pca=(np.ones(3), np.eye(3)))
    batch = Batch(rng.integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8),
                  rng.integers(0, 10, BATCH).astype(np.int32), np.arange(BATCH, dtype=np.uint32), np.arange(BATCH))
    sgd = SGD(net.params, lr=1e-4)

    def one_step():
        net.loss(pipeline.train(batch, 0), batch.labels, sample_ids=batch.sample_ids, epoch=0)
        net.backward()
        sgd.step(net.ops)

    for _ in range(3):                                      # the arena, gradients and velocities; compiling
        one_step()
    return one_step


@pytest.fixture
def tracing():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def of_arrays(snapshot) -> int:
    """Bytes of array data among what is traced."""
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(trace.size for trace in snapshot.filter_traces([domain]).traces)


def taken(step) -> tuple[int, int, int]:
    """The bytes that every step takes for a while; and of several steps what is left, of everything and of array data.

    Of several steps the least counts: on a busy machine, tasks of the thread pool pile up to 12 to 90 kB at times.
    """
    for _ in range(2):
        step()
    gc.collect()
    arrays, everything = of_arrays(tracemalloc.take_snapshot()), tracemalloc.get_traced_memory()[0]
    peaks = []
    for _ in range(STEPS):
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        step()
        peaks.append(tracemalloc.get_traced_memory()[1] - start)
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - everything
    return min(peaks), left, of_arrays(tracemalloc.take_snapshot()) - arrays


def test_no_array_is_made(step, tracing):
    """Python's own small objects come and go. A few kilobytes of them seem to be left (6 were seen): those that were
    made before the tracing began are used up."""
    peak, left, of_arrays_left = taken(step)
    assert peak < 32 << 10 and left < 16 << 10 and of_arrays_left <= 0


def test_an_array_would_be_seen(step, tracing):
    kept = []
    peak, left, of_arrays_left = taken(lambda: (kept.append(np.zeros(100)), np.zeros(5000), step()))
    assert peak > 32 << 10 and left > 0 and of_arrays_left == STEPS * 800


def test_no_page_is_asked_for(step):
    """The arrays of this net are a few thousand pages; a step that gave memory back would ask for them again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        step()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 8 * STEPS
