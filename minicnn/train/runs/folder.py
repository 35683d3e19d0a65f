"""The folder of a run, which one process at a time writes to."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.system.lock import Lock
from minicnn.train.runs.run_dir import METRICS, cannot_write_to

LOCK = ".lock"
TRIES = 1000                # to make a folder that others remove all the time; below a dangling link it cannot be made
EARLY = re.compile(rf"{re.escape(LOCK)}|{re.escape(METRICS)}|events\.out\..*|\..*\.part")       # before a checkpoint


class RunFolder(os.PathLike):
    """`with RunFolder(path) as folder: ...` makes the folder and locks it, before anything slow; blocks may be nested.

    What was made is removed again at the end, unless `begun` was set: a step was taken. A run that failed before its
    first checkpoint leaves the folder as one that was killed does: the next one of this name may have it.   numbered:
    the name is no user's choice, so an empty folder of that name is ours as well. Raises ConfigError where another
    process has the folder, or where it cannot be written to.
    """

    def __init__(self, path: str | os.PathLike, numbered: bool = False):
        self.path, self.begun, self._numbered = Path(path), False, numbered
        self._lock, self._depth = Lock(self.path.absolute() / LOCK), 0
        self._made: list[Path] = []                     # folders, the innermost first
        self._is_free = False                           # it held nothing to keep

    def __fspath__(self) -> str:
        return str(self.path)

    def __enter__(self) -> RunFolder:
        if not self._depth and not self._take():
            raise ConfigError(f"{self.path} is in use by {self._lock.owner()}; wait for it, stop it, or choose another "
                              "folder")
        self._depth += 1
        return self

    def __exit__(self, *exception) -> None:
        self._depth -= 1
        if not self._depth:
            try:
                self._release()
            except KeyboardInterrupt:                   # in the middle of it
                self._release()
                raise

    def enter_if_free(self) -> bool:
        """Enter, where the folder holds nothing to keep, and no other process has it; else False."""
        if not _is_free(self.path) or not self._take():
            return False
        self._depth = 1
        if not self._is_free:                           # another process was quicker
            self.__exit__()
        return self._is_free

    def _take(self) -> bool:
        """Make and lock the folder; False where another process has it."""
        folder, taken, tries = self.path.absolute(), None, TRIES
        try:
            while taken is None:
                try:
                    self._make(folder)
                    free, left = _is_free(folder), (folder / LOCK).exists()
                    taken = self._lock.take()
                except FileNotFoundError:               # another process has just removed a folder, or none can be made
                    tries -= 1
                    if not tries:
                        raise
        except OSError as error:
            self._remove_made()
            raise cannot_write_to(self.path, error) from error
        self._is_free = taken and free and _is_free(folder)
        if self._is_free and (left or self._numbered):              # left: by a run that was killed
            self._made.insert(0, folder)
        if not taken:
            self._made = []
        return taken

    def _make(self, folder: Path) -> None:
        """Make the folder and those around it, where they are missing, and note which were."""
        for path in reversed((folder, *folder.parents)):
            if not path.is_dir():
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    self._made.insert(0, path)

    def _release(self) -> None:
        if self._lock.is_taken and self._is_free and not self.begun:
            for name in filter(EARLY.fullmatch, os.listdir(self.path)):
                if name != LOCK:
                    (self.path / name).unlink()
        if self._lock.is_taken:
            self._lock.release(keep=self.begun and self._is_free and all(map(EARLY.fullmatch, os.listdir(self.path))))
        self._remove_made()

    def _remove_made(self) -> None:
        """Remove the folders that were made and are empty."""
        with contextlib.suppress(OSError):
            for folder in dict.fromkeys(self._made):
                folder.rmdir()
        self._made = []


def _is_free(folder: Path) -> bool:
    """Whether a new run may have it: it is missing or empty, or its run was killed before the first checkpoint."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:                          # a file; below a file, _take says so
        return not os.path.lexists(folder)
    return not names or (LOCK in names and all(map(EARLY.fullmatch, names)))


@contextlib.contextmanager
def new_run(out: str | os.PathLike, name: str | None, stem: str) -> Iterator[RunFolder]:
    """The folder of a new run: out/name, or the first of out/stem-1, -2 ... that is free."""
    names = [name] if name is not None else (f"{stem}-{number}" for number in itertools.count(1))
    folders = (RunFolder(Path(out) / each, numbered=name is None) for each in names)
    folder = next((folder for folder in folders if folder.enter_if_free()), None)
    if folder is None:
        raise ConfigError(f"{Path(out) / name} exists and is not empty; resume that run, or choose another name")
    try:
        yield folder
    finally:
        folder.__exit__()
