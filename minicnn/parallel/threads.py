"""Ranks as threads of one process: no launcher and no copies, since threads can read each other's arrays.

NumPy and the compiled kernels release the GIL, so the ranks compute in parallel. With GPUs, each rank uses the next
GPU, or all share a single one, each on its own stream.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from minicnn.errors import ConfigError, MinicnnError
from minicnn.parallel.comm import TIMEOUT, Comm, RankError
from minicnn.system.cores import set_gil_switch_interval

GROUPS = ("main", "background")
EXIT_TIMEOUT = 30.0         # seconds after another rank's failure until rank 0 must have responded


class SharedState:
    """State shared by the threads: per process group the latest exchange of every rank, and the first failure."""

    def __init__(self, size: int):
        self.size = size
        self.changed = threading.Condition()
        self.begun = {group: [0] * size for group in GROUPS}      # latest exchange that each rank has reached
        self.done = {group: [0] * size for group in GROUPS}       # latest exchange that each rank has completed
        self.where = {group: ["the start"] * size for group in GROUPS}
        self.sent: dict[str, list] = {group: [None] * size for group in GROUPS}
        self.failure: tuple[int, BaseException] | None = None
        self.end = threading.Timer(EXIT_TIMEOUT, self.terminate)
        self.end.daemon = True

    def fail(self, rank: int, error: BaseException) -> None:
        """Store the first failure and wake all waiting ranks."""
        with self.changed:
            if self.failure is None:
                self.failure = (rank, error)
                if rank:
                    self.end.start()
            self.changed.notify_all()

    def terminate(self) -> None:
        """Exit the process: the main thread, rank 0, has not responded for EXIT_TIMEOUT seconds after a failure."""
        try:
            self.raise_failure()
        except RankError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)

    def wait(self, rank: int, peer: int, group: str, counts: list[int], number: int, timeout: float) -> None:
        """Wait until counts[peer] reaches `number`; call with `changed` held."""
        end = time.monotonic() + timeout
        while counts[peer] < number:
            if self.failure is not None:
                self.raise_failure()
            left = end - time.monotonic()
            if left <= 0:
                last = self.where[group][peer]
                raise RankError(f"rank {peer} hangs: rank {rank} has waited {timeout:g} s for it at "
                                f"{self.where[group][rank]!r}, and it was last seen at {last!r}; if it is only slow, "
                                "increase --comm-timeout")
            self.changed.wait(left)

    def raise_failure(self) -> None:
        """Raise a RankError that names the rank that failed first."""
        rank, error = self.failure
        if isinstance(error, RankError):
            raise RankError(str(error)) from error
        text = str(error) if isinstance(error, MinicnnError) else f"{type(error).__name__}: {error}"
        raise RankError(f"rank {rank} failed: {text}") from error


class ThreadComm(Comm):
    """The communicator of one thread."""

    def __init__(self, shared: SharedState, rank: int, timeout: float = TIMEOUT, group: str = "main", ledger=None):
        super().__init__(rank, shared.size, timeout, ledger)
        self.shared, self.group = shared, group

    def _background_group(self):
        return ThreadComm(self.shared, self.rank, self.timeout, "background", self.ledger)

    def _exchange(self, where, sends, receives, consume):
        shared, group, rank, waited = self.shared, self.group, self.rank, 0.0
        self.interconnect.synchronize()                                 # the arrays sent are computed
        with shared.changed:
            if shared.failure is not None:
                shared.raise_failure()
            number = shared.begun[group][rank] = shared.begun[group][rank] + 1
            shared.where[group][rank], shared.sent[group][rank] = where, sends
            shared.changed.notify_all()
        for peer in range(self.size):
            if peer == rank:
                consume(peer, sends[peer])
            elif receives[peer]:
                began = time.perf_counter()
                with shared.changed:
                    shared.wait(rank, peer, group, shared.begun[group], number, self.current_timeout)
                waited += time.perf_counter() - began
                pieces = shared.sent[group][peer][rank]
                self._check(where, peer, shared.where[group][peer], pieces, receives[peer])
                consume(peer, [self.interconnect.fetch(piece) for piece in pieces])
        self.interconnect.synchronize()                                 # the arrays received are read
        began = time.perf_counter()
        with shared.changed:
            shared.done[group][rank] = number
            shared.changed.notify_all()
            for peer in range(self.size):
                if peer != rank and sends[peer]:                    # it may still be reading the arrays sent
                    shared.wait(rank, peer, group, shared.done[group], number, self.current_timeout)
        return waited + time.perf_counter() - began

    def _check(self, where, peer, there, pieces, expected) -> None:
        if there != where:
            raise RankError(f"rank {peer} disagrees with rank {self.rank}: it is at {there!r}, where rank {self.rank} "
                            f"is at {where!r}; every rank must run the same program on the same data")
        shapes = [tuple(piece.shape) for piece in pieces]
        if shapes != [tuple(target.shape) for target in expected]:
            raise RankError(f"rank {peer} disagrees with rank {self.rank} at {where!r}: it sends arrays {shapes}, "
                            f"expected {[tuple(target.shape) for target in expected]}")


def run_local(size: int, body: Callable, timeout: float = TIMEOUT) -> list:
    """Run body(comm) on `size` threads, rank 0 in the calling thread; returns the results in rank order.

    The first failure stops all ranks: a RankError that names the rank, chained to the original error.
    """
    if size < 1:
        raise ConfigError(f"the number of ranks must be at least 1, got {size}")
    shared, results = SharedState(size), [None] * size
    comms = [ThreadComm(shared, rank, timeout) for rank in range(size)]

    def work(rank: int) -> None:
        try:
            results[rank] = body(comms[rank])
        except BaseException as error:
            if not isinstance(error, (MinicnnError, KeyboardInterrupt)):
                traceback.print_exc()                       # a bug: keep its traceback
            shared.fail(rank, error)
        finally:
            comms[rank].close()

    # daemon threads, so that a hanging rank does not keep the process alive
    threads = [threading.Thread(target=work, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(1, size)]
    set_gil_switch_interval()
    for thread in threads:
        thread.start()
    work(0)
    _end(threads, shared, timeout)
    shared.end.cancel()
    if shared.failure is not None:
        if isinstance(shared.failure[1], KeyboardInterrupt):
            raise shared.failure[1]
        shared.raise_failure()
    return results


def _end(threads: list[threading.Thread], shared: SharedState, timeout: float) -> None:
    """Wait for the other ranks to end, up to the timeout."""
    for thread in threads:
        end = time.monotonic() + timeout
        while thread.is_alive() and shared.failure is None and time.monotonic() < end:
            thread.join(0.1)
        if thread.is_alive():
            if shared.failure is None:
                shared.fail(0, RankError(f"{thread.name} hangs: it has not ended {timeout:g} s after rank 0 had"))
            thread.join(1.0)                                # waiting ranks raise at once
