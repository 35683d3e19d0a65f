"""Collective operations, and the errors when a rank fails."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minicnn.errors import ConfigError, MinicnnError
from minicnn.parallel import comm as comm_module
from minicnn.parallel.comm import RankError
from minicnn.parallel.threads import run_local
from tests.parallel.collectives import check_collectives


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_collectives(monkeypatch, size):
    monkeypatch.setattr(comm_module, "CHUNK", 7)            # so that arrays are split
    first, *others = run_local(size, check_collectives)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_broadcast_object_waits_for_rank_0():
    """Rank 0 may have to scan a large data set first: the timeout of the other ranks does not apply."""
    def body(comm):
        comm.timeout, comm.warmed_up = 0.2, True
        if comm.rank == 0:
            time.sleep(1)
        return comm.broadcast_object("found")[0], comm.current_timeout

    assert run_local(2, body) == [("found", 0.2)] * 2


def test_a_rank_that_fails_is_named_on_all_others():
    seen = {}

    def body(comm):
        try:
            if comm.rank == 1:
                raise MinicnnError("disk full")
            comm.barrier()
        except RankError as error:
            seen[comm.rank] = str(error)
            raise

    with pytest.raises(RankError, match="rank 1 failed: disk full"):
        run_local(3, body)
    assert seen.keys() == {0, 2} and all("rank 1 failed" in text for text in seen.values())


def test_a_bug_prints_its_traceback(capsys):
    def body(comm):
        if comm.rank == 1:
            raise ZeroDivisionError("1 / 0")
        comm.barrier()

    with pytest.raises(RankError, match="rank 1 failed: ZeroDivisionError"):
        run_local(2, body)
    assert "raise ZeroDivisionError" in capsys.readouterr().err


def test_a_rank_that_hangs_is_named():
    blocked = threading.Event()

    def body(comm):
        comm.barrier()
        comm.warmed_up = True
        if comm.rank == 1:
            blocked.wait(60)
        comm.barrier("conv3")

    began = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 hangs: rank [02] has waited 1.5 s for it at 'conv3"):
        run_local(3, body, timeout=1.5)
    assert time.monotonic() - began < 50
    blocked.set()


def test_rank_0_that_hangs_ends_the_process():
    """The other ranks cannot return to the caller: the process prints the error and exits."""
    program = """
import threading
from minicnn.parallel import threads
threads.EXIT_TIMEOUT = 0.5

def body(comm):
    comm.barrier()
    comm.warmed_up = True
    if comm.rank == 0:
        threading.Event().wait()
    comm.barrier("conv3")

threads.run_local(2, body, timeout=1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "error: rank 0 hangs: rank 1 has waited 1 s for it at 'conv3" in done.stderr


def test_a_first_step_may_take_longer():
    """Until the first step is complete, kernels may have to be compiled: that is not a hang."""
    def body(comm):
        if comm.rank == 1:
            time.sleep(0.3)
        comm.barrier()
        return comm.rank

    assert run_local(2, body, timeout=0.1) == [0, 1]


def test_ranks_that_disagree_are_named():
    def weights(comm):
        comm.check_equal({"the epoch": 3, "the weights": np.full(3, comm.rank == 2)})

    def place(comm):
        (comm.all_gather if comm.rank else comm.broadcast)(*([np.zeros(1), np.zeros((2, 1))][: 1 + comm.rank]))

    def shape(comm):
        comm.all_gather(np.zeros(3 + comm.rank), np.zeros((2, 3 + comm.rank)))

    with pytest.raises(RankError, match="rank 2 disagrees with rank 0 on the weights"):
        run_local(4, weights)
    with pytest.raises(RankError, match="rank [01] disagrees with rank [01]: it is at"):
        run_local(2, place)
    with pytest.raises(RankError, match=r"rank [01] disagrees .* arrays \[\([34],\)\], expected"):
        run_local(2, shape)


def test_the_first_error_in_the_background_is_raised():
    def body(comm):
        comm.finish([comm.start_all_reduce([np.zeros(3 + comm.rank)], "gradients")])

    with pytest.raises(RankError, match="disagrees"):
        run_local(2, body)


def test_impossible_numbers():
    with pytest.raises(ConfigError, match="at least 1"):
        run_local(0, print)
    with pytest.raises(ConfigError, match="must be positive"):
        run_local(2, print, timeout=-1.0)
