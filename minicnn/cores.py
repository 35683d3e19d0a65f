"""The cores that this process may use, and how its threads share the GIL."""

from __future__ import annotations

import os
import sys

# Between two compiled kernels a thread needs the GIL for some microseconds. A thread that finds it taken sleeps, and a
# sleeping core may wake up milliseconds late: on a virtual machine of two cores, a step of the CIFAR-10 net on two
# threads took 118 to 159 ms with Python's default interval of 5 ms, and 90 to 126 ms with this one.
GIL_SWITCH_SECONDS = 1e-4


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_gil_switch_interval() -> None:
    """Threads that wait for the GIL request it after 0.1 ms (a setting of the whole process)."""
    sys.setswitchinterval(min(sys.getswitchinterval(), GIL_SWITCH_SECONDS))
