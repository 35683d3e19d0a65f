"""Atomic file writes, and safetensors files.

A file is written to a temporary file `.NAME.TOKEN.part` in the same folder, synced (fsync) and renamed; then the folder
is synced as well. After a kill or a power failure at any time, the target is either the old file or the new one. An
exception leaves no temporary file. A killed process leaves a `.part` file, which the next write to the same target
removes: a writer holds a lock on its `.part` file (flock), so a file without a lock is a leftover. A file that is
replaced keeps its permissions; a symbolic link remains, and the file it points to is replaced.

    with atomic(path, "w") as file:     write_text(path, text)     write_bytes(path, data)     write_json(path, data)
    write_safetensors(path, tensors, metadata)                     read_safetensors(path, names)

Writers raise OSError, with the target as its `filename` if the system gives none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from minicnn.errors import CheckpointError, ConfigError, MinicnnError
from minicnn.system.cores import available_cores
from minicnn.system.lock import try_lock

ENDING = ".part"
STALE = 3600                   # seconds
# NumPy's dtypes, in the order used by the safetensors library, so that our files are byte-identical with its files
DTYPES = {"uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32",
          "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}


class NewFile:
    """`file`, open for writing; `commit` renames it to `path`, `discard` removes it.

    mode: "w", "wb", "w+b" ... as of open; text is UTF-8 unless `options` (of open) say otherwise.
    folder: of the `.part` file, on the same file system; by default that of `path`.
    """

    def __init__(self, path: str | os.PathLike, mode: str = "wb", folder: str | os.PathLike | None = None, **options):
        self.path, self._open = _resolved(path), True
        folder = self.path.parent if folder is None else Path(folder)
        _remove_leftovers(folder, self.path.name)
        if "b" not in mode:
            options.setdefault("encoding", "utf-8")
        descriptor, self._part = _create(folder, self.path.name)
        self.file: IO = os.fdopen(descriptor, mode, **options)
        _keep_mode(self.path, descriptor)

    def commit(self, also: str | os.PathLike | None = None, keep: str | os.PathLike | None = None) -> None:
        """Replace `path` by the file, and before that `also`, as a hard link to it.

        keep: a name for the file that is replaced, if it can be had. Without hard links, both become copies.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        if also is not None:
            _second_name(self._part, _resolved(also))
        if keep is not None:
            with contextlib.suppress(OSError):
                _second_name(self.path, _resolved(keep))
        os.replace(self._part, self.path)
        _sync_folder(self.path.parent)
        self._open = False
        self.file.close()                               # not earlier: it must be locked until it is renamed

    def discard(self) -> None:
        """Remove the temporary file, unless it has been committed."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                self._part.unlink()
            with contextlib.suppress(OSError):          # a full disk, when the buffer is flushed
                self.file.close()


@contextlib.contextmanager
def atomic(path: str | os.PathLike, mode: str = "wb", *, also: str | os.PathLike | None = None,
           keep: str | os.PathLike | None = None, **options) -> Iterator[IO]:
    """A file to write to. It replaces `path` when the block ends; after an exception the old file remains.

    also, keep: further names of the new file and of the old one, see NewFile.commit.   options: of open.
    Raises OSError.
    """
    new = None
    try:
        new = NewFile(path, mode, **options)
        yield new.file
        new.commit(also, keep)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None and str(error.filename or ENDING).endswith(ENDING):
            error.filename = os.fspath(path)
        if new is not None:
            new.discard()
        raise


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    with atomic(path, "wb") as file:
        file.write(data)


def write_text(path: str | os.PathLike, text: str, **options) -> None:
    """Text as UTF-8. options: of open, such as errors="surrogateescape"."""
    with atomic(path, "w", **options) as file:
        file.write(text)


def write_json(path: str | os.PathLike, data) -> None:
    """JSON-serialisable data, indented. ValueError for NaN and infinity."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def signed(data: dict, kind: str) -> dict:
    """JSON data with its checksum, and its format at both ends: damage to one mark leaves the others."""
    form = f"minicnn {kind} 1"
    body = {"format": form, **data, "end": form}
    return {"crc32": _json_crc32(body), **body}


