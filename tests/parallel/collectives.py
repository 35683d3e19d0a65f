"""Everything that ranks can do together, compared with NumPy: mpiexec -n 3 python -m tests.parallel.collectives."""

from __future__ import annotations

import sys

import numpy as np

from minicnn.parallel import comm as comm_module
from minicnn.parallel.launch import launch


def check_collectives(comm) -> list[np.ndarray]:
    """Each operation of `comm`, sums in the order of the ranks; returns what it reduced, the same on every rank."""
    size, rng = comm.size, np.random.default_rng(1)                            # the same numbers on every rank
    arrays = [rng.standard_normal((size, 5)).astype(np.float32) for _ in range(size)]
    many = [[rng.standard_normal(n).astype(np.float32) for n in (1, 3, 20)] for _ in range(size)]

    gathered = np.empty((size, size, 5), np.float32)
    comm.all_gather(arrays[comm.rank], gathered)
    np.testing.assert_array_equal(gathered, arrays)

    summed = np.empty(5, np.float32)
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
    comm.must_agree({"what was reduced": np.concatenate(reduced)})             # to the bit, on every rank

    sent = np.full(3, float(comm.rank))
    comm.broadcast(sent, size - 1)
    np.testing.assert_array_equal(sent, float(size - 1))
    comm.barrier()
    told = comm.tell({"from": comm.rank, "é": [1]}, {"a": np.arange(3) + comm.rank})
    assert told[0] == {"from": 0, "é": [1]} and told[1]["a"].tolist() == [0, 1, 2]
    return reduced


if __name__ == "__main__":
    comm_module.PIECE = 7                                                      # so that arrays are cut
    launch(None, lambda neighbours: None, lambda comm, _: check_collectives(comm), 60.0)
    print("all as in NumPy", flush=True)
    sys.exit(0)
