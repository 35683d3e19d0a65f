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
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from minicnn.data.prepared import LOCK, PREPARED, UNFINISHED
from minicnn.errors import DataError
from minicnn.system.files import atomic

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LARGE = 2**25                  # bytes of a tar: the list of a larger one is kept
# Files by which a folder that minicnn has written is known: runs (minicnn/train/runs) and prepared sets.
WRITTEN = frozenset(("metrics.jsonl", "last.safetensors", "best.safetensors", PREPARED))
LOCK_NAME = f"/{UNFINISHED}/{LOCK}"
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

    def text(self) -> str:
        """Its text: UTF-8, or UTF-16 with a byte order mark, which is no part of it."""
        data = self.read()
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def is_tar(name: str) -> bool:
    """Whether a file is a tar by its name."""
    return name.lower().endswith(TAR_ENDINGS)


def stem(name: str) -> str:
    """The name of a tar without its ending: "n01440764.tar" -> "n01440764"."""
    name = posixpath.basename(name)
    return next((name[:-len(ending)] for ending in TAR_ENDINGS if name.lower().endswith(ending)), name)


@dataclass
class LeftOut:
    """What a listing leaves out, or finds twice; printed in one line, so that nothing vanishes without a word."""

    written: list[str] = field(default_factory=list)           # folders that minicnn wrote
    links: list[str] = field(default_factory=list)             # to a folder above them
    twice: list[str] = field(default_factory=list)             # "a and b"
    empty: list[str] = field(default_factory=list)             # class folders without images
    loose: list[str] = field(default_factory=list)             # images beside class folders
    others: Counter = field(default_factory=Counter)           # ending -> files that are no images
    replaced: int = 0                                          # files that come again under the same name
    entered: dict[str, str] = field(default_factory=dict)      # real path of a folder -> its first name

    def words(self) -> list[str]:
        """Such as "not used: 40 .heic files"."""
        said = [(self.written, "left out, since minicnn wrote it"), (self.links, "not followed, a link up the tree"),
                (self.twice, "the same folder, so its images count twice"),
                (self.empty, "no class, since without images"), (self.loose, "not used, an image beside the classes")]
        lines = [f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3:,} more' if len(names) > 3 else ''}"
                 for names, what in said if names]
        if self.replaced:
            lines.append(f"{self.replaced:,} files that come again under the same name count once")
        if self.others:
            kinds = [f"{count:,} {ending or 'without ending'}" for ending, count in self.others.most_common(5)]
            more = f" and {len(self.others) - 5} more kinds" if len(self.others) > 5 else ""
            lines.append(f"not used, since no image that can be read: {', '.join(kinds)}{more}")
        return lines


def tree(folder: str, left_out: LeftOut, inside: str = "", above: frozenset = frozenset(),
         ) -> Iterator[tuple[str, os.DirEntry | None]]:
    """Name and entry of every file below folder/inside; of every folder its name, which ends in "/", and None.

    Hidden files and a Mac archive's are left out, and so is what minicnn has written. Links are followed, but not up
    the tree.
    """
    here = os.path.join(folder, inside)
    real = os.path.realpath(here)
    if real in above:
        left_out.links.append(inside)
        return
    entries = _entries(here)
    if inside and _is_written(entries):
        left_out.written.append(inside)
        return
    if inside:
        yield f"{inside}/", None
    if (first := left_out.entered.setdefault(real, inside)) != inside:
        left_out.twice.append(f"{first or '.'} and {inside}")
    for entry in entries:
        name = posixpath.join(inside, entry.name)
        if _hidden(entry.name):
            continue
        if entry.is_dir():
            yield from tree(folder, left_out, name, above | {real})
        elif entry.is_file():
            yield name, entry


def _entries(folder: str) -> list[os.DirEntry]:
    """The entries of a folder by name. DataError when it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}; expected a folder that can be read") from error


def _is_written(entries: list[os.DirEntry]) -> bool:
    """Whether a folder is a run, a prepared set, or holds nothing but such folders."""
    if any(entry.name in WRITTEN for entry in entries):
        return True
    shown = [entry for entry in entries if not _hidden(entry.name)]
    if any(entry.name == UNFINISHED and os.path.exists(os.path.join(entry.path, LOCK)) for entry in shown):
        return True
    return bool(shown) and all(entry.is_dir() and not entry.is_symlink() for entry in shown) and all(
        _is_written(_entries(entry.path)) for entry in shown)


def without_written(files: list[File], left_out: LeftOut) -> list[File]:
    """The same for the members of tars: without the folders that minicnn wrote, and those that hold nothing else."""
    written = {posixpath.dirname(file.name) for file in files if posixpath.basename(file.name) in WRITTEN}
    written |= {file.name[:-len(LOCK_NAME)] for file in files if file.name.endswith(LOCK_NAME)}
    written -= {""}
    if not written:
        return files
    left_out.written += sorted(written)
    kept = [file for file in files if not written.intersection(_folders_of(file.name))]
    holding = {folder for file in kept if not file.name.endswith("/") for folder in _folders_of(file.name)}
    emptied = {folder for folder in written for folder in _folders_of(f"{folder}/")} - holding
    return [file for file in kept if file.name[:-1] not in emptied or not file.name.endswith("/")]


def _folders_of(name: str) -> list[str]:
    """The folders that hold a file; of a folder, "a/b/", also itself."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:k]) for k in range(1, len(parts) + 1)]


def walk(folder: str, inside: str = "", left_out: LeftOut | None = None) -> Iterator[File]:
    """Every file and folder below folder/inside; see tree."""
    for name, entry in tree(folder, left_out or LeftOut(), inside):
        if entry is None:
            yield File(name, os.path.join(folder, name), 0, 0, 0)
        else:
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


def expand(files: Iterable[File], scratch: str, left_out: LeftOut) -> list[File]:
    """The files, with a folder of the tar's name, holding its members, in place of each tar.

    A name that comes again stands for the same file: the last member of a tar, as tar itself takes it; but the first of
    several sources, such as a folder beside the tar that it was unpacked from.
    """
    found: dict[str, File] = {}
    for file in files:
        if not is_tar(file.name):
            found.setdefault(file.name, file)
            continue
        folder = posixpath.join(posixpath.dirname(file.name), stem(file.name))
        found.setdefault(f"{folder}/", file._replace(name=f"{folder}/", size=0))
        for member in members(file, scratch):
            name = posixpath.join(folder, member.name)
            there = found.setdefault(name, member._replace(name=name))
            if there.offset != member.offset or there.where != member.where:
                left_out.replaced += not name.endswith("/")
                if there.where == member.where:
                    found[name] = member._replace(name=name)
    return without_written(list(found.values()), left_out)


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
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if getattr(error, "errno", None) is not None:      # the disk's, not the decoder's
                raise
            raise DataError(f"{tar.where} cannot be unpacked ({error}); it is damaged or was cut short: fetch it "
                            "again") from error
    return plain_file(path)
