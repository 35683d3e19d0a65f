"""Mutants of a file: a few bits flipped, cut short, a part of another file spliced in, a part repeated or left out."""

from __future__ import annotations

from random import Random

LONGEST = 4096                 # bytes of a part


def flip(data: bytes, rng: Random, donor: bytes) -> bytes:
    """One to eight bytes are others; often in the first 300, where headers are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(min(len(data), rng.choice((300, len(data)))))
        changed[at] = rng.choice((changed[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
    return bytes(changed)


def cut(data: bytes, rng: Random, donor: bytes) -> bytes:
    """Only the first or the last part, or none."""
    at = rng.randrange(len(data))
    return data[:at] if rng.random() < 0.8 else data[at:]


def splice(data: bytes, rng: Random, donor: bytes) -> bytes:
    """A part of another file in the place of as many bytes, or between them."""
    at, (first, last) = rng.randrange(len(data)), _part(donor, rng)
    return data[:at] + donor[first:last] + data[at + rng.choice((0, last - first)):]


def repeat(data: bytes, rng: Random, donor: bytes) -> bytes:
    """A part is there several times, or not at all."""
    first, last = _part(data, rng)
    return data[:first] + data[first:last] * rng.choice((0, 2, 3, 10)) + data[last:]


WAYS = (flip, flip, cut, splice, repeat)


def mutant(data: bytes, donors: list[bytes], rng: Random) -> bytes:
    """One that differs from `data`.   donors: files of the same kind.   rng: decides everything."""
    while True:
        changed = rng.choice(WAYS)(data, rng, rng.choice(donors))
        if changed != data:
            return changed


def _part(data: bytes, rng: Random) -> tuple[int, int]:
    first = rng.randrange(len(data))
    return first, min(len(data), first + rng.randint(1, rng.choice((4, 64, LONGEST))))
