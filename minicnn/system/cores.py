"""The available CPU cores, and the interval at which threads switch the GIL."""

from __future__ import annotations

import math
import os
import sys

from minicnn.system.container import cpu_quota

# Between two calls of compiled code a thread holds the GIL for a few microseconds. A thread that has to wait for the
# GIL sleeps, and waking it up can take milliseconds: on a virtual machine with two cores, a training step of the
# CIFAR-10 net on two threads took 118 to 159 ms with Python's default of 5 ms, and 90 to 126 ms with this interval.
GIL_SWITCH_SECONDS = 1e-4


def available_cores() -> int:
    """Cores this process may run on; in a container, no more than its limit of processor time fills."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cpu_quota(), cores)))


def set_gil_switch_interval() -> None:
    """Threads that wait for the GIL request it every 0.1 ms from now on (a process-wide setting)."""
    sys.setswitchinterval(min(sys.getswitchinterval(), GIL_SWITCH_SECONDS))
