"""Ranks as processes whose GPUs speak to each other by NCCL: no way through the host's memory.

MPI starts the ranks, says who is there and how much is coming, and moves what is NumPy's; NCCL moves what lies on a
GPU. It wants a GPU for every rank, and one thing at a time: so of a rank's two lines only the one that moves most has
NCCL (with data, the gradients in the background; elsewhere what crosses within a pass), and the other goes through the
host. Only sends and receives are used: the sums are formed as everywhere else (comm.py), to the same bits.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
import warnings

from minicnn.parallel.comm import RankError
from minicnn.parallel.mpi import MPIComm


def nccl_is_there() -> bool:
    """Whether CuPy is installed with an NCCL that can be loaded; CuPy is not asked for where it is not installed."""
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                 # it warns where there is none
            from cupy.cuda import nccl
    except Exception:                                       # CuPy without a driver, or one that it cannot use
        return False
    return bool(getattr(nccl, "available", False))


class NcclComm(MPIComm):
    """A rank of `comm`, whose messages between GPUs go by NCCL once `work_with` has told of GPUs."""

    def __init__(self, comm: MPIComm):
        self._over = comm
        super().__init__(comm.mpi, comm.timeout, comm.ledger)
        self.neighbours, self.place = comm.neighbours, comm.place
        self._nccl, self._joins_in_background = None, False

    def work_with(self, interconnect, in_background=False):
        super().work_with(interconnect, in_background)
        self.barrier("GPUs")                                # a rank that hangs is named here; NCCL would wait for ever
        name = interconnect.name
        gpus = self.mpi.allgather(None if name is None else f"{socket.gethostname()}, GPU {name}")
        self._nccl, self._joins_in_background = None, False
        if None in gpus:
            return
        shared = len(set(gpus)) < self.size
        if self.rank == 0:
            way = "through host memory, since ranks share a GPU: " if shared else "by NCCL: "
            print(f"{'messages':13s}{way}{'; '.join(gpus)}", file=sys.stderr, flush=True)
        if not shared and self.size > 1:
            self._joins_in_background = in_background
            self._nccl = None if in_background else self._join()

    def _join(self):
        """NCCL's communicator; all ranks together."""
        from cupy.cuda import nccl

        name = self.mpi.bcast(nccl.get_unique_id() if self.rank == 0 else None)
        return nccl.NcclCommunicator(self.size, name, self.rank)

    def _second(self):
        side = NcclComm(self._over._second())
        if self._joins_in_background:
            side._nccl = side._join()
        return side

    def _hand_over(self, where, sends, receives, consume):
        arrays = [array for lists in (sends, receives) for some in lists for array in some]
        if self._nccl is None or any(map(self.interconnect.is_on_host, arrays)):
            super()._hand_over(where, sends, receives, consume)
            return
        import cupy
        from cupy.cuda import nccl

        peers = [peer for peer in range(self.size) if peer != self.rank]
        stream = cupy.cuda.get_current_stream()
        going = {peer: [cupy.ascontiguousarray(array) for array in sends[peer]] for peer in peers}
        coming = {peer: [cupy.empty(target.shape, target.dtype) for target in receives[peer]] for peer in peers}
        nccl.groupStart()
        for peer in peers:
            for array in going[peer]:
                if array.size:
                    self._nccl.send(array.data.ptr, array.nbytes, nccl.NCCL_UINT8, peer, stream.ptr)
            for array in coming[peer]:
                if array.size:
                    self._nccl.recv(array.data.ptr, array.nbytes, nccl.NCCL_UINT8, peer, stream.ptr)
        nccl.groupEnd()
        self._arrive(stream, where)
        for peer in range(self.size):
            if peer == self.rank or coming[peer]:
                consume(peer, sends[peer] if peer == self.rank else coming[peer])

    def _arrive(self, stream, where: str) -> None:
        """Wait for the messages as long as the others may take, and not for ever as NCCL would."""
        began = time.perf_counter()
        while not stream.done:
            if time.perf_counter() - began > self.patience:
                self._nccl.abort()
                raise RankError(f"a rank hangs: rank {self.rank} has waited {self.patience:g} s for messages between "
                                f"GPUs at {where!r}, and all ranks had come there; if it is only slow, allow more with "
                                "--comm-timeout")
            time.sleep(0)
