"""Ranks whose arrays are on GPUs: what a stream has not computed yet must not be read; and the same on real GPUs.

Without a GPU, streams are played: work that a rank has asked for is done when somebody waits for it, and no earlier.
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
from minicnn.parallel.nccl import nccl_is_there
from minicnn.parallel.threads import run_local
from tests.helpers.graphs import images
from tests.parallel.test_mpi import MPIEXEC, ROOT, locally, mpiexec, needs_mpi, same_checkpoints
from tests.parallel.test_partition import compare


class Stream(threading.local):
    """A thread's: work that was asked for."""

    def __init__(self):
        self.asked = []


class Late(Interconnect):
    """A GPU that computes as late as it may."""

    def __init__(self):
        self.stream, self.threads, self.fetched = Stream(), [], 0

    def settle(self):
        self.threads.append(threading.current_thread().name)

    def ask(self, array, value):
        self.stream.asked.append(lambda: array.fill(value))

    def record_event(self):
        asked, self.stream.asked = self.stream.asked, []
        return asked

    def after(self, event):
        self.stream.asked += event

    def synchronize(self):
        for work in self.stream.asked:
            work()
        self.stream.asked = []

    def fetch(self, array):
        self.fetched += 1
        return array


def test_what_is_handed_over_is_computed():
    def body(comm):
        comm.work_with(Late())
        x, y = np.zeros(5), np.zeros((2, 5))
        comm.interconnect.ask(x, comm.rank + 1)
        comm.all_gather(x, y)
        return y, comm.interconnect.fetched

    for y, fetched in run_local(2, body):
        assert y[:, 0].tolist() == [1, 2] and fetched == 1


def test_gradients_are_computed_before_they_are_summed_in_the_background():
    """The thread in the background waits for what the rank had asked for, and for no more."""
    def body(comm):
        comm.work_with(Late())
        gradient, other = np.zeros(7), np.zeros(7)
        comm.interconnect.ask(gradient, comm.rank + 1)
        pending = comm.start_all_reduce([gradient])
        comm.interconnect.ask(other, 5)
        comm.finish([pending])
        later = other.copy()
        comm.interconnect.synchronize()
        return gradient, later, other, comm.interconnect.threads

    for rank, (gradient, later, other, threads) in enumerate(run_local(2, body)):
        assert gradient.tolist() == [3] * 7 and not later.any() and other.all()
        assert len(threads) == 2 and threads[1].startswith(f"rank {rank}, background")


def test_the_host_needs_nothing_of_this():
    interconnect, x = get_ops("cpu").interconnect(1), np.arange(3.0)
    assert interconnect.gpu is None and interconnect.fetch(x) is x and interconnect.from_host(x) is x
    assert interconnect.is_on_host(x)
    interconnect.synchronize(), interconnect.after(interconnect.record_event())
    target = np.zeros(3)
    interconnect.to_host(x, target)
    assert target.tolist() == [0, 1, 2] and interconnect.memory(4).nbytes == 4


@pytest.fixture
def gpus():
    """How many GPUs there are."""
    if reason := cuda_device.why_not():
        pytest.skip(reason)
    import cupy

    return cupy.cuda.runtime.getDeviceCount()


@pytest.mark.cuda
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_two_ranks_on_the_gpus_there_are(gpus, scheme):
    """On one GPU both ranks have a stream of their own; with two, each has its own GPU."""
    def make():
        return reduced_alexnet(num_classes=6, device="cuda:fp32")

    x, labels = images(make(), 16)
    compare(make, scheme, 2, 50 * x.astype(np.float32), labels, 20, lr=0.001)


@pytest.mark.cuda
@needs_mpi
@pytest.mark.parametrize("scheme", ["columns", "data"])
def test_two_processes_on_the_gpus_there_are(gpus, tmp_path, scheme):
    """By NCCL where each process has a GPU of its own; on one GPU through pinned memory."""
    settings = {"scheme": scheme, "device": "cuda:fp32"}
    code, text = mpiexec(tmp_path / "mpi", **settings)
    assert code == 0, text
    locally(tmp_path / "local", **settings)
    same_checkpoints(tmp_path / "mpi", tmp_path / "local")


@pytest.mark.cuda
@needs_mpi
def test_gpus_speak_by_nccl(gpus):
    if gpus < 2 or not nccl_is_there():
        pytest.skip(f"needs two GPUs and NCCL; here {'is' if nccl_is_there() else 'is no'} NCCL, GPUs: {gpus}")
    program = ("from minicnn.backend.ops import get_ops; from minicnn.parallel.launch import run_mpi\n"
               "def body(comm):\n"
               "    ops = get_ops('cuda'); comm.work_with(ops.interconnect(comm.place))\n"
               "    assert comm._nccl is not None\n"
               "    import cupy; x = cupy.full(9, comm.rank + 1.0); comm.all_reduce([x]); assert (x == 3).all()\n"
               "run_mpi(body)")
    done = subprocess.run([MPIEXEC, "-n", "2", sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
