"""A lock file: one process at a time has it, and the file says which. A process that is killed leaves the file behind,
but not its hold on it, which the system takes back (flock).

On a file system without locks, a file that a living process of this machine, or any of another one, wrote is believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path


class Lock:
    """path: of the file, which is made by `take` and removed by `release`."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether this call has taken it; if not, see `owner`. OSError where the file cannot be made."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if not self._is_free(descriptor):
                os.close(descriptor)
                return False
            if _is_at(descriptor, self.path):
                self._descriptor = descriptor
                self._sign()
                return True
            os.close(descriptor)                        # its last owner has removed it meanwhile

    @property
    def is_taken(self) -> bool:
        """Whether it is this object's."""
        return self._descriptor is not None

    def release(self, keep: bool = False) -> None:
        """Remove the file, unless it is to be kept as that of a process that was killed; and then give it back. Where
        an interrupt ended it, it can be called again.
        """
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if not keep and _is_at(self._descriptor, self.path):
                    self.path.unlink()
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def owner(self) -> str:
        """Such as "process 4711 on gpu3": who has it, or had it last."""
        pid, machine = self._signature()
        return f"process {pid} on {machine}" if pid else "another process"

    def _is_free(self, descriptor: int) -> bool:
        locked = try_lock(descriptor)
        return not _is_alive(*self._signature()) if locked is None else locked

    def _sign(self) -> None:
        """Write who has it. On a full disk the file stays empty, which is as good a lock."""
        text = json.dumps({"process": os.getpid(), "machine": socket.gethostname()})
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)

    def _signature(self) -> tuple[int, str]:
        try:
            signed = json.loads(self.path.read_bytes())
            return int(signed["process"]), str(signed["machine"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0, ""


def try_lock(descriptor: int) -> bool | None:
    """True if locked by this call, False if another process holds a lock, None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def waiting(folder: str | os.PathLike) -> Iterator[None]:
    """One process after the other, in what they do with this folder; where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_alive(pid: int, machine: str) -> bool:
    """Whether this process may still be running; on another machine that is not known."""
    if not pid or machine != socket.gethostname():
        return bool(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:                             # of another user
        return True
    return True
