"""The processors there are to work with, and how threads share Python's lock on them."""

from __future__ import annotations

import os
import sys

# Between two pieces of compiled work a thread needs Python's lock for some microseconds. One that finds it taken
# sleeps, and a core that sleeps may be milliseconds late to wake: on a virtual machine of two cores, a step of the
# CIFAR-10 net on two threads took 118 to 159 ms with Python's own 5 ms, and 90 to 126 ms when they looked this often.
GIL_SWITCH_SECONDS = 1e-4


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_gil_switch_interval() -> None:
    """From now on, threads that wait for Python's lock look for it every 0.1 ms (a setting of the whole process)."""
    sys.setswitchinterval(min(sys.getswitchinterval(), GIL_SWITCH_SECONDS))
