"""Errors that a user can fix.

Each message is one line: what is wrong, where, what was expected, what was given, and what to do about it. The command
line and the examples print it after `error:` and exit with code 2; any other exception is a bug in minicnn and keeps
its traceback.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches


class MinicnnError(ValueError):
    """Base class of every error caused by user input rather than by a bug."""


class ShapeError(MinicnnError):
    """Incompatible shapes of arrays or layers; the message names the layer."""


class ConfigError(MinicnnError):
    """An option, variant or recipe that does not exist or is invalid."""


class DataError(MinicnnError):
    """A folder or an image that cannot be used; the message names it."""


class CheckpointError(MinicnnError):
    """A checkpoint that is missing, truncated, or of another network."""


class DeviceError(MinicnnError):
    """A device or backend that is not available, with the reason."""


def one_line(error: Exception) -> str:
    """What an exception of any kind says, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (MinicnnError, OSError)) else f"{type(error).__name__}{': ' * bool(text)}{text}"


def printable(text: str, categories: tuple[str, ...] = ("Cc",), kept: str = "") -> str:
    """The text with escapes for its control characters, such as a name's end of a line; except those in `kept`."""
    return "".join(ascii(mark)[1:-1] if unicodedata.category(mark) in categories and mark not in kept else mark
                   for mark in text)


def plural(count: int, what: str) -> str:
    """Such as "1 epoch" and "2 epochs"."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def rounded(number: float) -> str:
    """Three significant digits, and all that are before the point: "0.0385", "7.69", "1200"."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a mistyped one; None if none is close."""
    by_lower = {other.lower(): other for other in known}
    near = get_close_matches(str(name).lower(), by_lower, 1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def expected(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: "did you mean 'conv2'?", or the list of known names."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"expected one of {listed(known)}"


def expected_one_of(name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """The same with all the names, which are few; the nearest may be one of the aliases."""
    known = list(known)
    near = nearest(name, [*known, *aliases])
    return f"{f'did you mean {near!r}? ' if near else ''}expected one of {listed(known)}"


def listed(names: list[str], most: int = 24, ends: int = 6) -> str:
    """The names; where there are more than `most`, some of both ends."""
    if len(names) > most:
        names = [*names[:ends], f"... ({len(names) - 2 * ends} more) ...", *names[-ends:]]
    return ", ".join(names)
