"""Graceful shutdown: on Ctrl-C, SIGTERM, or a lost terminal, the training finishes the step, saves, and exits.

A second Ctrl-C stops at once, as Ctrl-C does elsewhere; `at_once`, the first signal does: before the first step, while
kernels are compiled for a minute, there is nothing to save. The other signals often come twice, from a scheduler or a
closing terminal, and change nothing the second time. A signal that is ignored, as by nohup, stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

OTHERS = (signal.SIGTERM, signal.SIGHUP)
SIGNALS = (signal.SIGINT, *OTHERS)


class Interrupt:
    """`with Interrupt() as interrupt: ... if interrupt.requested: save and leave`. Idle outside the main thread.

    at_once: a signal raises KeyboardInterrupt, as long as this is true.
    """

    def __init__(self, at_once: bool = False):
        self.requested, self.at_once = False, at_once
        self._handled = contextlib.ExitStack()

    def __enter__(self) -> Interrupt:
        self._handled.enter_context(_handling(self._handle, {number for number in SIGNALS if not _is_ignored(number)}))
        return self

    def __exit__(self, *exception) -> None:
        self._handled.close()

    def _handle(self, number: int, frame) -> None:
        if self.at_once:
            raise KeyboardInterrupt
        if self.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.requested = True
        # not print: the signal may have come while the same stream was being written to
        with contextlib.suppress(OSError, ValueError, AttributeError):      # closed, or lost with the terminal
            os.write(sys.__stderr__.fileno(),
                     b"\nstopping after this step, then saving (Ctrl-C once more to stop at once, without saving)\n")


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, where they would end the process and leave files."""
    def stop(number: int, frame) -> None:
        raise KeyboardInterrupt

    with _handling(stop, {number for number in OTHERS if signal.getsignal(number) is signal.SIG_DFL}):
        yield


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


@contextlib.contextmanager
def _handling(handler: Callable, numbers: set[int]) -> Iterator[None]:
    """These signals go to this handler while the block lasts; only the main thread can change that."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)     # None: not Python's
