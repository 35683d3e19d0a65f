"""Twenty steps of the paper's AlexNet on photographs: mpiexec -n 2 python -m tests.parallel.mpi_steps columns."""

from __future__ import annotations

import sys
import zlib

import numpy as np

from minicnn.backend.cpu import set_threads
from minicnn.data.source import open_data
from minicnn.models.alexnet import alexnet
from minicnn.parallel.launch import launch
from minicnn.parallel.parallel_net import SCHEMES
from tests.parallel.training import train, weights

COUNT, LR = 32, 1e-4


def photographs(count: int, every: int = 1):
    """Centre crops of the first `count` photographs minus their mean, float64, subsampled by `every`; and labels."""
    found = open_data("elpv").train
    images = np.stack([found.read(i)[16:240:every, 16:240:every] for i in range(count)]).astype(np.float64)
    return images - images.mean(axis=0), found.labels[:count].astype(np.int64)


def twenty_steps(comm, scheme: str) -> int | None:
    """A checksum of all weights after twenty steps, on rank 0."""
    x, labels = photographs(COUNT)
    net = SCHEMES[scheme](alexnet(), comm)
    train(net, x.astype(np.float32), labels, 20, LR)
    checksum = 0
    for _, array in sorted(weights(net).items()):
        checksum = zlib.crc32(np.ascontiguousarray(array), checksum)
    return checksum if comm.rank == 0 else None


if __name__ == "__main__":
    set_threads(1)
    checksum = launch(None, lambda local_size: None, lambda comm, _: twenty_steps(comm, sys.argv[1]), 300.0)
    if checksum is not None:
        print(f"checksum {checksum}", flush=True)
