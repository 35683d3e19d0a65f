"""Variants of a network: its options ("knobs") as a frozen dataclass, whose defaults are the paper's, and rows that
change some of them.

    VARIANTS = {"paper": Knobs(), "caffe": replace(Knobs(), input_size=227)}

`differences` describes in words where a row departs from the first one, with a phrase for each knob; `minicnn models`
and training print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TypeVar

from minicnn.errors import ConfigError

Knobs = TypeVar("Knobs")

# Knobs in words, where the name alone does not say it.
PHRASES = {
    "input_size": "side of the images", "conv1_padding": "padding of the first convolution",
    "ceil": "the last window may pass the edge", "conv1_ceil": "the last window of conv1 may pass the edge",
    "pool_ceil": "the last window of max-pooling may pass the edge", "pool5": "window of the last max-pooling",
    "pool4": "window of max-pooling after module 4e", "after_conv": "after the convolution",
    "levels": "spatial pyramid pooling, bins a side", "fc": "units of the hidden fully connected layers",
    "lrn": "local response normalisation", "lrn_k": "LRN, k", "lrn_alpha": "LRN, alpha",
    "lrn_divide_alpha": "LRN divides alpha by the size of its window", "lrn_groups": "LRN, groups of maps",
    "batchnorm": "batch normalisation", "dropout": "dropout rate",
    "dropout_before": "dropout before the fully connected layers instead of after them",
    "dropout_inverted": "dropout scales up in training instead of down in prediction",
    "std": "standard deviation of the initial weights", "init": "initial weights", "bias": "initial bias",
    "fc_bias": "initial bias of fully connected layers", "bias_lr": "factor on the learning rate of biases",
    "bias_decay": "factor on the weight decay of biases", "fan": "initial weights by He, fan",
    "fc_uniform": "initial weights of the last layer uniform within 1/sqrt(fan in)",
    "naive": "naive modules, without 1 x 1 reductions", "five": "kernel of the 5 x 5 branch",
    "aux_adaptive": "auxiliary classifiers average maps of any size to 4 x 4",
    "shortcut": "shortcut where the shape changes", "stride_3x3": "stride of a bottleneck in its 3 x 3 convolution",
    "zero_gamma": "the last batch normalisation of a block is initialised with a scale of 0",
}
VALUES = {"relu": "ReLU", "lrn": "LRN", "lrn_within": "LRN within maps", "pool": "max-pooling", "glorot": "Glorot",
          "xavier": "Xavier", "torchvision": "He with fan out, 0.01 in fully connected layers",
          "normal": "standard deviation 0.01", "a": "A", "b": "B", "c": "C: a projection in every block"}


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


def differences(paper: Knobs, knobs: Knobs, reference: str = "paper") -> list[str]:
    """Where `knobs` depart from the paper's, one line per knob; empty if they do not.

    reference: what the values of `paper` are called.
    """
    lines = []
    for name in names_of(paper):
        ours, papers = getattr(knobs, name), getattr(paper, name)
        if ours == papers:
            continue
        phrase = PHRASES.get(name, name.replace("_", " "))
        if not (isinstance(ours, tuple) and isinstance(papers, tuple) and len(ours) == len(papers)):
            lines.append(f"{phrase}: {_words(ours)} ({reference}: {_words(papers)})")
            continue
        layers: dict[tuple, list[int]] = {}                 # (ours, paper's) -> the layers with these values
        for layer, both in enumerate(zip(ours, papers, strict=True), start=1):
            layers.setdefault(both, []).append(layer)
        lines += [f"{phrase}, layer {', '.join(map(str, where))}: {_words(our)} ({reference}: {_words(paper)})"
                  for (our, paper), where in layers.items() if our != paper]
    return lines


def _words(value) -> str:
    if value is None:
        return "none, uniform within 1/sqrt(fan in)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_words, dict.fromkeys(value))) or "none"
    if isinstance(value, str):
        return " -> ".join(VALUES.get(word, word) for word in value.split())
    return f"{value:g}"
