"""Starting ranks: as threads of this process, or as processes started by mpiexec."""

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
PRINT_DELAY = 1.0       # seconds by which other ranks delay their error message, so that rank 0 prints first
FLUSH_DELAY = 0.3       # seconds for mpiexec to forward output, which it drops when a rank aborts all processes
# environment variables set by mpiexec: MPICH and Intel MPI, Open MPI
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
NUMBERS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")


def started_ranks() -> int | None:
    """Number of processes started by mpiexec, including this one; None if mpiexec did not start this process."""
    return _number(SIZES)


def speaks() -> bool:
    """Whether this process may print what all would print: rank 0 of those that mpiexec has started, or the only one.
    """
    return not _number(NUMBERS)


def launch(ranks: int | None, prepare: Callable, body: Callable, timeout: float = TIMEOUT):
    """Run body(comm, ready) on every rank, where ready = prepare(local_size) is computed once per process.

    ranks: number of threads, by default 2; under mpiexec, the number of its processes.   local_size: number of ranks on
    this machine. Returns the result of this process's rank (with threads: of rank 0).
    """
    started = started_ranks()
    if started is None:
        ranks = RANKS if ranks is None else ranks
        if ranks < 1:
            raise ConfigError(f"the number of ranks must be at least 1, got {ranks}")
        ready = prepare(ranks)
        return run_local(ranks, lambda comm: body(comm, ready), timeout)[0]
    if ranks not in (None, started):
        raise ConfigError(f"mpiexec has started {started} ranks, but {ranks} were requested; give only one of the two")
    return run_mpi(lambda comm: body(comm, prepare(_number(LOCAL_SIZES) or started)), timeout)


def _number(names: tuple[str, ...]) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)


def run_mpi(body: Callable, timeout: float = TIMEOUT):
    """Run body(comm) in every process. The first failure is reported with its rank, and ends all processes.

    GPUs communicate through NCCL (nccl.py) if each rank has its own GPU and NCCL is installed.
    """
    comm = mpi_comm(timeout)
    try:
        names = comm.mpi.gather(f"rank {comm.rank} is process {os.getpid()} on {socket.gethostname()}")
        if comm.rank == 0:                                  # mpiexec reports a killed process by its PID
            print(f"{'ranks':13s}{'; '.join(names)}", file=sys.stderr, flush=True)
        result = body(comm)
        comm.close()
        comm.MPI.Finalize()                                 # no communication after this
        return result
    except BaseException as error:
        _stop(comm, error)
        raise


def mpi_comm(timeout: float = TIMEOUT) -> Comm:
    """An NcclComm if NCCL is installed in all processes (it falls back to host memory), else an MPIComm."""
    from minicnn.parallel.mpi import MPIComm
    from minicnn.parallel.nccl import NcclComm, nccl_available

    comm = MPIComm(timeout=timeout)
    return NcclComm(comm) if all(comm.mpi.allgather(nccl_available())) else comm


def _stop(comm: Comm, error: BaseException) -> None:
    """Report the error and abort all processes."""
    if isinstance(error, KeyboardInterrupt):
        text, code = "stopped", 130
    elif isinstance(error, MinicnnError):
        own = comm.rank > 0 and not isinstance(error, RankError)
        text, code = f"error: {f'rank {comm.rank} failed: ' if own else ''}{error}", 2
    else:
        traceback.print_exc()
        text, code = f"error: rank {comm.rank} failed: {type(error).__name__}: {error}", 1
    if comm.rank > 0:                                       # most errors occur on all ranks at once
        time.sleep(PRINT_DELAY)
    print(text, file=sys.stderr, flush=True)
    sys.stdout.flush()
    time.sleep(FLUSH_DELAY)
    comm.mpi.Abort(code)
    os._exit(code)                                          # Abort may return before this process ends
