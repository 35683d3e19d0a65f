"""Ranks with arrays on GPUs: data must not be read before the stream has computed it; and tests on real GPUs.

Without a GPU, streams are simulated: work that a rank has enqueued runs when it is waited for, and not earlier.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from minicnn.backend.cuda import device as cuda_device
from minicnn.backend.interconnect import Interconnect
from minicnn.backend.select import get_ops
from minicnn.models.alexnet import reduced_alexnet
from minicnn.parallel.nccl import nccl_available
from minicnn.parallel.threads import run_local
from tests.cuda_emulator.device import is_emulated
from tests.helpers.graphs import images
from tests.parallel.test_mpi import MPIEXEC, ROOT, locally, mpiexec, needs_mpi, same_checkpoints
from tests.parallel.test_partition import compare


class Stream(threading.local):
    """The work enqueued by a thread."""

    def __init__(self):
        self.queue = []


class LazyInterconnect(Interconnect):
    """A simulated GPU that computes as late as possible."""

    def __init__(self):
        self.stream, self.threads, self.fetched = Stream(), [], 0

    def settle(self):
        self.threads.append(threading.current_thread().name)

    def enqueue(self, array, value):
        self.stream.queue.append(lambda: array.fill(value))

    def record_event(self):
        queue, self.stream.queue = self.stream.queue, []
        return queue

    def after(self, event):
        self.stream.queue += event

    def synchronize(self):
        for work in self.stream.queue:
            work()
        self.stream.queue = []

    def fetch(self, array):
        self.fetched += 1
        return array


def test_sent_arrays_are_computed():
    def body(comm):
        comm.use_interconnect(LazyInterconnect())
        x, y = np.zeros(5), np.zeros((2, 5))
        comm.interconnect.enqueue(x, comm.rank + 1)
        comm.all_gather(x, y)
        return y, comm.interconnect.fetched

    for y, fetched in run_local(2, body):
        assert y[:, 0].tolist() == [1, 2] and fetched == 1


def test_gradients_are_computed_before_they_are_summed_in_the_background():
    """The background thread waits for work enqueued before the all-reduce, and not for later work."""
    def body(comm):
        comm.use_interconnect(LazyInterconnect())
        gradient, other = np.zeros(7), np.zeros(7)
        comm.interconnect.enqueue(gradient, comm.rank + 1)
        pending = comm.start_all_reduce([gradient])
        comm.interconnect.enqueue(other, 5)
        comm.finish([pending])
        later = other.copy()
        comm.interconnect.synchronize()
        return gradient, later, other, comm.interconnect.threads

    for rank, (gradient, later, other, threads) in enumerate(run_local(2, body)):
        assert gradient.tolist() == [3] * 7 and not later.any() and other.all()
        assert len(threads) == 2 and threads[1].startswith(f"rank {rank}, background")


def test_on_the_host_these_are_no_operations():
    interconnect, x = get_ops("cpu").interconnect(1), np.arange(3.0)
    assert interconnect.gpu is None and interconnect.fetch(x) is x and interconnect.from_host(x) is x
    assert interconnect.is_on_host(x)
    interconnect.synchronize(), interconnect.after(interconnect.record_event())
    target = np.zeros(3)
    interconnect.to_host(x, target)
    assert target.tolist() == [0, 1, 2] and interconnect.memory(4).nbytes == 4


@pytest.fixture
def gpus():
    """The number of GPUs."""
    if reason := cuda_device.why_not():
        pytest.skip(reason)
    import cupy

    return cupy.cuda.runtime.getDeviceCount()


@pytest.mark.cuda
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_two_ranks_on_the_available_gpus(gpus, scheme):
    """On one GPU each rank has its own stream; with two, each has its own GPU."""
    count, steps, size = (4, 3, {"kernels": (8, 8, 8, 8, 8), "fc": 16}) if is_emulated(get_ops("cuda:fp32")) else (
        16, 20, {})

    def make():
        return reduced_alexnet(num_classes=6, device="cuda:fp32", **size)

    x, labels = images(make(), count)
    compare(make, scheme, 2, 50 * x.astype(np.float32), labels, steps, lr=0.001)


@pytest.mark.cuda
@needs_mpi
@pytest.mark.parametrize("scheme", ["columns", "data"])
def test_two_processes_on_the_available_gpus(gpus, tmp_path, scheme):
    """Through NCCL if each process has its own GPU; on one GPU through pinned memory."""
    settings = {"scheme": scheme, "device": "cuda:fp32"}
    code, text = mpiexec(tmp_path / "mpi", **settings)
    assert code == 0, text
    locally(tmp_path / "local", **settings)
    same_checkpoints(tmp_path / "mpi", tmp_path / "local")


@pytest.mark.cuda
@needs_mpi
def test_gpus_communicate_through_nccl(gpus):
    if gpus < 2 or not nccl_available():
        pytest.skip(f"needs two GPUs and NCCL; here {'is' if nccl_available() else 'is no'} NCCL, GPUs: {gpus}")
    program = ("from minicnn.backend.ops import get_ops; from minicnn.parallel.launch import run_mpi\n"
               "def body(comm):\n"
               "    ops = get_ops('cuda'); comm.use_interconnect(ops.interconnect(comm.local_rank))\n"
               "    assert comm._nccl is not None\n"
               "    import cupy; x = cupy.full(9, comm.rank + 1.0); comm.all_reduce([x]); assert (x == 3).all()\n"
               "run_mpi(body)")
    done = subprocess.run([MPIEXEC, "-n", "2", sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
