"""All collective operations, compared with NumPy: mpiexec -n 3 python -m tests.parallel.collectives [device].

With `device`, the arrays simulate GPU arrays, which cannot be sent directly.
"""

from __future__ import annotations

import sys

import numpy as np

from minicnn.backend.interconnect import Interconnect
from minicnn.parallel import comm as comm_module
from minicnn.parallel.launch import launch


class DeviceArray(np.ndarray):
    """Simulates an array on a GPU."""


class CopyingInterconnect(Interconnect):
    """Counts the copies to and from host memory."""

    copies = 0

    def is_on_host(self, array):
        return not isinstance(array, DeviceArray)

    def to_host(self, array, target):
        self.copies += not self.is_on_host(array)
        target[...] = array

    def from_host(self, array):
        self.copies += 1
        return array.copy().view(DeviceArray)


def check_collectives(comm, kind=np.ndarray) -> list[np.ndarray]:
    """Check each operation of `comm`, with sums in rank order; returns the all-reduced arrays, equal on every rank."""
    size, rng = comm.size, np.random.default_rng(1)                            # the same values on every rank
    arrays = [rng.standard_normal((size, 5)).astype(np.float32).view(kind) for _ in range(size)]
    many = [[rng.standard_normal(n).astype(np.float32).view(kind) for n in (1, 3, 20)] for _ in range(size)]

    gathered = np.empty((size, size, 5), np.float32).view(kind)
    comm.all_gather(arrays[comm.rank], gathered)
    np.testing.assert_array_equal(gathered, arrays)

    summed = np.empty(5, np.float32).view(kind)
    comm.reduce_scatter(arrays[comm.rank], summed)
    expected = arrays[0][comm.rank].copy()
    for array in arrays[1:]:
        expected += array[comm.rank]
    np.testing.assert_array_equal(summed, expected)

    reduced = [array.copy() for array in many[comm.rank]]
    comm.all_reduce(reduced)
    later = [array.copy() for array in many[comm.rank]]
    comm.finish([comm.start_all_reduce(later)])
    for i in range(3):
        np.testing.assert_allclose(reduced[i], np.sum([own[i] for own in many], axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(later[i], reduced[i])
    comm.check_equal({"what was reduced": np.concatenate(reduced)})             # bit-identical on every rank

    sent = np.full(3, float(comm.rank)).view(kind)
    comm.broadcast(sent, size - 1)
    np.testing.assert_array_equal(sent, float(size - 1))
    comm.barrier()
    value, arrays = comm.broadcast_object({"from": comm.rank, "é": [1]}, {"a": np.arange(3) + comm.rank})
    assert value == {"from": 0, "é": [1]} and arrays["a"].tolist() == [0, 1, 2]
    return reduced


def check_device_arrays(comm) -> None:
    """The same with arrays that cannot be sent directly: all of them are copied through host memory."""
    comm.use_interconnect(CopyingInterconnect())
    assert all(isinstance(array, DeviceArray) for array in check_collectives(comm, DeviceArray))
    assert comm.interconnect.copies > 10 or comm.size == 1


if __name__ == "__main__":
    comm_module.CHUNK = 7                                                      # so that arrays are split
    check = check_device_arrays if "device" in sys.argv else check_collectives
    launch(None, lambda local_size: None, lambda comm, _: check(comm), 60.0)
    print("all as in NumPy", flush=True)
    sys.exit(0)
