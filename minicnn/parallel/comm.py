"""Collective operations.

A rank is one of `size` threads of this process, or processes under mpiexec, which run the same program on their part of
the work. All collectives are built on one operation, which the communication backend provides:

    exchange    an all-to-all: every rank sends arrays to every other rank and receives theirs, in rank order

Every sum is computed by one rank, in rank order. So results are deterministic: with the same number of ranks they are
bit-identical, whatever the backend and the timing. Failures are also detected in exchanges: if a rank has failed, does
not arrive within `timeout` seconds, or is at another point of the program, all other ranks raise a RankError with its
number.
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

TIMEOUT = 60.0                  # seconds that a rank waits for another
FIRST_STEP_TIMEOUT = 600.0      # at least this before the first step is complete: kernels may have to be compiled
SAVE_TIMEOUT = 600.0            # at least this while rank 0 writes a checkpoint, perhaps to a slow disk
SCAN_TIMEOUT = 7 * 86400.0      # at least this while rank 0 scans a data set
CHUNK = 4 << 20                 # elements that are summed at once, to limit the size of buffers


class RankError(MinicnnError):
    """A rank has failed, hangs, or has values that differ from the others; the message names the rank."""


class Comm:
    """The communicator of one rank.

    rank, size: 0 .. size-1, and the number of ranks.   timeout: seconds to wait for another rank.   ledger: statistics.
    local_size: number of ranks on this machine.   local_rank: the index of this one among them.   interconnect: moves
    backend arrays between ranks (`use_interconnect`).
    """

    def __init__(self, rank: int, size: int, timeout: float = TIMEOUT, ledger: Ledger | None = None):
        if not timeout > 0:
            raise ConfigError(f"the timeout for other ranks must be positive, got {timeout} s")
        self.rank, self.size, self.timeout = rank, size, timeout
        self.ledger = ledger or Ledger(rank, size)
        self.local_size, self.local_rank, self.interconnect = size, rank, Interconnect()
        self.warmed_up = False                              # True after the first step
        self._min_timeout = 0.0
        self._background: Comm | None = None
        self._worker: ThreadPoolExecutor | None = None

    def __deepcopy__(self, memo) -> Comm:
        """Copies of a layer keep the same communicator."""
        return self

    def use_interconnect(self, interconnect: Interconnect, in_background: bool = False) -> None:
        """Communicate arrays of this backend from now on; must be called by the thread of the rank.

        in_background: whether `start_all_reduce` does nearly all of the communication.
        """
        self.close()
        self.interconnect, self._background = interconnect, None
        interconnect.settle()

    @property
    def current_timeout(self) -> float:
        """Seconds to wait for another rank at this point."""
        return max(self.timeout if self.warmed_up else max(self.timeout, FIRST_STEP_TIMEOUT), self._min_timeout)

    @contextlib.contextmanager
    def min_timeout(self, seconds: float) -> Iterator[None]:
        """Context manager: wait at least this long for other ranks."""
        before, self._min_timeout = self._min_timeout, seconds
        try:
            yield
        finally:
            self._min_timeout = before

    # ---- provided by the communication backend
    def _exchange(self, where: str, sends: list[list], receives: list[list], consume: Callable) -> float:
        """See `exchange`; returns the seconds spent waiting for other ranks."""
        raise TypeError(f"{type(self).__name__} does not define _exchange")

    def _background_group(self) -> Comm:
        """A second process group of the same ranks, whose messages are separate from those of this one."""
        raise TypeError(f"{type(self).__name__} does not define _background_group")

    # ---- collectives
    def exchange(self, point: str, direction: str, sends: list[list], receives: list[list], consume: Callable) -> None:
        """Send sends[p] to every rank p; for p = 0, 1, ... call consume(p, pieces) with the arrays received from p.

        sends[p], receives[p]: lists of arrays; receives[p] gives the shapes of the pieces from rank p. The rank's own
        pieces are included, in order. After the call the sent arrays may be overwritten.   point, direction: labels for
        the ledger and for messages.
        """
        began = time.perf_counter()
        waited = self._exchange(f"{point} {direction}", sends, receives, consume)
        seconds = time.perf_counter() - began
        sent, received = (sum(array.nbytes for p, arrays in enumerate(lists) if p != self.rank for array in arrays)
                          for lists in (sends, receives))
        self.ledger.record(point, direction, sent, received, seconds, waited)

    def all_gather(self, x, y, point: str = "all_gather", direction: str = "forward") -> None:
        """y (size, ...) = x of every rank, in rank order."""
        self.exchange(point, direction, [[x]] * self.size, [[y[p]] for p in range(self.size)],
                      lambda p, pieces: _copy([y[p]], pieces))

    def reduce_scatter(self, x, y, point: str = "reduce_scatter", direction: str = "backward") -> None:
        """y = sum over the ranks of x[rank], where x is (size, ...); summed in rank order."""
        self.exchange(point, direction, [[x[p]] for p in range(self.size)], [[y]] * self.size,
                      lambda p, pieces: _copy([y], pieces) if p == 0 else _add([y], pieces))

    def all_reduce(self, arrays: Sequence, point: str = "all_reduce", direction: str = "backward") -> None:
        """Sum each array over the ranks, in place: every rank reduces one part (own term first) and sends it to all."""
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
        """`all_reduce` in a background thread; `finish` waits for it. The arrays must not be used until then."""
        if self._worker is None:
            self._background = self._background_group()
            self._background.interconnect = self.interconnect
            self._worker = ThreadPoolExecutor(1, f"rank {self.rank}, background", self.interconnect.settle)
        self._background.warmed_up, ready = self.warmed_up, self.interconnect.record_event()

        def reduce():
            self.interconnect.after(ready)                      # on a GPU, the gradients may not be computed yet
            self._background.all_reduce(arrays, point)
            self.interconnect.synchronize()

        return self._worker.submit(reduce)

    def finish(self, pending: Sequence[Future], point: str = "all_reduce") -> None:
        """Wait for pending `start_all_reduce` operations; the first error is raised here."""
        began = time.perf_counter()
        for future in pending:
            future.result()
        self.ledger.record_exposed(point, "backward", time.perf_counter() - began)

    def broadcast(self, x, root: int = 0, point: str = "broadcast", direction: str = "forward") -> None:
        """Copy x of rank `root` to every rank, in place."""
        peers = range(self.size)
        self.exchange(point, direction, [[x] if self.rank == root != p else [] for p in peers],
                      [[x] if p == root != self.rank else [] for p in peers],
                      lambda p, pieces: _copy([x], pieces) if pieces else None)

    def barrier(self, point: str = "barrier") -> None:
        """Wait for all ranks."""
        self.all_gather_values([0.0], point)

    def all_gather_values(self, values: Sequence[float], point: str = "numbers") -> np.ndarray:
        """(size, n) float64: the n values of every rank."""
        x = np.asarray(values, np.float64)
        y = np.empty((self.size, *x.shape))
        self.all_gather(x, y, point, "")
        return y

    def broadcast_object(self, what=None, arrays: dict[str, np.ndarray] | None = None) -> tuple:
        """Rank 0's JSON-serialisable object and arrays by name, on every rank.

        The other ranks wait without a practical limit, since rank 0 may have to scan a data set first.
        """
        arrays = arrays or {}
        forms = [[name, str(array.dtype), array.shape] for name, array in arrays.items()]
        text = json.dumps([what, forms]).encode() if self.rank == 0 else b""
        with self.min_timeout(SCAN_TIMEOUT):
            length = int(self.all_gather_values([len(text)], "broadcast_object")[0, 0])
        data = np.frombuffer(text, np.uint8).copy() if self.rank == 0 else np.empty(length, np.uint8)
        self.broadcast(data, 0, "broadcast_object", "")
        what, forms = json.loads(data.tobytes())
        received = {}
        for name, dtype, shape in forms:
            received[name] = np.ascontiguousarray(arrays[name]) if self.rank == 0 else np.empty(shape, dtype)
            self.broadcast(received[name], 0, "broadcast_object", "")
        return what, received

    def check_equal(self, values: dict) -> None:
        """RankError unless all ranks have the same values (numbers, strings, arrays); names the ranks that differ."""
        sums = self.all_gather_values([float(_checksum(value)) for value in values.values()], "agreement")
        for (what, value), column in zip(values.items(), sums.T.tolist(), strict=True):
            if len(set(column)) > 1:
                usual = max(column, key=lambda checksum: (column.count(checksum), -column.index(checksum)))
                odd = [rank for rank, checksum in enumerate(column) if checksum != usual]
                mine = "" if isinstance(value, np.ndarray) or len(str(value)) > 40 else f" (rank {self.rank}: {value})"
                raise RankError(f"{_named(odd)} {'disagrees' if len(odd) == 1 else 'disagree'} with rank "
                                f"{column.index(usual)} on {what}{mine}; start every rank with the same settings, data "
                                "and checkpoint")

    def close(self) -> None:
        """Stop the background thread."""
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
    """The flattened arrays in groups of at most about CHUNK elements; larger arrays are split."""
    groups, room = [[]], CHUNK
    for array in arrays:
        flat = array.reshape(-1)
        for first in range(0, len(flat), CHUNK):
            part = flat[first:first + CHUNK]
            if len(part) > room and groups[-1]:
                groups.append([])
                room = CHUNK
            groups[-1].append(part)
            room -= len(part)
    return [group for group in groups if group]


def _part(flat, rank: int, size: int):
    """The part of a flat array that one rank reduces."""
    return flat[len(flat) * rank // size:len(flat) * (rank + 1) // size]
