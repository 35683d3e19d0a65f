"""Limits of containers and batch systems: the control groups of this process (Linux, versions 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")                         # "0::/path" of version 2, "4:memory:/path" of version 1


def groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, each before the one around it."""
    for root, path in _own(controller):
        folder = Path(path.lstrip("/"))
        inside = () if ".." in folder.parts else [root / part for part in (folder, *folder.parents)][:-1]
        yield from (*inside, root)                      # in a container, the root may be its own group


def _own(controller: str) -> Iterator[tuple[Path, str]]:
    """(folder of all groups, path of this process's) of version 2 and of this controller of version 1."""
    try:
        lines = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    except OSError:                                     # not Linux
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            yield ROOT, path
        elif controller in controllers.split(","):
            yield ROOT / controller, path


def numbers(controller: str, *names: str) -> Iterator[list[str]]:
    """The words in these files, of each group that has them all."""
    for folder in groups(controller):
        try:
            yield [word for name in names for word in (folder / name).read_text().split()]
        except OSError:                                 # this kind of limit is not in use
            continue


def cpu_quota() -> float:
    """The processors' time that this process may use, in processors; inf without a limit."""
    found = [*numbers("cpu", "cpu.max"), *numbers("cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us")]
    return min((int(quota) / int(period) for quota, period in found if quota not in ("max", "-1")), default=math.inf)


def memory_left() -> list[int]:
    """Bytes that this process may still take, by each limit there is; file cache makes room."""
    left = []
    for limit, used, *stat in (*numbers("memory", "memory.max", "memory.current", "memory.stat"),
                               *numbers("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")):
        cache = sum(int(size) for name, size in zip(stat[::2], stat[1::2], strict=False)
                    if name in ("inactive_file", "active_file"))
        if limit != "max":
            left.append(int(limit) - int(used) + cache)
    return left
