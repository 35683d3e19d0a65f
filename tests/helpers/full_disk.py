"""A disk that is full from the k-th write on, or for it alone: each of them raises OSError(ENOSPC)."""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
from collections.abc import Iterator

CALLS = ("open", "pwrite", "fsync", "link", "replace", "mkdir")      # of os; `open` where it makes a file


class Disk:
    """Counts the writes to files below `folder`; `fails(k)` says which of them, from 0 on, fail."""

    def __init__(self, folder, fails):
        self.folder, self.fails, self.count = os.fspath(folder), fails, 0

    def use(self, name: str) -> None:
        """One write."""
        self.count += 1
        if self.fails(self.count - 1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    def has(self, path) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self.folder)


class File:
    """An open file whose writes count."""

    def __init__(self, disk: Disk, file):
        self._disk, self._file = disk, file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._disk.use(None)
        return self._file.write(data)

    def writelines(self, lines):
        for line in lines:
            self.write(line)


@contextlib.contextmanager
def full_disk(monkeypatch, folder, fails=lambda k: False) -> Iterator[Disk]:
    """Below this folder, each write for which fails(k) holds raises ENOSPC; the Disk counts them all."""
    disk, real = Disk(folder, fails), {name: getattr(os, name) for name in CALLS}
    opened, wrapped = builtins.open, os.fdopen

    def call(name):
        def function(*arguments, **options):
            makes = name != "open" or arguments[1] & os.O_CREAT
            if makes and (disk.has(arguments[0]) or isinstance(arguments[0], int)):
                disk.use(arguments[0] if disk.has(arguments[0]) else None)
            return real[name](*arguments, **options)
        return function

    def open_file(path, mode="r", *arguments, **options):
        if not (disk.has(path) and set(mode) & set("wax+")):
            return opened(path, mode, *arguments, **options)
        disk.use(path)
        return File(disk, opened(path, mode, *arguments, **options))

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, call(name))
        patch.setattr(builtins, "open", open_file)
        patch.setattr(os, "fdopen", lambda *arguments, **options: File(disk, wrapped(*arguments, **options)))
        yield disk
