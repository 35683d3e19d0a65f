"""Augmentation as it is asked for on the command line: `--augment scale=256:480,cutout=8,flip=no`."""

from __future__ import annotations

import dataclasses

from minicnn.data.augment import Augment
from minicnn.errors import ConfigError, expected_one_of

FIELDS = {field.name: field.default for field in dataclasses.fields(Augment) if field.name != "crop"}
WORDS = {"yes": True, "no": False, "true": True, "false": False, "none": None}
LISTED = ", ".join(FIELDS)


def parsed(text: str) -> dict:
    """Field of Augment -> value. ConfigError for one that does not exist, or makes no sense."""
    found = {}
    for part in filter(None, text.split(",")):
        name, is_set, value = part.partition("=")
        if name not in FIELDS:
            raise ConfigError(f"--augment: unknown setting {name!r}: {expected_one_of(name, FIELDS)}")
        if not is_set:
            raise ConfigError(f"--augment: {name} has no value; write it as {name}=VALUE, a range as {name}=LOW:HIGH")
        if name in found:
            raise ConfigError(f"--augment: {name} is given twice")
        found[name] = _value(value)
    checked(found)
    return found


def checked(settings: dict) -> Augment:
    """The augmentation of these settings alone. ConfigError where they make no sense."""
    try:
        return Augment(**settings)
    except TypeError as error:                          # such as a word where a number is expected
        raise ConfigError(f"--augment {in_words(settings)}: {error}; a value of another kind is expected") from error


def _value(text: str):
    """A word, a number, or a range of numbers."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    low, is_range, high = text.partition(":")
    return (_number(low), _number(high)) if is_range else _number(text)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def in_words(settings: dict) -> str:
    """The inverse of `parsed`."""
    names = {value: name for name, value in reversed(WORDS.items())}
    return ",".join(f"{name}={':'.join(map(str, value))}" if isinstance(value, (tuple, list)) else
                    f"{name}={names[value] if value is None or isinstance(value, bool) else value}"
                    for name, value in settings.items())
