"""What ranks can do together.

A rank is one of `size` equals that run the same program on their own part of the work (threads of this process, or
processes under mpiexec). Everything here rests on one operation that an engine provides:

    exchange    every rank hands some arrays to every other, and gets theirs, in the order of the ranks

and every sum is formed by one rank, in one order. So results do not depend on the engine, on timing or on luck: the
same number of ranks gives the same bits. An exchange is also where trouble shows: a rank that has failed, does not come
within `timeout` seconds, or is somewhere else in its program is named in a RankError, on all the others.
"""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from minicnn.backend.interconnect import Interconnect
from minicnn.errors import ConfigError, MinicnnError
from minicnn.parallel.ledger import Ledger

TIMEOUT = 60.0          # seconds a rank waits for another
FIRST_STEP = 600.0      # at least so many before the first step is through: kernels may have to be compiled
SAVING = 600.0          # and while rank 0 writes a checkpoint: the disk may be a slow one
LONG = 7 * 86400.0      # for rank 0 while it looks through a data set
PIECE = 4 << 20         # elements that are summed at once, so that buffers stay small


class RankError(MinicnnError):
    """A rank has failed, hangs, or disagrees with the others; the message names it."""


class Comm:
    """The ranks, as seen by one of them.

    rank, size: 0 .. size-1, and how many.   timeout: seconds to wait for another rank.   ledger: what has crossed.
    neighbours: how many of the ranks share this machine.   place: this one's number among them.   interconnect: how the
    arrays of the ranks' backend pass between them (`work_with`).
    """

    def __init__(self, rank: int, size: int, timeout: float = TIMEOUT, ledger: Ledger | None = None):
        if not timeout > 0:
            raise ConfigError(f"the time to wait for another rank must be positive, not {timeout} s")
        self.rank, self.size, self.timeout = rank, size, timeout
        self.ledger = ledger or Ledger(rank, size)
        self.neighbours, self.place, self.interconnect = size, rank, Interconnect()
        self.steady = False                                 # True once a step is through
        self._least_patience = 0.0
        self._side: Comm | None = None
        self._worker: ThreadPoolExecutor | None = None

    def __deepcopy__(self, memo) -> Comm:
        """A rank is what it is: copies of a layer that holds it speak for the same one."""
        return self

    def work_with(self, interconnect: Interconnect, in_background: bool = False) -> None:
        """Arrays are such ones from here on; to be called by the thread that the rank runs in.

        in_background: whether it is `start_all_reduce` that moves nearly all of them.
        """
        self.close()
        self.interconnect, self._side = interconnect, None
        interconnect.settle()

    @property
    def patience(self) -> float:
        """Seconds to wait for another rank now."""
        return max(self.timeout if self.steady else max(self.timeout, FIRST_STEP), self._least_patience)

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Inside, this rank waits at least so long for the others."""
        before, self._least_patience = self._least_patience, seconds
        try:
            yield
        finally:
            self._least_patience = before

    # ---- to be provided by an engine
    def _exchange(self, where: str, sends: list[list], receives: list[list], consume: Callable) -> float:
        """See `exchange`; returns the seconds spent waiting for others."""
        raise TypeError(f"{type(self).__name__} does not define _exchange")

    def _second(self) -> Comm:
        """The same ranks on a second line, whose messages do not mix with those of this one."""
        raise TypeError(f"{type(self).__name__} does not define _second")

    # ---- what ranks do
    def exchange(self, point: str, direction: str, sends: list[list], receives: list[list], consume: Callable) -> None:
        """Hand sends[p] to every rank p; for p = 0, 1, ... call consume(p, pieces) with what p handed over.

        sends[p], receives[p]: arrays; receives[p] has the shapes in which p's pieces come. The rank's own pieces come
        in their turn. On return the arrays sent may be written to again.   point, direction: for ledger and messages.
        """
        began = time.perf_counter()
        waited = self._exchange(f"{point} {direction}", sends, receives, consume)
        seconds = time.perf_counter() - began
        sent, received = (sum(array.nbytes for p, arrays in enumerate(lists) if p != self.rank for array in arrays)
                          for lists in (sends, receives))
        self.ledger.note(point, direction, sent, received, seconds, waited)

    def all_gather(self, x, y, point: str = "all_gather", direction: str = "forward") -> None:
        """y (size, ...) = x of every rank, in the order of the ranks."""
        self.exchange(point, direction, [[x]] * self.size, [[y[p]] for p in range(self.size)],
                      lambda p, pieces: _copy([y[p]], pieces))

    def reduce_scatter(self, x, y, point: str = "reduce_scatter", direction: str = "backward") -> None:
        """y = sum over the ranks of x[rank], where x is (size, ...); summed in the order of the ranks."""
        self.exchange(point, direction, [[x[p]] for p in range(self.size)], [[y]] * self.size,
                      lambda p, pieces: _copy([y], pieces) if p == 0 else _add([y], pieces))

    def all_reduce(self, arrays: Sequence, point: str = "all_reduce", direction: str = "backward") -> None:
        """Each array becomes its sum over the ranks: every rank sums a part, its own first, and hands it to all."""
        for group in _groups(arrays):
            parts = [[_part(a, p, self.size) for a in group] for p in range(self.size)]
            own = parts[self.rank]
            self.exchange(point, direction, [[] if p == self.rank else parts[p] for p in range(self.size)],
                          [[] if p == self.rank else own for p in range(self.size)],
                          lambda p, pieces, own=own: _add(own, pieces) if p != self.rank else None)
            self.exchange(point, direction, [[] if p == self.rank else own for p in range(self.size)],
                          [[] if p == self.rank else parts[p] for p in range(self.size)],
                          lambda p, pieces, parts=parts: _copy(parts[p], pieces) if p != self.rank else None)

    def start_all_reduce(self, arrays: Sequence, point: str = "all_reduce") -> Future:
        """`all_reduce` in the background; `finish` waits for it. The arrays must be left alone until then."""
        if self._worker is None:
            self._side = self._second()
            self._side.interconnect = self.interconnect
            self._worker = ThreadPoolExecutor(1, f"rank {self.rank}, background", self.interconnect.settle)
        self._side.steady, ready = self.steady, self.interconnect.record_event()

        def reduce():
            self.interconnect.after(ready)                      # on a GPU, the gradients may still be being computed
            self._side.all_reduce(arrays, point)
            self.interconnect.synchronize()

        return self._worker.submit(reduce)

    def finish(self, pending: Sequence[Future], point: str = "all_reduce") -> None:
        """Wait for what `start_all_reduce` has begun; its first error is raised here."""
        began = time.perf_counter()
        for future in pending:
            future.result()
        self.ledger.exposed(point, "backward", time.perf_counter() - began)

    def broadcast(self, x, root: int = 0, point: str = "broadcast", direction: str = "forward") -> None:
        """x of rank `root` on every rank, in place."""
        peers = range(self.size)
        self.exchange(point, direction, [[x] if self.rank == root != p else [] for p in peers],
                      [[x] if p == root != self.rank else [] for p in peers],
                      lambda p, pieces: _copy([x], pieces) if pieces else None)

    def barrier(self, point: str = "barrier") -> None:
        """Wait until every rank has come here."""
        self.numbers([0.0], point)

    def numbers(self, values: Sequence[float], point: str = "numbers") -> np.ndarray:
        """(size, n) float64: the n values of every rank."""
        x = np.asarray(values, np.float64)
        y = np.empty((self.size, *x.shape))
        self.all_gather(x, y, point, "")
        return y

    def broadcast_object(self, what=None, arrays: dict[str, np.ndarray] | None = None) -> tuple:
        """What rank 0 says, on every rank: anything that JSON can hold, and arrays by name.

        The others wait as long as it takes, since it may have to look at a million images first.
        """
        arrays = arrays or {}
        forms = [[name, str(array.dtype), array.shape] for name, array in arrays.items()]
        text = json.dumps([what, forms]).encode() if self.rank == 0 else b""
        with self.patient(LONG):
            length = int(self.numbers([len(text)], "broadcast_object")[0, 0])
        letters = np.frombuffer(text, np.uint8).copy() if self.rank == 0 else np.empty(length, np.uint8)
        self.broadcast(letters, 0, "broadcast_object", "")
        what, forms = json.loads(letters.tobytes())
        told = {}
        for name, dtype, shape in forms:
            told[name] = np.ascontiguousarray(arrays[name]) if self.rank == 0 else np.empty(shape, dtype)
            self.broadcast(told[name], 0, "broadcast_object", "")
        return what, told

    def check_equal(self, values: dict) -> None:
        """RankError naming the odd one out where the ranks do not hold the same values (numbers, texts, arrays)."""
        sums = self.numbers([float(_checksum(value)) for value in values.values()], "agreement")
        for (what, value), column in zip(values.items(), sums.T.tolist(), strict=True):
            if len(set(column)) > 1:
                usual = max(column, key=lambda checksum: (column.count(checksum), -column.index(checksum)))
                odd = [rank for rank, checksum in enumerate(column) if checksum != usual]
                mine = "" if isinstance(value, np.ndarray) or len(str(value)) > 40 else f" (rank {self.rank}: {value})"
                raise RankError(f"{_named(odd)} {'disagrees' if len(odd) == 1 else 'disagree'} with rank "
                                f"{column.index(usual)} on {what}{mine}; start every rank with the same settings, data "
                                "and checkpoint")

    def close(self) -> None:
        """End the background thread."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def _checksum(value) -> int:
    data = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else str(value).encode()
    return zlib.crc32(data)


def _copy(targets: Sequence, pieces: Sequence) -> None:
    for target, piece in zip(targets, pieces, strict=True):
        target[...] = piece


def _add(targets: Sequence, pieces: Sequence) -> None:
    for target, piece in zip(targets, pieces, strict=True):
        target += piece


def _groups(arrays: Sequence) -> list[list]:
    """The arrays, flat, in groups of about PIECE elements; a larger array is cut."""
    groups, room = [[]], PIECE
    for array in arrays:
        flat = array.reshape(-1)
        for first in range(0, len(flat), PIECE):
            part = flat[first:first + PIECE]
            if len(part) > room and groups[-1]:
                groups.append([])
                room = PIECE
            groups[-1].append(part)
            room -= len(part)
    return [group for group in groups if group]


def _part(flat, rank: int, size: int):
    """The part of a flat array that one rank sums."""
    return flat[len(flat) * rank // size:len(flat) * (rank + 1) // size]
