"""Files in folders and in tars, and in tars within tars, as one listing; nothing is unpacked.

A File holds the location of its bytes: a path, and for a member of a tar the offset and length within it. ImageNet's
training tar is a tar of 1,000 tars, whose members are read in place. Only a compressed tar cannot be read in place: it
is written out uncompressed once, into a scratch folder.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import posixpath
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from minicnn.errors import DataError
from minicnn.files import atomic

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LARGE = 2**25                  # bytes of a tar: the list of a larger one is kept
BUFFER = 2**20                 # headers lie some 100 kB apart: reading on is no slower than seeking


class File(NamedTuple):
    """A file: its name below what was listed, and where its bytes are. A folder's name ends in "/"."""

    name: str
    where: str                 # path of the file, or of the tar that holds it
    offset: int
    size: int
    modified: int              # seconds since 1970

    def read(self) -> bytes:
        """Its bytes. DataError when it has changed since it was listed."""
        try:
            file = os.open(self.where, os.O_RDONLY)
            try:
                data = os.pread(file, self.size, self.offset)
                while more := os.pread(file, self.size - len(data), self.offset + len(data)):
                    data += more
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"{self.where}: {error.strerror or error}; the source must stay as it is while it is "
                            "prepared") from error
        if len(data) != self.size:
            raise DataError(f"{self.where} holds {len(data)} bytes of {self.name}, expected {self.size}; it has become "
                            "shorter while it was read: restore it and run the same command again")
        return data


def is_tar(name: str) -> bool:
    """Whether a file is a tar by its name."""
    return name.lower().endswith(TAR_ENDINGS)


def stem(name: str) -> str:
    """The name of a tar without its ending: "n01440764.tar" -> "n01440764"."""
    name = posixpath.basename(name)
    return next((name[:-len(ending)] for ending in TAR_ENDINGS if name.lower().endswith(ending)), name)


def walk(folder: str, inside: str = "", seen: frozenset = frozenset()) -> Iterator[File]:
    """Every file and folder below a folder; hidden ones and a Mac archive's are left out, links are followed."""
    here = os.path.join(folder, inside)
    real = os.path.realpath(here)
    if real in seen:                               # a link back up the tree
        return
    try:
        with os.scandir(here) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{here}: {error.strerror or error}; expected a folder that can be read") from error
    for entry in entries:
        name = posixpath.join(inside, entry.name)
        if _hidden(entry.name):
            continue
        if entry.is_dir():
            yield File(f"{name}/", entry.path, 0, 0, 0)
            yield from walk(folder, name, seen | {real})
        elif entry.is_file():
            about = entry.stat()
            yield File(name, entry.path, 0, about.st_size, int(about.st_mtime))


def members(tar: File, scratch: str) -> Iterator[File]:
    """Every file and folder in a tar, named as in it. DataError when it is no tar or ends too early.

    Finding them means reading through the tar. So the list of a large one is kept in the scratch folder, for the call
    that continues when this one is stopped.
    """
    tar = _uncompressed(tar, scratch)
    if tar.size < LARGE:
        yield from _members(tar)
        return
    there = os.stat(tar.where)
    kept = os.path.join(scratch, f"{stem(tar.where)}-{there.st_size}-{there.st_mtime_ns}-{tar.offset}.json")
    if not os.path.exists(kept):
        os.makedirs(scratch, exist_ok=True)
        with atomic(kept, "w") as file:
            for member in _members(tar):
                file.write(json.dumps([member.name, member.offset, member.size, member.modified]) + "\n")
    with open(kept, encoding="utf-8") as file:
        for line in file:
            name, offset, size, modified = json.loads(line)
            yield File(name, tar.where, offset, size, modified)


def _members(tar: File) -> Iterator[File]:
    """The same, from the tar itself, which is not compressed."""
    if tar.size == 0:
        return
    end = tar.offset + tar.size
    with open(tar.where, "rb", buffering=BUFFER) as file:
        file.seek(tar.offset)
        try:
            with tarfile.TarFile(fileobj=file) as archive:
                while (member := archive.next()) is not None and member.offset < end:
                    archive.members.clear()        # the list of a million would fill the memory
                    name = posixpath.normpath(member.name).lstrip("/")
                    if any(_hidden(part) for part in name.split("/")):
                        continue
                    if member.islnk() or member.issym() or member.issparse():
                        raise DataError(f"{tar.where}: its member {name} is a link or has holes, which cannot be read "
                                        "in place; unpack the tar and prepare the folder")
                    if member.isdir():
                        yield File(f"{name}/", tar.where, member.offset_data, 0, int(member.mtime))
                    elif member.isfile():
                        if member.offset_data + member.size > end:
                            raise tarfile.ReadError(f"{name} goes beyond its end")
                        yield File(name, tar.where, member.offset_data, member.size, int(member.mtime))
                file.seek(archive.offset)          # a damaged header ends tarfile's listing without an error
                if archive.offset < end and any(file.read(512)):
                    raise tarfile.ReadError(f"no header at byte {archive.offset - tar.offset:,}")
        except tarfile.TarError as error:
            raise DataError(f"{tar.where}{_within(tar)} is not a whole tar ({error}); it is damaged or was cut short: "
                            "fetch it again") from error


def expand(files: Iterable[File], scratch: str, which: Callable[[File], bool] = lambda file: is_tar(file.name),
           ) -> Iterator[File]:
    """The files, with a folder of the tar's name, holding its members, in place of each tar."""
    for file in files:
        if not which(file):
            yield file
            continue
        folder = posixpath.join(posixpath.dirname(file.name), stem(file.name))
        yield file._replace(name=f"{folder}/", size=0)
        for member in members(file, scratch):
            yield member._replace(name=posixpath.join(folder, member.name))


def plain_file(path: str) -> File:
    """A file of the file system, by its path."""
    about = os.stat(path)
    return File(os.path.basename(path), path, 0, about.st_size, int(about.st_mtime))


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _within(tar: File) -> str:
    return "" if tar.offset == 0 else f" (in it, {tar.name})"


def _uncompressed(tar: File, scratch: str) -> File:
    """The tar itself, or the uncompressed copy of a compressed one in the scratch folder, made where there is none."""
    with open(tar.where, "rb") as file:
        file.seek(tar.offset)
        head = file.read(6)
    opener = next((opener for magic, opener in COMPRESSED.items() if head.startswith(magic)), None)
    if opener is None:
        return tar
    if tar.offset:
        raise DataError(f"{tar.where} holds a compressed tar, {tar.name}; unpack the outer one first")
    path = os.path.join(scratch, f"{stem(tar.where)}-{tar.size}-{tar.modified}.tar")
    if not os.path.exists(path):
        os.makedirs(scratch, exist_ok=True)
        try:
            with opener(tar.where) as packed, atomic(path) as copy:
                shutil.copyfileobj(packed, copy, BUFFER)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(f"{tar.where} cannot be unpacked ({error}); it is damaged or was cut short: fetch it "
                            "again") from error
    return plain_file(path)
