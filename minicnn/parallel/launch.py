"""Where ranks come from: threads of this process, or the processes that mpiexec has started."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable

from minicnn.errors import ConfigError, MinicnnError
from minicnn.parallel.comm import TIMEOUT, Comm, RankError
from minicnn.parallel.threads import run_local

RANKS = 2
COURTESY = 1.0          # seconds that other ranks leave rank 0 to say what is wrong
PASSED_ON = 0.3         # seconds for mpiexec to print what was said, which it drops when a rank ends all of them
# what mpiexec leaves in the environment: MPICH and Intel MPI, Open MPI
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
SIZES_HERE = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")


def started_ranks() -> int | None:
    """How many processes mpiexec has started, this one included; None where it was not mpiexec that started it."""
    return _number(SIZES)


def launch(ranks: int | None, prepare: Callable, body: Callable, timeout: float = TIMEOUT):
    """body(comm, ready) on every rank, where ready = prepare(neighbours) is made once in every process.

    ranks: how many threads, 2 if None; processes of mpiexec come in the number that it has started. neighbours: how
    many ranks are on this machine. Returns what the rank of this process (with threads: rank 0) returned.
    """
    started = started_ranks()
    if started is None:
        ranks = RANKS if ranks is None else ranks
        if ranks < 1:
            raise ConfigError(f"the number of ranks must be at least 1, got {ranks}")
        ready = prepare(ranks)
        return run_local(ranks, lambda comm: body(comm, ready), timeout)[0]
    if ranks not in (None, started):
        raise ConfigError(f"mpiexec has started {started} ranks, but {ranks} were asked for; leave one of the two out")
    return run_mpi(lambda comm: body(comm, prepare(_number(SIZES_HERE) or started)), timeout)


def _number(names: tuple[str, ...]) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)


def run_mpi(body: Callable, timeout: float = TIMEOUT):
    """body(comm) on every process. The first failure is said, with the rank's name, and ends all of them.

    GPUs speak to each other by NCCL (nccl.py) where each rank has one of its own and NCCL is installed.
    """
    comm = comm_for_gpus(timeout)
    try:
        names = comm.mpi.gather(f"rank {comm.rank} is process {os.getpid()} on {socket.gethostname()}")
        if comm.rank == 0:                                  # mpiexec names a process that was killed by its number
            print(f"{'ranks':13s}{'; '.join(names)}", file=sys.stderr, flush=True)
        result = body(comm)
        comm.close()
        comm.MPI.Finalize()                                 # whoever has more to do is alone from here on
        return result
    except BaseException as error:
        _stop(comm, error)
        raise


def comm_for_gpus(timeout: float = TIMEOUT) -> Comm:
    """An NcclComm where NCCL is installed in all processes; it goes through host memory where it must."""
    from minicnn.parallel.mpi import MPIComm
    from minicnn.parallel.nccl import NcclComm, nccl_is_there

    comm = MPIComm(timeout=timeout)
    return NcclComm(comm) if all(comm.mpi.allgather(nccl_is_there())) else comm


def _stop(comm: Comm, error: BaseException) -> None:
    """Say what happened, and end all processes."""
    if isinstance(error, KeyboardInterrupt):
        text, code = "stopped", 130
    elif isinstance(error, MinicnnError):
        own = comm.rank > 0 and not isinstance(error, RankError)
        text, code = f"error: {f'rank {comm.rank} failed: ' if own else ''}{error}", 2
    else:
        traceback.print_exc()
        text, code = f"error: rank {comm.rank} failed: {type(error).__name__}: {error}", 1
    if comm.rank > 0:                                       # most mistakes are made by all ranks at once
        time.sleep(COURTESY)
    print(text, file=sys.stderr, flush=True)
    sys.stdout.flush()
    time.sleep(PASSED_ON)
    comm.mpi.Abort(code)
    os._exit(code)                                          # Abort may return before this process is ended
