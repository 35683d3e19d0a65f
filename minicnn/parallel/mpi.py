"""Ranks as processes started by mpiexec: `pip install .[mpi]`, then `mpiexec -n 2 python ...`.

Each exchange starts with a handshake, so that waiting time and transfer time are measured separately. Messages are
non-blocking and polled with a timeout, so that a rank that does not respond is reported by number instead of blocking
forever. Only point-to-point messages are used: sums are computed as with threads (comm.py), with bit-identical results.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import numpy as np

from minicnn.errors import DeviceError
from minicnn.parallel.comm import TIMEOUT, Comm, RankError

SPINS = 2000            # polls of a message before sleeping between polls


def _mpi():
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DeviceError(f"several processes need mpi4py and an MPI ({error}); pip install 'minicnn[mpi]', or run "
                          "without mpiexec to use threads") from error
    return MPI


class MPIComm(Comm):
    """The communicator of one process. mpi: the mpi4py communicator, by default COMM_WORLD."""

    def __init__(self, mpi=None, timeout: float = TIMEOUT, ledger=None):
        self.MPI = _mpi()
        self.mpi = self.MPI.COMM_WORLD if mpi is None else mpi
        super().__init__(self.mpi.Get_rank(), self.mpi.Get_size(), timeout, ledger)
        if self.MPI.Query_thread() != self.MPI.THREAD_MULTIPLE:
            raise DeviceError("this MPI was not built for several threads in a process (MPI_THREAD_MULTIPLE), which "
                              "sending gradients in the background needs; pip install mpich provides one that is")
        self._buffers: dict[tuple[str, int], np.ndarray] = {}
        if mpi is None:                                     # collective calls: once, in the same order on all ranks
            self._background_mpi, here = self.mpi.Dup(), self.mpi.Split_type(self.MPI.COMM_TYPE_SHARED)
            self.local_size, self.local_rank = here.Get_size(), here.Get_rank()

    def _background_group(self):
        return MPIComm(self._background_mpi, self.timeout, self.ledger)

    def _exchange(self, where, sends, receives, consume):
        waited = self._handshake(where, sends, receives)
        self._transfer(where, sends, receives, consume)
        return waited

    def _handshake(self, where: str, sends: list[list], receives: list[list]) -> float:
        """Wait for the other ranks and tell each how many bytes to expect; returns the seconds waited."""
        tag = zlib.crc32(f"here: {where}".encode()) & 0x7FFF
        peers = [peer for peer in range(self.size) if peer != self.rank and (sends[peer] or receives[peer])]
        offered = np.zeros(self.size, np.int64)
        sizes = np.array([sum(array.nbytes for array in arrays) for arrays in sends], np.int64)
        requests = [(peer, self.mpi.Irecv([offered[peer:peer + 1], self.MPI.INT64_T], peer, tag)) for peer in peers]
        requests += [(peer, self.mpi.Isend([sizes[peer:peer + 1], self.MPI.INT64_T], peer, tag)) for peer in peers]
        waited = sum(self._wait(request, peer, where) for peer, request in requests)
        for peer in peers:
            expected = sum(array.nbytes for array in receives[peer])
            if offered[peer] != expected:
                raise RankError(f"rank {peer} disagrees with rank {self.rank} at {where!r}: it sends "
                                f"{offered[peer]:,} bytes, expected {expected:,}")
        return waited

    def _transfer(self, where: str, sends: list[list], receives: list[list], consume: Callable) -> None:
        """Transfer the arrays; those on a GPU through pinned host memory."""
        tag, interconnect = zlib.crc32(where.encode()) & 0x7FFF, self.interconnect
        incoming, outgoing = {}, {}
        for peer in range(self.size):
            if peer != self.rank and receives[peer]:
                memory = self._buffer("from", peer, receives[peer])
                incoming[peer] = (self.mpi.Irecv([memory, self.MPI.BYTE], peer, tag), memory)
        for peer in range(self.size):
            if peer != self.rank and sends[peer]:
                outgoing[peer] = self.mpi.Isend([self._packed(peer, sends[peer]), self.MPI.BYTE], peer, tag)
        for peer in range(self.size):
            if peer == self.rank:
                consume(peer, sends[peer])
            elif peer in incoming:
                request, memory = incoming[peer]
                self._wait(request, peer, where)
                pieces = _unpacked(memory, receives[peer])
                consume(peer, [piece if interconnect.is_on_host(target) else interconnect.from_host(piece)
                               for piece, target in zip(pieces, receives[peer], strict=True)])
        interconnect.synchronize()                              # message buffers may be reused after this
        for peer, request in outgoing.items():
            self._wait(request, peer, where)

    def _wait(self, request, peer: int, where: str) -> float:
        """Wait until a message is complete; returns the seconds waited."""
        began, polls = time.perf_counter(), 0
        try:
            while not request.Test():
                polls += 1
                seconds = time.perf_counter() - began
                if seconds > self.current_timeout:
                    raise RankError(f"rank {peer} hangs: rank {self.rank} has waited {self.current_timeout:g} s for it "
                                    f"at {where!r}; if it is only slow, increase --comm-timeout")
                time.sleep(0 if polls < SPINS else 1e-4)
        except self.MPI.Exception as error:
            raise RankError(f"rank {peer} exited or disagrees with rank {self.rank} at {where!r}: {error}") from None
        return time.perf_counter() - began

    def _buffer(self, use: str, peer: int, arrays: list) -> np.ndarray:
        """A buffer for these arrays, reused for later messages."""
        nbytes = sum(array.nbytes for array in arrays)
        buffer = self._buffers.get((use, peer))
        if buffer is None or len(buffer) < nbytes:
            buffer = self._buffers[use, peer] = self.interconnect.memory(nbytes)
        return buffer[:nbytes]

    def _packed(self, peer: int, arrays: list) -> np.ndarray:
        """The concatenated bytes of the arrays; without a copy if there is a single contiguous array."""
        if len(arrays) == 1 and self.interconnect.is_on_host(arrays[0]) and arrays[0].flags.c_contiguous:
            return arrays[0].reshape(-1).view(np.uint8)
        memory = self._buffer("to", peer, arrays)
        for piece, array in zip(_unpacked(memory, arrays), arrays, strict=True):
            self.interconnect.to_host(array, piece)
        return memory


def _unpacked(memory: np.ndarray, like: list) -> list[np.ndarray]:
    """Views of the bytes with the shapes and dtypes of `like`."""
    views, start = [], 0
    for array in like:
        views.append(memory[start:start + array.nbytes].view(array.dtype).reshape(array.shape))
        start += array.nbytes
    return views