def unsigned(data: dict) -> dict:
    """The data that was signed; data that never was as it is. ValueError where it has changed since."""
    body = {name: value for name, value in data.items() if name != "crc32"}
    if body == data and not any(re.fullmatch(r"minicnn \w+ 1", str(value)) for value in data.values()):
        return data
    if data.get("crc32") != _json_crc32(body):
        raise ValueError("it has changed since it was written (checksum)")
    return {name: value for name, value in body.items() if name not in ("format", "end")}


def _json_crc32(body: dict) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _resolved(path: str | os.PathLike) -> Path:
    """The file that is written: where `path` is a symbolic link, what it points to."""
    return Path(os.path.realpath(path))


def _keep_mode(path: Path, descriptor: int) -> None:
    """Give the open file the permissions of the file that it will replace, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != stat.S_IMODE(os.fstat(descriptor).st_mode):     # file systems without permissions refuse any change
            os.fchmod(descriptor, mode)


def _create(folder: Path, name: str) -> tuple[int, Path]:
    """A new file, locked: its descriptor and path. Its permissions are those of any new file (umask)."""
    while True:
        part = folder / f".{name}.{secrets.token_hex(4)}{ENDING}"
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if try_lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return descriptor, part
        os.close(descriptor)                            # another writer has just removed it as a leftover


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove the `.part` files of this target whose writers are dead, including the older form `.NAME.part`."""
    pattern, found = re.compile(rf"\.{re.escape(name)}(\.[0-9a-f]{{8}})?{re.escape(ENDING)}"), []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:   # the folder may be writable but not listable
        found = [entry.path for entry in entries if pattern.fullmatch(entry.name)]
    for path in found:
        with contextlib.suppress(OSError):              # removed meanwhile, or of another user
            descriptor = os.open(path, os.O_RDWR)       # NFS grants locks to writers only
            try:
                if _is_dead(descriptor):
                    os.unlink(path)
            finally:
                os.close(descriptor)


def _is_dead(descriptor: int) -> bool:
    """Whether no process is writing this file any more. Without locks: whether it is unchanged for an hour."""
    locked = try_lock(descriptor)
    return time.time() - os.fstat(descriptor).st_mtime > STALE if locked is None else locked


def _second_name(existing: Path, name: Path) -> None:
    """Replace `name` by a hard link to `existing`, or by a copy if links are not supported."""
    _remove_leftovers(name.parent, name.name)
    link = name.with_name(f".{name.name}.{secrets.token_hex(4)}{ENDING}")
    try:
        os.link(existing, link)
    except OSError:
        with open(existing, "rb") as source, atomic(name) as copy:
            shutil.copyfileobj(source, copy)
        return
    try:
        os.replace(link, name)
    except OSError:
        link.unlink()
        raise
    _sync_folder(name.parent)


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entries; some network file systems do not support it and return EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


# ---- safetensors
CRC32 = "crc32"               # in the metadata: "crc32 " and 8 hexadecimal digits for each array, and for the header


def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], *,
                      also: str | os.PathLike | None = None, keep: str | os.PathLike | None = None,
                      checksums: bool = True) -> None:
    """Write arrays and metadata as a safetensors file; arrays are streamed one by one, without a copy of all.

    also, keep: further names of the new file and of the old one, see NewFile.commit.   checksums: add them to the
    metadata. OSError if it cannot be written (see cannot_write); CheckpointError for a dtype that is not in DTYPES,
    ConfigError for metadata that are not strings.
    """
    unknown = {CRC32: f"{CRC32} " + "0" * 8 * (len(tensors) + 1)} if checksums else {}
    header, order = _header(tensors, {**metadata, **unknown})
    with atomic(path, "wb", also=also, keep=keep) as file, ThreadPoolExecutor(1) as pool:
        file.write(header)
        sums = "".join([_write_array(file, tensors[name], pool) for name in order])
        if checksums:
            file.seek(0)
            file.write(_signed(header, unknown[CRC32], sums))


def _write_array(file: IO, array: np.ndarray, pool: ThreadPoolExecutor) -> str:
    """Write an array; returns its checksum, which is computed meanwhile."""
    data = _little_endian(array)
    crc32 = pool.submit(_crc32, data)
    file.write(data)
    return crc32.result()


