"""Graceful shutdown: on Ctrl-C and SIGTERM the training finishes the step, saves, and exits.

A second Ctrl-C stops at once, as Ctrl-C does elsewhere.
"""

from __future__ import annotations

import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """`with Interrupt() as interrupt: ... if interrupt.requested: save and leave`. Idle outside the main thread."""

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # not print: the signal may have come while the same stream was being written to
        os.write(2, b"\nstopping after this step, then saving (once more to stop at once, without saving)\n")
