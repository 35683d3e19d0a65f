"""Writing files so that each is whole or absent, and safetensors files.

A file is written beside its target as `.NAME.TOKEN.part`, brought to the disk, and renamed; then the folder is brought
to the disk as well. After a kill or a power failure at any moment the target is the old file or the new one. An
exception leaves nothing behind. A killed process leaves a `.part` file, which the next write to the same target
removes: a writer holds a lock on its own `.part` file (flock), so a file without a lock is a leftover.

    with atomic(path, "w") as file:     write_text(path, text)     write_bytes(path, data)     write_json(path, data)
    write_safetensors(path, tensors, metadata)                     read_safetensors(path, names)

Writers raise OSError, with the target as its `filename` where the system names none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from minicnn.errors import CheckpointError, MinicnnError

ENDING = ".part"
STALE = 3600                   # seconds
# NumPy's types, in the order in which the safetensors library lays them out: then our files are its files, byte by byte
DTYPES = {"uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32",
          "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}


class NewFile:
    """`file`, open for writing, which takes the place of `path` with `commit` and is removed with `discard`.

    mode: "w", "wb", "w+b" ... as of open; text is UTF-8 unless `options` (of open) say otherwise.
    folder: where the `.part` file lies, on the same file system; default beside `path`.
    """

    def __init__(self, path: str | os.PathLike, mode: str = "wb", folder: str | os.PathLike | None = None, **options):
        self.path, self._open = Path(path), True
        folder = self.path.parent if folder is None else Path(folder)
        _remove_leftovers(folder, self.path.name)
        if "b" not in mode:
            options.setdefault("encoding", "utf-8")
        descriptor, self._part = _create(folder, self.path.name)
        self.file: IO = os.fdopen(descriptor, mode, **options)

    def commit(self, also: str | os.PathLike | None = None) -> None:
        """Put the file in the place of `path`; and before that of `also`, as a second name of the same file.

        Where the file system has no hard links, `also` becomes a copy.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        if also is not None:
            _second_name(self._part, Path(also))
        os.replace(self._part, self.path)
        _sync_folder(self.path.parent)
        self._open = False
        self.file.close()                               # not before: it is locked until it is renamed

    def discard(self) -> None:
        """Remove what was written, unless it is committed already."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                self._part.unlink()
            with contextlib.suppress(OSError):          # of a full disk, when the rest of the buffer is written
                self.file.close()


@contextlib.contextmanager
def atomic(path: str | os.PathLike, mode: str = "wb", *, also: str | os.PathLike | None = None,
           **options) -> Iterator[IO]:
    """A file to write to. It takes the place of `path` when the block ends; an exception leaves the old file.

    also: a second name for the same file, see NewFile.commit.   options: of open. Raises OSError.
    """
    new = None
    try:
        new = NewFile(path, mode, **options)
        yield new.file
        new.commit(also)
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
    """Plain data as indented JSON. ValueError for NaN and infinity."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _create(folder: Path, name: str) -> tuple[int, Path]:
    """A new file, locked: its descriptor and path. Its permissions are those of any new file (umask)."""
    while True:
        part = folder / f".{name}.{secrets.token_hex(4)}{ENDING}"
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return descriptor, part
        os.close(descriptor)                            # another writer took it for a leftover in this very moment


def _lock(descriptor: int) -> bool | None:
    """True when it is locked now, False when another holds it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove the `.part` files of this target whose writers are dead; the name's older form `.NAME.part` too."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:   # one may be allowed to write, not to list
        found = [entry.path for entry in entries if entry.name.startswith(f".{name}.") and entry.name.endswith(ENDING)]
    for path in found:
        with contextlib.suppress(OSError):              # gone by now, or of another user
            descriptor = os.open(path, os.O_RDWR)       # NFS gives locks to writers only
            try:
                if _is_dead(descriptor):
                    os.unlink(path)
            finally:
                os.close(descriptor)


def _is_dead(descriptor: int) -> bool:
    """Whether nobody is writing this file any more. Without locks: whether nobody has for an hour."""
    locked = _lock(descriptor)
    return time.time() - os.fstat(descriptor).st_mtime > STALE if locked is None else locked


def _second_name(existing: Path, name: Path) -> None:
    """Put a hard link to `existing` in the place of `name`; a copy where there are no links."""
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
    """Bring the folder's names to the disk; some network file systems cannot, and say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


# ---- safetensors
def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], *,
                      also: str | os.PathLike | None = None) -> None:
    """Write arrays by name, and text by name, as a safetensors file; one array after the other, without a copy of all.

    also: a second name for the same file, see NewFile.commit. OSError where it cannot be written (see cannot_write);
    CheckpointError for an array of another type than those of DTYPES.
    """
    header, order = _header(tensors, metadata)
    with atomic(path, "wb", also=also) as file:
        file.write(header)
        for name in order:
            file.write(_little_endian(tensors[name]))


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The array's bytes as they lie in the file, uint8 (n,); no copy where they already lie so."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8)


def _header(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The bytes before the data, and the order of the data."""
    types = list(DTYPES)
    for name, array in tensors.items():
        if array.dtype.name not in DTYPES:
            raise CheckpointError(f"{name!r} is an array of {array.dtype}, which a safetensors file cannot hold; "
                                  f"expected one of {', '.join(types)}")
    order = sorted(tensors, key=lambda name: (types.index(tensors[name].dtype.name), name))
    header, end = ({"__metadata__": dict(metadata)} if metadata else {}), 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": DTYPES[tensors[name].dtype.name], "shape": tensors[name].shape,
                        "data_offsets": (begin, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)                     # the data begins at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text, order


def read_safetensors(path: str | os.PathLike, names: Callable[[str], bool] | None = None,
                     ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file by name, and its metadata.

    names: tells for each name whether the array is wanted; default all. CheckpointError when the file is missing,
    empty, cut short or damaged.
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
            return {name: file.get_tensor(name) for name in wanted}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cut short or damaged, {size:,} bytes do not make a safetensors file ({error}); "
                              "use another checkpoint") from error


def cannot_write(path: str | os.PathLike, error: OSError, kind: type[MinicnnError] = CheckpointError,
                 more: str = "") -> MinicnnError:
    """The one-line error for an OSError of a write.   more: what to add at its end."""
    return kind(f"{os.fspath(path)}: cannot be written: {error.strerror or error}; make room or choose another "
                f"folder{more}")
