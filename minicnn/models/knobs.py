"""Variants of a network: its options ("knobs") as a frozen dataclass, whose defaults are the paper's, and rows that
change some of them.

    VARIANTS = {"paper": Knobs(), "caffe": replace(Knobs(), input_size=227)}

`differences` describes in words where a row departs from the first one; `minicnn models` and training print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TypeVar

from minicnn.errors import ConfigError

Knobs = TypeVar("Knobs")


def knobs_of(title: str, variants: Mapping[str, Knobs], variant: str, **changes) -> Knobs:
    """The knobs of a variant, with some overridden. Raises ConfigError for an unknown name.

    title: the network in messages.
    """
    if variant not in variants:
        raise ConfigError(f"unknown {title} variant {variant!r}: expected one of {', '.join(variants)}")
    known = names_of(variants[variant])
    for name in changes:
        if name not in known:
            raise ConfigError(f"{title} has no knob {name!r}: expected one of {', '.join(known)}")
    return replace(variants[variant], **changes)


def names_of(knobs: type | Knobs) -> list[str]:
    """The names of all knobs."""
    return [field.name for field in fields(knobs)]


def differences(paper: Knobs, knobs: Knobs) -> list[str]:
    """Where `knobs` depart from the paper's, one line per knob; empty if they do not."""
    lines = []
    for name in names_of(paper):
        ours, papers = getattr(knobs, name), getattr(paper, name)
        if ours == papers:
            continue
        if not (isinstance(ours, tuple) and isinstance(papers, tuple) and len(ours) == len(papers)):
            lines.append(f"{name}: {_words(ours)} (paper: {_words(papers)})")
            continue
        layers: dict[tuple, list[int]] = {}                 # (ours, paper's) -> the layers with these values
        for layer, both in enumerate(zip(ours, papers, strict=True), start=1):
            layers.setdefault(both, []).append(layer)
        lines += [f"{name}, layer {', '.join(map(str, where))}: {_words(our)} (paper: {_words(paper)})"
                  for (our, paper), where in layers.items() if our != paper]
    return lines


def _words(value) -> str:
    if value is None:
        return "uniform within 1/sqrt(fan in)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_words, dict.fromkeys(value)))
    return value.replace(" ", " -> ") if isinstance(value, str) else f"{value:g}"
