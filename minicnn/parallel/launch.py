"""Where ranks come from: threads of this process, or the processes that mpiexec has started."""

from __future__ import annotations

import os
from collections.abc import Callable

from minicnn.errors import ConfigError
from minicnn.parallel.comm import TIMEOUT
from minicnn.parallel.threads import run_local

RANKS = 2
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
    from minicnn.parallel.mpi import run_mpi

    return run_mpi(lambda comm: body(comm, prepare(_number(SIZES_HERE) or started)), timeout)


def _number(names: tuple[str, ...]) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)