def _crc32(data: np.ndarray | bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def _signed(header: bytes, value: str, sums: str) -> bytes:
    """The header with the checksums of the arrays, and of itself with zeros for the latter, in the place of `value`."""
    signed = header.replace(value.encode(), f"{CRC32} {sums}{'0' * 8}".encode(), 1)
    return signed.replace(f"{CRC32} {sums}".encode() + b"0" * 8, f"{CRC32} {sums}{_crc32(signed)}".encode(), 1)


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The array's bytes in little-endian C order, uint8 (n,); without a copy if possible."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8)


def _header(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The header bytes, and the names in the order of the data."""
    types = list(DTYPES)
    for name, array in tensors.items():
        if array.dtype.name not in DTYPES:
            raise CheckpointError(f"{name!r} is an array of {array.dtype}, which a safetensors file cannot hold; "
                                  f"expected one of {', '.join(types)}")
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise ConfigError(f"metadata {key!r}: {value!r} cannot be saved; expected strings, as in a safetensors "
                              "file; use str() or json.dumps()")
    order = sorted(tensors, key=lambda name: (types.index(tensors[name].dtype.name), name))
    header, end = ({"__metadata__": dict(metadata)} if metadata else {}), 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": DTYPES[tensors[name].dtype.name], "shape": tensors[name].shape,
                        "data_offsets": (begin, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)                     # aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text, order


def read_safetensors(path: str | os.PathLike, names: Callable[[str], bool] | None = None,
                     ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file by name, and its metadata, both checked where the file has checksums.

    names: predicate that selects arrays by name; default all. CheckpointError if the file is missing, empty, truncated
    or corrupt, or if an array is of a type that NumPy does not have, such as BF16.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; expected a .safetensors file written by a minicnn run")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty; use another checkpoint")
    try:
        with safe_open(path, framework="numpy") as file:
            wanted = [name for name in file.keys() if names is None or names(name)]
            for name in wanted:
                _check_type(path, name, file.get_slice(name).get_dtype())
            tensors, metadata = {name: file.get_tensor(name) for name in wanted}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cut short or damaged, {size:,} bytes do not make a safetensors file ({error}); "
                              "use another checkpoint") from error
    _check_sums(path, tensors, metadata)
    metadata.pop(CRC32, None)
    return tensors, metadata


def has_checksums(path: str | os.PathLike) -> bool:
    """Whether a safetensors file has checksums; those of version 0.1.0 have none."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return CRC32 in (file.metadata() or {})


def _check_sums(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """CheckpointError for an array, or a header, that has another checksum than was written."""
    value = metadata.get(CRC32)
    if value is None and not any(other.startswith(f"{CRC32} ") for other in metadata.values()):
        return
    with open(path, "rb") as file:
        length = file.read(8)
        header = length + file.read(int.from_bytes(length, "little"))
    order = [name for name in json.loads(header[8:]) if name != "__metadata__"]
    sums = (value or "").removeprefix(f"{CRC32} ")
    if header != _signed(header, value or "", sums[:-8]) or len(sums) != 8 * (len(order) + 1):
        raise _changed(path, "its header")
    known = dict(zip(order, (sums[at:at + 8] for at in range(0, len(sums), 8)), strict=False))
    with ThreadPoolExecutor(available_cores()) as pool:
        for name, found in zip(tensors, pool.map(_crc32, map(_little_endian, tensors.values())), strict=True):
            if found != known[name]:
                raise _changed(path, f"the array {name!r}")


def _changed(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged: {what} has changed since it was written (checksum); use another "
                           "checkpoint, or a copy of this one")


def _check_type(path: Path, name: str, kind: str) -> None:
    if kind not in DTYPES.values():
        raise CheckpointError(f"{path}: {name!r} is an array of {kind}, which NumPy does not have; expected one of "
                              f"{', '.join(DTYPES.values())}; convert it to F32")


REMEDIES = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.ENOENT: "make its folder",
            errno.EISDIR: "choose another name", errno.ENAMETOOLONG: "choose a shorter name"}


def remedy(error: OSError, *others: str) -> str:
    """What helps against an OSError of a write: what its errno asks for, or one of the others; may be empty."""
    return " or ".join(filter(None, (REMEDIES.get(error.errno), *others)))


def cannot_write(path: str | os.PathLike, error: OSError, kind: type[MinicnnError] = CheckpointError,
                 more: str = "") -> MinicnnError:
    """The one-line error for an OSError of a write, with what helps against it.   more: appended to it."""
    return kind(f"{os.fspath(path)}: cannot be written: {error.strerror or error}; "
                f"{remedy(error, 'choose another folder')}{more}")
