"""A zip archive of stored entries, as PyTorch writes it: name -> (offset, size) of the bytes in the file.

Only the directory at the end is read, and the header of each entry; nothing is extracted. An entry that is compressed,
encrypted, named twice or not where the directory has it is refused.
"""

from __future__ import annotations

import struct

from minicnn.errors import CheckpointError
from minicnn.interop.formats.stored import MAX_TENSORS, StoredFile

END, END64, LOCATOR64, CENTRAL, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
ABSENT = 0xFFFFFFFF             # the size or offset is in the zip64 field


def entries(file: StoredFile) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size) of every entry. CheckpointError where the archive is damaged."""
    count, size, offset = _directory(file)
    if count > MAX_TENSORS or size > 200 * MAX_TENSORS:
        raise CheckpointError(f"a zip archive of {count:,} entries; expected at most {MAX_TENSORS:,}")
    data, at, found = file.read(offset, size, "the directory of the archive"), 0, {}
    for _ in range(count):
        if data[at:at + 4] != CENTRAL or at + 46 > size:
            raise CheckpointError("damaged: the directory of the archive is cut short")
        flags, method = struct.unpack_from("<HH", data, at + 8)
        packed, whole, name_size, extra_size, comment = struct.unpack_from("<IIHHH", data, at + 20)
        (where,) = struct.unpack_from("<I", data, at + 42)
        name = data[at + 46:at + 46 + name_size].decode("utf-8", "replace")
        extra = data[at + 46 + name_size:at + 46 + name_size + extra_size]
        whole, packed, where = _zip64(extra, whole, packed, where)
        if flags & 1:
            raise CheckpointError(f"entry {name!r} of the archive is encrypted")
        if method or whole != packed:
            raise CheckpointError(f"entry {name!r} of the archive is compressed, which torch.save does not do")
        if name in found:
            raise CheckpointError(f"damaged: the archive has two entries {name!r}")
        found[name] = (_data_offset(file, where, name, whole), whole)
        at += 46 + name_size + extra_size + comment
    return found


def _directory(file: StoredFile) -> tuple[int, int, int]:
    """Number of entries, size and offset of the directory."""
    tail_size = min(file.size, 66_000)
    tail = file.read(file.size - tail_size, tail_size, "the end of the archive")
    at = tail.rfind(END)
    if at < 0 or at + 22 > len(tail):
        raise CheckpointError("cut short: it begins as a zip archive and does not end as one; copy the file again")
    count, size, offset = struct.unpack_from("<HII", tail, at + 10)
    if ABSENT in (size, offset) or count == 0xFFFF or tail[at - 20:at - 16] == LOCATOR64 and at >= 20:
        if at < 20 or tail[at - 20:at - 16] != LOCATOR64:
            raise CheckpointError("damaged: the archive is large, and its zip64 record is missing")
        (where,) = struct.unpack_from("<Q", tail, at - 12)
        record = file.read(where, 56, "the zip64 record of the archive")
        if record[:4] != END64:
            raise CheckpointError("damaged: the zip64 record of the archive is not at its place")
        count, size, offset = struct.unpack_from("<QQQ", record, 32)
    return count, size, offset


def _zip64(extra: bytes, *values: int) -> list[int]:
    """The values; those that did not fit are in the extra field 1, in this order."""
    at, values = 0, list(values)
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field, place = extra[at + 4:at + 4 + size], 0
            for k, value in enumerate(values):
                if value == ABSENT and place + 8 <= len(field):
                    (values[k],) = struct.unpack_from("<Q", field, place)
                    place += 8
        at += 4 + size
    return values


def _data_offset(file: StoredFile, where: int, name: str, size: int) -> int:
    """Where the bytes of an entry begin: behind its own header, whose length only that header knows."""
    header = file.read(where, 30, f"entry {name!r} of the archive")
    name_size, extra_size = struct.unpack_from("<HH", header, 26)
    if header[:4] != LOCAL or file.read(where + 30, name_size, "a name").decode("utf-8", "replace") != name:
        raise CheckpointError(f"damaged: the archive's directory and its entry {name!r} disagree")
    offset = where + 30 + name_size + extra_size
    file.check(offset, size, f"entry {name!r} of the archive")
    return offset
