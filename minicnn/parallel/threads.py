"""Ranks as threads of one process: no launcher and no copies, since a thread can read another's arrays in place.

NumPy and the compiled kernels let go of the interpreter's lock, so the ranks do compute at the same time. With GPUs,
each rank takes the next one, or shares the only one, and works on a stream of its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from minicnn.cores import set_gil_switch_interval
from minicnn.errors import ConfigError, MinicnnError
from minicnn.parallel.comm import TIMEOUT, Comm, RankError

LINES = ("main", "side")
GRACE = 30.0            # seconds that rank 0 has to notice that another rank has failed


class World:
    """What the threads share: for each line the newest exchange of every rank, and the first failure."""

    def __init__(self, size: int):
        self.size = size
        self.changed = threading.Condition()
        self.begun = {line: [0] * size for line in LINES}      # number of the newest exchange that a rank has come to
        self.done = {line: [0] * size for line in LINES}       # ... and has read all it needed in
        self.where = {line: ["the start"] * size for line in LINES}
        self.given: dict[str, list] = {line: [None] * size for line in LINES}
        self.failure: tuple[int, BaseException] | None = None
        self.end = threading.Timer(GRACE, self.give_up)
        self.end.daemon = True

    def fail(self, rank: int, error: BaseException) -> None:
        """Note the first failure and wake all who wait."""
        with self.changed:
            if self.failure is None:
                self.failure = (rank, error)
                if rank:
                    self.end.start()
            self.changed.notify_all()

    def give_up(self) -> None:
        """End the process: rank 0, which it would return to, has not looked up for GRACE seconds after a failure."""
        try:
            self.complain()
        except RankError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)

    def wait(self, rank: int, peer: int, line: str, counts: list[int], number: int, patience: float) -> None:
        """Until counts[peer] has reached `number`; call with `changed` held."""
        end = time.monotonic() + patience
        while counts[peer] < number:
            if self.failure is not None:
                self.complain()
            left = end - time.monotonic()
            if left <= 0:
                last = self.where[line][peer]
                raise RankError(f"rank {peer} hangs: rank {rank} has waited {patience:g} s for it at "
                                f"{self.where[line][rank]!r}, and it was last seen at {last!r}; if it is only slow, "
                                "allow more with --comm-timeout")
            self.changed.wait(left)

    def complain(self) -> None:
        """Raise a RankError that names the rank that failed first."""
        rank, error = self.failure
        if isinstance(error, RankError):
            raise RankError(str(error)) from error
        text = str(error) if isinstance(error, MinicnnError) else f"{type(error).__name__}: {error}"
        raise RankError(f"rank {rank} failed: {text}") from error


class LocalComm(Comm):
    """One of the threads."""

    def __init__(self, world: World, rank: int, timeout: float = TIMEOUT, line: str = "main", ledger=None):
        super().__init__(rank, world.size, timeout, ledger)
        self.world, self.line = world, line

    def _second(self):
        return LocalComm(self.world, self.rank, self.timeout, "side", self.ledger)

    def _exchange(self, where, sends, receives, consume):
        world, line, rank, waited = self.world, self.line, self.rank, 0.0
        self.interconnect.synchronize()                                 # what I give is computed
        with world.changed:
            if world.failure is not None:
                world.complain()
            number = world.begun[line][rank] = world.begun[line][rank] + 1
            world.where[line][rank], world.given[line][rank] = where, sends
            world.changed.notify_all()
        for peer in range(self.size):
            if peer == rank:
                consume(peer, sends[peer])
            elif receives[peer]:
                began = time.perf_counter()
                with world.changed:
                    world.wait(rank, peer, line, world.begun[line], number, self.patience)
                waited += time.perf_counter() - began
                pieces = world.given[line][peer][rank]
                self._check(where, peer, world.where[line][peer], pieces, receives[peer])
                consume(peer, [self.interconnect.fetch(piece) for piece in pieces])
        self.interconnect.synchronize()                                 # and what I was given is read
        began = time.perf_counter()
        with world.changed:
            world.done[line][rank] = number
            world.changed.notify_all()
            for peer in range(self.size):
                if peer != rank and sends[peer]:                    # it may still be reading what I gave it
                    world.wait(rank, peer, line, world.done[line], number, self.patience)
        return waited + time.perf_counter() - began

    def _check(self, where, peer, there, pieces, expected) -> None:
        if there != where:
            raise RankError(f"rank {peer} disagrees with rank {self.rank}: it is at {there!r}, where rank {self.rank} "
                            f"is at {where!r}; every rank must run the same program on the same data")
        shapes = [tuple(piece.shape) for piece in pieces]
        if shapes != [tuple(target.shape) for target in expected]:
            raise RankError(f"rank {peer} disagrees with rank {self.rank} at {where!r}: it hands over arrays {shapes}, "
                            f"expected {[tuple(target.shape) for target in expected]}")


def run_local(size: int, body: Callable, timeout: float = TIMEOUT) -> list:
    """body(comm) on `size` threads, the calling one being rank 0; what each returned, in order of the ranks.

    The first failure stops all: RankError with the rank's name, from the error itself.
    """
    if size < 1:
        raise ConfigError(f"the number of ranks must be at least 1, got {size}")
    world, results = World(size), [None] * size
    comms = [LocalComm(world, rank, timeout) for rank in range(size)]

    def work(rank: int) -> None:
        try:
            results[rank] = body(comms[rank])
        except BaseException as error:
            if not isinstance(error, (MinicnnError, KeyboardInterrupt)):
                traceback.print_exc()                       # a bug: its place must not be lost
            world.fail(rank, error)
        finally:
            comms[rank].close()

    # daemons, so that a rank that hangs for ever does not keep the process alive
    threads = [threading.Thread(target=work, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(1, size)]
    set_gil_switch_interval()
    for thread in threads:
        thread.start()
    work(0)
    _end(threads, world, timeout)
    world.end.cancel()
    if world.failure is not None:
        if isinstance(world.failure[1], KeyboardInterrupt):
            raise world.failure[1]
        world.complain()
    return results


def _end(threads: list[threading.Thread], world: World, timeout: float) -> None:
    """Wait for the other ranks, as long as they may still end by themselves."""
    for thread in threads:
        end = time.monotonic() + timeout
        while thread.is_alive() and world.failure is None and time.monotonic() < end:
            thread.join(0.1)
        if thread.is_alive():
            if world.failure is None:
                world.fail(0, RankError(f"{thread.name} hangs: it has not ended {timeout:g} s after rank 0 had"))
            thread.join(1.0)                                # those that wait for others give up at once
