"""After the first steps, training takes no memory: every array has its place, and the system is asked for no page."""

from __future__ import annotations

import gc
import itertools
import resource
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.data.augment import Augment
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch
from minicnn.data.preprocess import Preprocess
from minicnn.train.sgd import SGD
from tests.helpers.array_memory import array_memory

BATCH, SIZE = 32, 40
STEPS = 8
SMALL = 8 << 10                                             # bytes; the smallest activations are 32 x 10 floats


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


def peaks(step) -> list[int]:
    """The most bytes of array data that each of several steps holds at once, beyond what was there before."""
    found = []
    for _ in range(STEPS):
        with array_memory() as memory:
            step()
        found.append(memory.peak)
    return found


def left(step) -> tuple[int, int]:
    """The bytes that several steps leave behind, of everything and of array data.

    Before, as many as use up most of Python's own objects that were made before the tracing began, in whatever ran in
    this process; a leak does not end.
    """
    for _ in range(4 * STEPS):
        step()
    gc.collect()
    arrays, everything = of_arrays(tracemalloc.take_snapshot()), tracemalloc.get_traced_memory()[0]
    for _ in range(STEPS):
        step()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - everything, of_arrays(tracemalloc.take_snapshot()) - arrays


def test_no_array_is_made(step):
    """But some of a batch's size: crops, colours, random numbers."""
    assert max(peaks(step)) < SMALL


def test_an_array_would_be_seen(step):
    """Also one that is made in every second step only, one that is freed at once, and one of another thread."""
    count = itertools.count()
    found = peaks(lambda: (np.zeros(SMALL, np.uint8).sum() if next(count) % 2 else None, step()))
    assert [peak >= SMALL for peak in found] == [False, True] * (STEPS // 2)
    with ThreadPoolExecutor(1) as pool:
        assert min(peaks(lambda: (pool.submit(np.zeros, SMALL, np.uint8).result(), step()))) >= SMALL


def test_nothing_is_left(step, tracing):
    """A few kilobytes of Python's own objects seem to be left (3 were seen)."""
    everything, of_arrays_left = left(step)
    assert everything < 16 << 10 and of_arrays_left <= 0


def test_an_array_that_is_left_would_be_seen(step, tracing):
    kept = []
    assert left(lambda: (kept.append(np.zeros(100)), step()))[1] == STEPS * 800


def test_no_page_is_asked_for(step):
    """The arrays of this net are a few thousand pages; a step that gave memory back would ask for them again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        step()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 8 * STEPS
