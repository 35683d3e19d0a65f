"""Sharding: the distribution of an array (rows, channels) over ranks.

Channels are a tuple of ranges: ((0, 48),) is the first column of AlexNet's conv1. Concatenating sharded arrays gives a
shard of several ranges, and so does flattening (H, W, C): one range per pixel. Rows, that is images, are either
replicated ("all") or split evenly over the ranks ("own").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Shard:
    """The shard of one rank: rows "all" or "own", and channels as ranges of the unsharded array."""

    rows: str
    channels: Ranges

    @property
    def width(self) -> int:
        """Number of channels."""
        return width(self.channels)


def width(ranges: Ranges) -> int:
    """Number of channels in the ranges."""
    return sum(last - first for first, last in ranges)


def even_ranges(total: int, size: int) -> list[Ranges]:
    """range(total) split into `size` ranges of nearly equal length, one per rank."""
    return [merged([(total * rank // size, total * (rank + 1) // size)]) for rank in range(size)]


def equal_ranges(total: int, size: int, what: str) -> list[Ranges]:
    """range(total) split into `size` equal ranges; ConfigError if `size` does not divide `total`."""
    if total % size:
        raise ConfigError(f"{size} ranks do not divide {what}: {total} / {size} is not an integer; choose a number of "
                          "ranks that does")
    return even_ranges(total, size)


def merged(ranges) -> Ranges:
    """The same channels in as few ranges as possible: adjacent ranges merged, empty ranges dropped."""
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        if out and out[-1][1] == first:
            out[-1] = (out[-1][0], last)
        elif first < last:
            out.append((first, last))
    return tuple(out)


def shifted(ranges: Ranges, by: int) -> Ranges:
    """The ranges, offset by `by` channels."""
    return tuple((first + by, last + by) for first, last in ranges)


def flattened(ranges: Ranges, channels: int, pixels: int) -> Ranges:
    """The same shard after flattening (H, W, C) to one axis: the ranges of every pixel."""
    return merged(piece for pixel in range(pixels) for piece in shifted(ranges, pixel * channels))


def slices(ranges: Ranges) -> Iterator[tuple[slice, slice]]:
    """(slice of the unsharded axis, slice of the rank's axis) for every range."""
    own = 0
    for first, last in ranges:
        yield slice(first, last), slice(own, own + last - first)
        own += last - first


def select_channels(array: np.ndarray, ranges: Ranges) -> np.ndarray:
    """A copy of these channels (last axis) of an unsharded array."""
    part = np.empty((*array.shape[:-1], width(ranges)), array.dtype)
    for whole, own in slices(ranges):
        part[..., own] = array[..., whole]
    return part


def overlap(one: Shard, of: int, other: Shard, to: int, rows: int, size: int) -> list[tuple[tuple, tuple]]:
    """The intersection of two ranks' shards, as (indices in one's array, indices in the other's) of (rows, channels).

    of, to: the two ranks.   rows: of the unsharded array.
    """
    n = rows // size
    if (one.rows, other.rows) == ("own", "own"):
        if of != to:
            return []
        places = slice(0, n), slice(0, n)
    elif one.rows == "own":
        places = slice(0, n), slice(of * n, (of + 1) * n)
    elif other.rows == "own":
        places = slice(to * n, (to + 1) * n), slice(0, n)
    else:
        places = slice(0, rows), slice(0, rows)
    found = []
    for a, own_a in slices(one.channels):
        for b, own_b in slices(other.channels):
            first, last = max(a.start, b.start), min(a.stop, b.stop)
            if first < last:
                found.append(((places[0], slice(own_a.start + first - a.start, own_a.start + last - a.start)),
                              (places[1], slice(own_b.start + first - b.start, own_b.start + last - b.start))))
    return found
