"""Ranks as processes whose GPUs communicate directly through NCCL, not through host memory.

MPI starts the ranks, does the handshakes and transfers NumPy arrays; NCCL transfers arrays on GPUs. NCCL needs a GPU
per rank and does not allow concurrent operations: so of a rank's two process groups only the one with most of the
traffic uses NCCL (for data parallelism, the gradients in the background; otherwise the exchanges within a pass), and
the other one uses host memory. Only point-to-point messages are used: sums are computed as in comm.py, with
bit-identical results.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
import warnings

from minicnn.parallel.comm import RankError
from minicnn.parallel.mpi import MPIComm


def nccl_available() -> bool:
    """Whether CuPy is installed with a loadable NCCL; does not try to import CuPy if it is not installed."""
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                 # CuPy warns if there is no NCCL
            from cupy.cuda import nccl
    except Exception:                                       # CuPy without a usable driver
        return False
    return bool(getattr(nccl, "available", False))


class NcclComm(MPIComm):
    """As `comm`, but messages between GPUs use NCCL once `use_interconnect` was called for a GPU backend."""

    def __init__(self, comm: MPIComm):
        self._mpi_comm = comm
        super().__init__(comm.mpi, comm.timeout, comm.ledger)
        self.local_size, self.local_rank = comm.local_size, comm.local_rank
        self._nccl, self._nccl_in_background = None, False

    def use_interconnect(self, interconnect, in_background=False):
        super().use_interconnect(interconnect, in_background)
        self.barrier("GPUs")                                # reports a hanging rank; NCCL would wait forever
        name = interconnect.name
        gpus = self.mpi.allgather(None if name is None else f"{socket.gethostname()}, GPU {name}")
        self._nccl, self._nccl_in_background = None, False
        if None in gpus:
            return
        shared = len(set(gpus)) < self.size
        if self.rank == 0:
            path = "through host memory, since ranks share a GPU: " if shared else "through NCCL: "
            print(f"{'messages':13s}{path}{'; '.join(gpus)}", file=sys.stderr, flush=True)
        if not shared and self.size > 1:
            self._nccl_in_background = in_background
            self._nccl = None if in_background else self._new_communicator()

    def _new_communicator(self):
        """A new NCCL communicator; a collective call."""
        from cupy.cuda import nccl

        name = self.mpi.bcast(nccl.get_unique_id() if self.rank == 0 else None)
        return nccl.NcclCommunicator(self.size, name, self.rank)

    def _background_group(self):
        background = NcclComm(self._mpi_comm._background_group())
        if self._nccl_in_background:
            background._nccl = background._new_communicator()
        return background

    def _transfer(self, where, sends, receives, consume):
        arrays = [array for lists in (sends, receives) for some in lists for array in some]
        if self._nccl is None or any(map(self.interconnect.is_on_host, arrays)):
            super()._transfer(where, sends, receives, consume)
            return
        import cupy
        from cupy.cuda import nccl

        peers = [peer for peer in range(self.size) if peer != self.rank]
        stream = cupy.cuda.get_current_stream()
        outgoing = {peer: [cupy.ascontiguousarray(array) for array in sends[peer]] for peer in peers}
        incoming = {peer: [cupy.empty(target.shape, target.dtype) for target in receives[peer]] for peer in peers}
        nccl.groupStart()
        for peer in peers:
            for array in outgoing[peer]:
                if array.size:
                    self._nccl.send(array.data.ptr, array.nbytes, nccl.NCCL_UINT8, peer, stream.ptr)
            for array in incoming[peer]:
                if array.size:
                    self._nccl.recv(array.data.ptr, array.nbytes, nccl.NCCL_UINT8, peer, stream.ptr)
        nccl.groupEnd()
        self._wait_for_stream(stream, where)
        for peer in range(self.size):
            if peer == self.rank or incoming[peer]:
                consume(peer, sends[peer] if peer == self.rank else incoming[peer])

    def _wait_for_stream(self, stream, where: str) -> None:
        """Wait for the messages, up to the timeout; NCCL itself would wait forever."""
        began = time.perf_counter()
        while not stream.done:
            if time.perf_counter() - began > self.current_timeout:
                self._nccl.abort()
                raise RankError(f"a rank hangs: rank {self.rank} has waited {self.current_timeout:g} s for messages "
                                f"between GPUs at {where!r}, which all ranks had reached; if it is only slow, increase "
                                "--comm-timeout")
            time.sleep(0)
