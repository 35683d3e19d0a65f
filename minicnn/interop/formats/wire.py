"""Protocol buffers read by a table of their fields, without a library and without copying: for ONNX and Caffe.

    schema: field number -> (name, kind)      kind: "int" "float" "text" "bytes" "ints" "floats" "doubles", or a schema
                                              a kind in a list: the field is repeated

A message is a dict by field name; a repeated field is a list. "bytes" and "floats" become Spans: where they are in the
file. Fields that a schema does not have are skipped. Every count is bounded, and no length is believed.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minicnn.errors import CheckpointError

MAX_FIELDS = 400_000            # in a file
MAX_DEPTH = 32
Schema = Mapping[int, tuple]


@dataclass(frozen=True)
class Span:
    """Bytes of the file."""

    offset: int
    size: int


class Reader:
    """The bytes of a file, mapped, and how many fields of it have been read."""

    def __init__(self, descriptor: int, size: int):
        self.data = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        self.size, self.fields, self.skipped = size, 0, set()

    def message(self, schema: Schema, start: int = 0, end: int | None = None, depth: int = 0) -> dict:
        """The message in these bytes. CheckpointError where it is damaged."""
        end = self.size if end is None else end
        if depth > MAX_DEPTH:
            raise CheckpointError(f"damaged: messages nested more than {MAX_DEPTH} deep at byte {start:,}")
        found: dict = {}
        while start < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise CheckpointError(f"has more than {MAX_FIELDS:,} fields; expected a network")
            key, start = self.varint(start, end)
            number, wire = key >> 3, key & 7
            begin, start = self._extent(wire, start, end)
            if number in schema:
                self._take(found, schema[number], wire, begin, start, depth)
            else:
                self.skipped.add(number)
        return found

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """(value, position after it)."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise CheckpointError(f"cut short: a number at byte {at:,} has no end")
            byte = self.data[at]
            value, at = value | (byte & 0x7F) << shift, at + 1
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
        raise CheckpointError(f"damaged: a number of more than ten bytes at byte {at:,}")

    def _extent(self, wire: int, at: int, end: int) -> tuple[int, int]:
        """Where the contents of a field begin and end."""
        if wire == 0:
            return at, self.varint(at, end)[1]
        if wire == 2:
            size, at = self.varint(at, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise CheckpointError(f"damaged: a field of wire type {wire} at byte {at:,}")
        if at + size > end:
            raise CheckpointError(f"cut short or damaged: a field of {size:,} bytes at byte {at:,} ends after "
                                  f"{end:,}")
        return at, at + size

    def _take(self, found: dict, field: tuple, wire: int, begin: int, end: int, depth: int) -> None:
        name, kind = field
        repeated = isinstance(kind, list)
        kind = kind[0] if repeated else kind
        if kind in NUMBERS and wire == 2:                               # packed
            found.setdefault(name, []).extend(self._packed(kind, begin, end))
            return
        if wire != (2 if isinstance(kind, Mapping) else WIRES[kind]):
            raise CheckpointError(f"damaged: field {name!r} at byte {begin:,} has the wire type {wire}")
        value = self._value(kind, wire, begin, end, depth)
        if repeated or kind in NUMBERS:
            found.setdefault(name, []).append(value)
        elif isinstance(kind, Mapping) and name in found:               # a message in parts
            found[name] |= value
        else:
            found[name] = value

    def _value(self, kind, wire: int, begin: int, end: int, depth: int):
        if isinstance(kind, Mapping):
            return self.message(kind, begin, end, depth + 1)
        if kind in ("int", "ints"):
            return signed(self.varint(begin, end)[0])
        if kind == "float":
            return float(str(np.frombuffer(self.data, "<f4", 1, begin)[0]))      # 0.1, not 0.10000000149
        if kind == "text":
            return self.data[begin:min(end, begin + 4096)].decode("utf-8", "replace")
        return Span(begin, end - begin)                                 # "bytes", and single "floats", "doubles"

    def _packed(self, kind: str, begin: int, end: int) -> list:
        if kind != "ints":
            return [Span(begin, end - begin)]
        values = []
        while begin < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise CheckpointError(f"has more than {MAX_FIELDS:,} numbers in lists; expected a network")
            value, begin = self.varint(begin, end)
            values.append(signed(value))
        return values

    def bytes(self, span: Span, limit: int = 2**20) -> bytes:
        """The bytes of a span that should be short."""
        if span.size > limit:
            raise CheckpointError(f"damaged: {span.size:,} bytes where at most {limit:,} are expected, at byte "
                                  f"{span.offset:,}")
        return self.data[span.offset:span.offset + span.size]


NUMBERS = ("ints", "floats", "doubles")                 # lists
WIRES = {"int": 0, "ints": 0, "float": 5, "floats": 5, "doubles": 1, "text": 2, "bytes": 2}


def signed(value: int) -> int:
    """A varint as a 64-bit number with its sign."""
    return value - 2**64 if value >= 2**63 else value


def varints(data: np.ndarray) -> np.ndarray:
    """Packed varints, uint8 (n,), as uint64."""
    last = np.flatnonzero(data < 0x80)
    first = np.concatenate([[0], last[:-1] + 1]).astype(np.int64)[:len(last)]
    length = last - first + 1
    if len(data) and (not len(last) or last[-1] != len(data) - 1 or length.max() > 10):
        raise CheckpointError("damaged: a list of numbers")
    values = np.zeros(len(last), np.uint64)
    for k in range(int(length.max(initial=0))):
        more = length > k
        values[more] |= (data[first[more] + k].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * k)
    return values


# ---- writing
def field(number: int, value) -> bytes:
    """One field: an int as a varint, bytes or text with its length, a float as four bytes, a list as several."""
    if isinstance(value, list):
        return b"".join(field(number, item) for item in value)
    if isinstance(value, float):
        return encoded(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return encoded(number << 3) + encoded(value & 0xFFFFFFFFFFFFFFFF)
    value = value.encode() if isinstance(value, str) else value
    return encoded(number << 3 | 2) + encoded(len(value)) + value


def encoded(value: int) -> bytes:
    """A varint."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
