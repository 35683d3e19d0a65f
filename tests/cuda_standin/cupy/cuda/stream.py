"""Streams, events and graphs. Work is done when it is launched; a stream that captures keeps it for a graph."""

from __future__ import annotations

import threading
import time

from .runtime import CUDARuntimeError

_thread = threading.local()


def get_current_stream() -> Stream:
    return getattr(_thread, "stream", Stream.null)


def must_not_capture(what: str) -> None:
    """CUDARuntimeError while the current stream captures: `what` cannot be part of a graph."""
    if get_current_stream().launches is not None:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while the stream is capturing")


class Graph:
    """Captured launches, by the addresses of their arrays; it keeps none of them alive."""

    def __init__(self, launches: list):
        self._launches = launches

    def launch(self, stream: Stream | None = None) -> None:
        must_not_capture("the launch of a graph")
        for emulator, captured in self._launches:
            emulator.launch_captured(captured)


class Stream:
    """`with stream:` and use() make it the thread's current one."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False):
        self._can_capture, self._outer, self.launches = not null, [], None

    def __enter__(self) -> Stream:
        self._outer.append(get_current_stream())
        return self.use()

    def __exit__(self, *error) -> None:
        _thread.stream = self._outer.pop()

    def use(self) -> Stream:
        _thread.stream = self
        return self

    def launch(self, emulator, *launch) -> None:
        """Run or capture a launch. Not a name of CuPy's."""
        if self.launches is None:
            emulator.launch(*launch)
        else:
            self.launches.append((emulator, emulator.captured(*launch)))

    def begin_capture(self, mode=None) -> None:
        if not self._can_capture or self.launches is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the null stream, or one that captures already")
        self.launches = []

    def end_capture(self) -> Graph:
        if self.launches is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        launches, self.launches = self.launches, None
        return Graph(launches)

    def synchronize(self) -> None:
        if self.launches is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: a wait for a stream that is capturing")

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        must_not_capture("a wait for an event")


Stream.null = Stream(null=True)


class Event:
    """A moment of the host's clock."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.timing, self.seconds = not disable_timing, None

    def record(self, stream: Stream | None = None) -> None:
        must_not_capture("an event")
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        must_not_capture("a wait for an event")


def get_elapsed_time(start: Event, end: Event) -> float:
    """Milliseconds."""
    if None in (start.seconds, end.seconds) or not (start.timing and end.timing):
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: an event without a time")
    return 1e3 * (end.seconds - start.seconds)
