"""Errors that a user can act on.

Each message is one line: what is wrong, where, what was expected, what came, and what to do about it.
The command line and the examples print it after `error:` and end with exit code 2; anything else that is
raised is a bug in minicnn and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MinicnnError(ValueError):
    """Base of every error caused by input rather than by a bug."""


class ShapeError(MinicnnError):
    """An array or a layer does not fit its neighbour; the message names the layer."""


class ConfigError(MinicnnError):
    """An option, variant or recipe that does not exist or does not make sense."""


class DataError(MinicnnError):
    """A folder or an image that cannot be used; the message names it."""


class CheckpointError(MinicnnError):
    """A checkpoint that is missing, cut short, or of another network."""


class DeviceError(MinicnnError):
    """A device or backend that cannot be used here, with the reason."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one is most likely to mean; None where none is near."""
    by_lower = {other.lower(): other for other in known}
    near = get_close_matches(str(name).lower(), by_lower, 1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def expected(name: str, known: Iterable[str]) -> str:
    """What to say after a name that does not exist: "did you mean 'conv2'?", or the names that do."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"expected one of {', '.join(known)}"


def expected_one_of(name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """The same with all the names, which are few; the nearest may be one of the aliases."""
    known = list(known)
    near = nearest(name, [*known, *aliases])
    return f"{f'did you mean {near!r}? ' if near else ''}expected one of {', '.join(known)}"
