"""Predicted and free memory, compared before the first step: an error message instead of being killed by the system.
Of a network on a GPU, the GPU's memory.
"""

from __future__ import annotations

from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.system.container import memory_left


def free_memory() -> int | None:
    """Bytes that this process may still take on the host, container limits included; None where that is not known."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    except OSError:                                   # not Linux
        return None
    return min([*free, *memory_left()], default=None)


def check_memory(net, batch: int, free: int | None = None, *, more: int = 0) -> str:
    """One line with predicted and free memory of a training step; ConfigError when it does not fit.

    more: bytes that net.memory does not count.
    """
    needed = net.memory(batch, train=True) + more
    where, read = ("memory", free_memory) if net.ops.free_memory is None else ("the GPU's memory", net.ops.free_memory)
    free = read() if free is None else free
    if free is None:
        return f"{gibibytes(needed)} predicted for a step (free memory is not known on this system)"
    if needed > free:
        raise ConfigError(f"training with batch {batch} needs {gibibytes(needed)} of {where}, {gibibytes(free)} are "
                          f"free; {_advice(net, batch, free - more)}")
    return f"{gibibytes(needed)} predicted for a step, {gibibytes(free)} free"


def _advice(net, batch: int, free: int) -> str:
    while batch > 1:
        batch //= 2
        if net.memory(batch, train=True) <= free:
            return f"a batch of {batch} would fit"
    return "not even a batch of 1 would fit, take a smaller net"


def gibibytes(count: int) -> str:
    """A number of bytes as text: 1.9 GiB, 12 MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
