"""The CPU backend cuts work into tiles and ranges; the result must not depend on where, nor on the thread count."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.kernels.cpu import conv as cpu_conv
from minicnn.kernels.cpu import correlate, threads
from minicnn.system.cores import GIL_SWITCH_SECONDS
from tests.helpers.harness import compare, garbage
from tests.kernels.test_conv import LARGE, SMALL, Case


@pytest.fixture(params=[1, 2, 3])
def count(request):
    """This many threads, then as many as before."""
    before = threads.threads()
    threads.set_threads(request.param)
    yield request.param
    threads.set_threads(before)


@pytest.fixture
def restored():
    """Afterwards as many threads as before."""
    before = threads.threads()
    yield
    threads.set_threads(before)


@pytest.mark.parametrize("private", [0, 1 << 30])
@pytest.mark.parametrize("case", [*SMALL, *LARGE])
def test_convolution_in_tiny_tiles(monkeypatch, rng, count, case, private):
    """Chunks of one tile end in the middle of lines and images; dw is divided by panels, or by pixels."""
    monkeypatch.setattr(correlate, "CHUNK_TILES", (1, 1))
    monkeypatch.setattr(cpu_conv, "CHUNK_PIXELS", 5)
    monkeypatch.setattr(cpu_conv, "PRIVATE_BYTES", private)
    cpu_conv._weights_plan.cache_clear()
    c, ops = Case(rng, "float32", *(SMALL | LARGE)[case]), get_ops("cpu")
    c.compare(ops, work=None)
    c.compare(ops, work=c.work(ops))
    cpu_conv._weights_plan.cache_clear()


def test_ranges(rng, count):
    ops, shape = get_ops("cpu"), (3, 15, 13, 38)
    x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    lrn = {"n": 5, "k": 1.0, "alpha": 1.0, "beta": 0.75}
    compare(ops, "lrn_backward", x, dy, garbage(shape, x.dtype), writes=(2,), kind="elementwise", groups=2, **lrn)
    compare(ops, "lrn_within_backward", x, dy, garbage(shape, x.dtype), writes=(2,), kind="elementwise", **lrn)
    compare(ops, "epilogue_backward", dy, np.zeros(38, x.dtype), writes=(0, 1), kind="sum", terms=585, y=x)
    options = {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 0, 0)}
    y, argmax = garbage((3, 7, 6, 38), x.dtype), garbage((3, 7, 6, 38), np.uint8)
    y, argmax = compare(ops, "maxpool_forward", x, y, argmax, writes=(1, 2), kind="exact", **options)
    compare(ops, "maxpool_backward", y, argmax, garbage(shape, x.dtype), writes=(2,), kind="elementwise", **options)


def test_together(rng, count):
    """Several updates together, small and large: the same bits; a nested one ends with the outer one."""
    ops, shapes = get_ops("cpu"), [(3,), (7, 11, 13), (1200, 900)]
    apart, joined = ([[rng.standard_normal(shape).astype(np.float32) for _ in range(3)] for shape in shapes]
                     for _ in range(2))
    for ours, theirs in zip(apart, joined, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            other[...] = mine
    for arrays in apart:
        ops.sgd_step(*arrays, lr=0.1, momentum=0.9, decay=0.01)
    with ops.together(), ops.together():
        for arrays in joined:
            ops.sgd_step(*arrays, lr=0.1, momentum=0.9, decay=0.01)
    for ours, theirs in zip(apart, joined, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.tobytes() == other.tobytes()
    with pytest.raises(ZeroDivisionError), ops.together():
        raise ZeroDivisionError
    ops.relu_forward(joined[0][0], joined[0][1])            # not deferred any more
    assert (joined[0][1] == np.maximum(joined[0][0], 0)).all()


def test_the_gil_switch_interval_is_short(monkeypatch):
    """Where there are several threads; an interval that is already shorter is kept."""
    intervals, before = [], threads.threads()
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    for known in (5e-3, 1e-6):
        monkeypatch.setattr(sys, "getswitchinterval", lambda known=known: known)
        for count in (1, 2):
            threads.set_threads(count)
    threads.set_threads(before)
    assert intervals[:2] == [GIL_SWITCH_SECONDS, 1e-6]


def test_a_change_of_threads_between_two_calls(rng):
    """What is planned for one number of threads is not used for another."""
    before, ops = threads.threads(), get_ops("cpu")
    c = Case(rng, "float32", *LARGE["conv2 of AlexNet"])
    try:
        for count in (1, 3, 2):
            threads.set_threads(count)
            c.compare(ops, work=None)
    finally:
        threads.set_threads(before)


def test_a_pool_that_takes_no_work_is_done_without(monkeypatch, restored):
    """Another thread may be changing the number of threads; nothing is left half collected."""
    class ShutDown:
        def submit(self, *arguments):
            raise RuntimeError("cannot schedule new futures after shutdown")

        def shutdown(self, wait):
            pass

    threads.set_threads(2)
    monkeypatch.setattr(threads, "_pool", ShutDown())
    a = np.zeros(1 << 20, np.float32)
    for _ in range(2):
        with threads.together():
            threads.parallel_for(a.size, 1, lambda first, last: np.add(a[first:last], 1, out=a[first:last]))
    threads.run(threads.split(a.size, 8), lambda first, last: np.add(a[first:last], 1, out=a[first:last]))
    assert (a == 3).all()


def test_threads_may_be_set_while_others_compute(restored):
    """Two threads collect work, a third one changes the pool: nothing hangs, and all is computed."""
    arrays, stop = [np.zeros(1 << 16, np.float32) for _ in range(2)], threading.Event()

    def work(a):
        while not stop.is_set():
            with threads.together():
                threads.parallel_for(a.size, 1, lambda first, last: np.add(a[first:last], 1, out=a[first:last]))

    workers = [threading.Thread(target=work, args=(a,), daemon=True) for a in arrays]
    for worker in workers:
        worker.start()
    for count in [1, 3, 2] * 30:
        threads.set_threads(count)
    stop.set()
    for worker, a in zip(workers, arrays, strict=True):
        worker.join(20)
        assert not worker.is_alive() and a[0] > 0 and (a == a[0]).all()


def test_after_an_exception_nothing_is_written(restored):
    """Whoever handles it may use the arrays."""
    threads.set_threads(3)
    done, slow = [], threading.Event()

    def body(first, last):
        if first == 0:
            raise ValueError("a kernel that fails")
        slow.wait(0.05)
        done.append(first)

    with pytest.raises(ValueError, match="a kernel that fails"), threads.together():
        threads.parallel_for(3 * threads.TOGETHER, 1, body)
    count = len(done)
    slow.wait(0.2)
    assert len(done) == count
