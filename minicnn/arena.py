"""The memory of a plan: arrays that are needed at different times lie at the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALIGNMENT = 256     # bytes; at least a SIMD vector and a cache line on any machine


@dataclass
class Storage:
    """Memory in use from step `birth` to step `death`. `outside`: not in the arena (inputs, pinned outputs);
    `given`: passed in by the caller with each batch."""

    nbytes: int
    birth: int
    death: int
    outside: bool = False
    given: bool = False
    offset: int = 0


def pack(storages: list[Storage]) -> int:
    """Assign offsets, largest storage first, each at the lowest offset free for its lifetime; returns total bytes."""
    storages = sorted(storages, key=lambda s: (-s.nbytes, s.birth))
    births, deaths = (np.array([getattr(s, name) for s in storages]) for name in ("birth", "death"))
    offsets, ends = np.zeros(len(storages), np.int64), np.zeros(len(storages), np.int64)
    for i, storage in enumerate(storages):
        others = np.flatnonzero((births[:i] <= storage.death) & (deaths[:i] >= storage.birth))     # alive together
        others = others[np.argsort(offsets[others])]
        free = np.maximum.accumulate(np.append(0, _aligned(ends[others])))      # the end of all before each, and of all
        gaps = np.flatnonzero(offsets[others] >= free[:-1] + storage.nbytes)
        storage.offset = int(free[gaps[0] if len(gaps) else -1])
        offsets[i], ends[i] = storage.offset, storage.offset + storage.nbytes
    return int(ends.max(initial=0))


def _aligned(nbytes):
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
