"""Standard output and standard error, which may be closed, lost, full, or of an encoding that lacks some characters.

What is printed there is never a reason to stop a computation.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator

from minicnn.errors import one_line


class LastingStream:
    """A text stream on which writing never fails: what cannot be written is lost, what has no characters escaped."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):              # ValueError: it was closed
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(escaped(text))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting(*names: str) -> Iterator[None]:
    """sys.stdout and sys.stderr, or the one that is named, as LastingStream while the block lasts."""
    before = {name: getattr(sys, name) for name in names or ("stdout", "stderr")}
    for name, stream in before.items():
        if stream is not None:                          # closed before Python began; print() allows that
            setattr(sys, name, LastingStream(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
            if stream is not None:
                _flush(stream)


def _flush(stream) -> None:
    """Flush the stream; what is left of a lost one goes nowhere, or Python would fail with it when it exits."""
    try:
        stream.flush()
    except ValueError:                                  # it was closed
        return
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # a stream without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def any_text() -> Iterator[None]:
    """Both streams are there, and escape the characters that their encoding lacks, while the block lasts."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    errors = {name: getattr(stream, "errors", None) for name, stream in before.items()}
    if None in before.values():
        _occupy()
    with open(os.devnull, "w") as nowhere:
        for name, stream in before.items():
            if stream is None:
                setattr(sys, name, nowhere)
            _escape(stream, "backslashreplace")
        try:
            yield
        finally:
            for name, stream in before.items():
                setattr(sys, name, stream)
                _escape(stream, errors[name])


def _occupy() -> None:
    """Open the descriptors 0, 1 and 2, so that no file gets one of them, and with it what libraries print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _escape(stream, errors: str | None) -> None:
    if errors is not None and hasattr(stream, "reconfigure"):
        with contextlib.suppress(OSError):              # it flushes
            stream.reconfigure(errors=errors)


def beside(work: Callable, say: Callable[[str], None]):
    """What side work returns, such as pictures: its warnings and its exception are lines for `say`, and end nothing.

    None after an exception.
    """
    result, failed = None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = work()
        except Exception as error:
            failed = [one_line(error)]
    for line in dict.fromkeys([*(" ".join(str(entry.message).split()) for entry in caught), *failed]):
        say(line)
    return result


def escaped(text: str) -> str:
    """The text in ASCII, with escapes for all else."""
    return text.encode("ascii", "backslashreplace").decode()


def is_terminal() -> bool:
    """Whether standard error is a terminal, on which a progress bar can move."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
