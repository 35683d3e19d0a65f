"""Ranks as processes that mpiexec has started: `pip install .[mpi]`, then `mpiexec -n 2 python ...`.

Ranks first greet each other and then send, so that waiting for someone can be told from moving bytes.
Messages are posted without blocking and asked for in turns with a look at the clock, so that a rank that never answers
ends in a message with its name and not in silence. Only sends and receives are used: the sums are formed as with
threads (comm.py), to the same bits.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import numpy as np

from minicnn.errors import DeviceError
from minicnn.parallel.comm import TIMEOUT, Comm, RankError

SPINS = 2000            # looks at a message before the processor is left to others in between


def _mpi():
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DeviceError(f"several processes need mpi4py and an MPI ({error}); pip install 'minicnn[mpi]', or leave "
                          "mpiexec out and use threads") from error
    return MPI


class MPIComm(Comm):
    """One of the processes. mpi: the mpi4py communicator, by default all of them."""

    def __init__(self, mpi=None, timeout: float = TIMEOUT, ledger=None):
        self.MPI = _mpi()
        self.mpi = self.MPI.COMM_WORLD if mpi is None else mpi
        super().__init__(self.mpi.Get_rank(), self.mpi.Get_size(), timeout, ledger)
        if self.MPI.Query_thread() != self.MPI.THREAD_MULTIPLE:
            raise DeviceError("this MPI was not built for several threads in a process (MPI_THREAD_MULTIPLE), which "
                              "sending gradients in the background needs; pip install mpich brings one that is")
        self._spare: dict[tuple[str, int], np.ndarray] = {}
        if mpi is None:                                     # all ranks together, so once and in the same order
            self._line, here = self.mpi.Dup(), self.mpi.Split_type(self.MPI.COMM_TYPE_SHARED)
            self.neighbours, self.place = here.Get_size(), here.Get_rank()

    def _second(self):
        return MPIComm(self._line, self.timeout, self.ledger)

    def _exchange(self, where, sends, receives, consume):
        waited = self._greet(where, sends, receives)
        self._hand_over(where, sends, receives, consume)
        return waited

    def _greet(self, where: str, sends: list[list], receives: list[list]) -> float:
        """Wait until the others have come here, too, and say how many bytes are for them; seconds."""
        tag = zlib.crc32(f"here: {where}".encode()) & 0x7FFF
        peers = [peer for peer in range(self.size) if peer != self.rank and (sends[peer] or receives[peer])]
        offered, told = np.zeros(self.size, np.int64), np.zeros(self.size, np.int64)
        told[:] = [sum(array.nbytes for array in arrays) for arrays in sends]
        requests = [(peer, self.mpi.Irecv([offered[peer:peer + 1], self.MPI.INT64_T], peer, tag)) for peer in peers]
        requests += [(peer, self.mpi.Isend([told[peer:peer + 1], self.MPI.INT64_T], peer, tag)) for peer in peers]
        waited = sum(self._wait(request, peer, where) for peer, request in requests)
        for peer in peers:
            expected = sum(array.nbytes for array in receives[peer])
            if offered[peer] != expected:
                raise RankError(f"rank {peer} disagrees with rank {self.rank} at {where!r}: it hands over "
                                f"{offered[peer]:,} bytes, expected {expected:,}")
        return waited

    def _hand_over(self, where: str, sends: list[list], receives: list[list], consume: Callable) -> None:
        """Move the bytes; arrays on a GPU go through pinned memory of the host."""
        tag, interconnect = zlib.crc32(where.encode()) & 0x7FFF, self.interconnect
        coming, going = {}, {}
        for peer in range(self.size):
            if peer != self.rank and receives[peer]:
                memory = self._memory("from", peer, receives[peer])
                coming[peer] = (self.mpi.Irecv([memory, self.MPI.BYTE], peer, tag), memory)
        for peer in range(self.size):
            if peer != self.rank and sends[peer]:
                going[peer] = self.mpi.Isend([self._packed(peer, sends[peer]), self.MPI.BYTE], peer, tag)
        for peer in range(self.size):
            if peer == self.rank:
                consume(peer, sends[peer])
            elif peer in coming:
                request, memory = coming[peer]
                self._wait(request, peer, where)
                pieces = _unpacked(memory, receives[peer])
                consume(peer, [piece if interconnect.is_on_host(target) else interconnect.from_host(piece)
                               for piece, target in zip(pieces, receives[peer], strict=True)])
        interconnect.synchronize()                              # the memory of messages may be written again
        for peer, request in going.items():
            self._wait(request, peer, where)

    def _wait(self, request, peer: int, where: str) -> float:
        """Until a message is through; seconds."""
        began, looks = time.perf_counter(), 0
        try:
            while not request.Test():
                looks += 1
                seconds = time.perf_counter() - began
                if seconds > self.patience:
                    raise RankError(f"rank {peer} hangs: rank {self.rank} has waited {self.patience:g} s for it at "
                                    f"{where!r}; if it is only slow, allow more with --comm-timeout")
                time.sleep(0 if looks < SPINS else 1e-4)
        except self.MPI.Exception as error:
            raise RankError(f"rank {peer} is gone, or disagrees with rank {self.rank}, at {where!r}: {error}") from None
        return time.perf_counter() - began

    def _memory(self, use: str, peer: int, arrays: list) -> np.ndarray:
        """Bytes for these arrays, kept for the next message."""
        nbytes = sum(array.nbytes for array in arrays)
        spare = self._spare.get((use, peer))
        if spare is None or len(spare) < nbytes:
            spare = self._spare[use, peer] = self.interconnect.memory(nbytes)
        return spare[:nbytes]

    def _packed(self, peer: int, arrays: list) -> np.ndarray:
        """The arrays as bytes, one after the other; without a copy where there is one, in one piece."""
        if len(arrays) == 1 and self.interconnect.is_on_host(arrays[0]) and arrays[0].flags.c_contiguous:
            return arrays[0].reshape(-1).view(np.uint8)
        memory = self._memory("to", peer, arrays)
        for piece, array in zip(_unpacked(memory, arrays), arrays, strict=True):
            self.interconnect.to_host(array, piece)
        return memory


def _unpacked(memory: np.ndarray, like: list) -> list[np.ndarray]:
    """Views of the bytes with the shapes and types of `like`."""
    views, start = [], 0
    for array in like:
        views.append(memory[start:start + array.nbytes].view(array.dtype).reshape(array.shape))
        start += array.nbytes
    return views
