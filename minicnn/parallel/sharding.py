"""Who holds what of an array (rows, channels) that is spread over ranks.

Channels are held as ranges: ((0, 48),) is the first column of AlexNet's conv1. A concatenation of split arrays leaves a
rank with several ranges, and so does flattening (H, W, C): a range for every pixel. Rows, that is images, are either
all on every rank ("all") or cut evenly among the ranks ("own").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minicnn.errors import ConfigError

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Share:
    """What one rank holds: rows "all" or "own", and channels as ranges of the unsplit array."""

    rows: str
    channels: Ranges

    @property
    def width(self) -> int:
        """Number of channels."""
        return width(self.channels)


def width(ranges: Ranges) -> int:
    """Number of channels in the ranges."""
    return sum(last - first for first, last in ranges)


def even(total: int, size: int) -> list[Ranges]:
    """range(total) cut into `size` ranges of nearly equal length, one for each rank."""
    return [joined([(total * rank // size, total * (rank + 1) // size)]) for rank in range(size)]


def equal(total: int, size: int, what: str) -> list[Ranges]:
    """range(total) cut into `size` equal ranges; ConfigError where that does not work out."""
    if total % size:
        raise ConfigError(f"{size} ranks do not divide {what}: {total} / {size} is no whole number; choose a number of "
                          "ranks that does")
    return even(total, size)


def joined(ranges) -> Ranges:
    """The same channels in as few ranges as possible; neighbours are merged and empty ranges dropped."""
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        if out and out[-1][1] == first:
            out[-1] = (out[-1][0], last)
        elif first < last:
            out.append((first, last))
    return tuple(out)


def shifted(ranges: Ranges, by: int) -> Ranges:
    """The ranges, `by` channels further on."""
    return tuple((first + by, last + by) for first, last in ranges)


def flattened(ranges: Ranges, channels: int, pixels: int) -> Ranges:
    """The same share after (H, W, C) has become one axis: the ranges of every pixel."""
    return joined(piece for pixel in range(pixels) for piece in shifted(ranges, pixel * channels))


def slices(ranges: Ranges) -> Iterator[tuple[slice, slice]]:
    """(place in the unsplit axis, place in the rank's own axis) of every range."""
    own = 0
    for first, last in ranges:
        yield slice(first, last), slice(own, own + last - first)
        own += last - first


def take(array: np.ndarray, ranges: Ranges) -> np.ndarray:
    """A copy of these channels (last axis) of an unsplit array."""
    part = np.empty((*array.shape[:-1], width(ranges)), array.dtype)
    for whole, own in slices(ranges):
        part[..., own] = array[..., whole]
    return part


def common(one: Share, of: int, other: Share, to: int, rows: int, size: int) -> list[tuple[tuple, tuple]]:
    """What two ranks both hold, as (place in one's array, place in the other's), for arrays of (rows, channels).

    of, to: the two ranks' numbers.   rows: of the unsplit array.
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
