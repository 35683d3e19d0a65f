"""Checks of a network's graph and of its inputs; the messages recognise the most common mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from minicnn.errors import ConfigError, ShapeError, expected
from minicnn.plan import LABELS, Node

NAME = re.compile(r"[A-Za-z0-9_]+")


def check_names(nodes: Sequence[Node], inputs: Iterable[str]) -> None:
    """ConfigError unless every name is valid and unique, and every node reads only inputs or earlier nodes."""
    known = {*inputs, LABELS}
    for name in (*inputs, *(node.name for node in nodes)):
        check_name(name)
    for node in nodes:
        if node.name in known:
            raise ConfigError(f"layer {node.name!r}: the name is already used; layer names must be unique")
        for source in node.inputs:
            if source not in known:
                raise ConfigError(f"layer {node.name!r} reads {source!r}, but no earlier layer has that name")
        known.add(node.name)


def check_name(name: str) -> None:
    """ConfigError for a name that cannot be part of an array's name in files, such as "conv1.w" or "state/bn1.mean"."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be the name of a layer or input: use letters, digits and _ only")


def unknown_layer(name: str, nodes: Sequence[Node]) -> ConfigError:
    """The error for a name that no layer has."""
    return ConfigError(f"no layer is called {name!r}; {expected(name, (node.name for node in nodes))}")


def check_inputs(net, x, labels) -> dict:
    """Input -> array on the device, plus the labels if given. ShapeError for a wrong shape, dtype or batch size."""
    given = dict(x) if isinstance(x, dict) else {next(iter(net.inputs)): x}
    if set(given) != set(net.inputs):
        raise ShapeError(f"network {net.name!r} has inputs {sorted(net.inputs)}, got {sorted(given)}")
    batch = None
    for name, shape in net.inputs.items():
        array, where = given[name], f"input {name!r} of network {net.name!r}"
        if getattr(array, "ndim", 0) != len(shape) + 1 or tuple(array.shape[1:]) != shape or array.shape[0] < 1:
            got = tuple(getattr(array, "shape", ()))
            raise ShapeError(f"{where} must be (N, {', '.join(map(str, shape))}) with N >= 1, got {got}"
                             + shape_hint(got, shape))
        if str(array.dtype) != net.dtype:
            raise ShapeError(f"{where} must be {net.dtype}, got {array.dtype}; convert it with "
                             f"x.astype({net.dtype!r})")
        if batch not in (None, array.shape[0]):
            raise ShapeError(f"the inputs of network {net.name!r} have different batch sizes")
        batch = array.shape[0]
        given[name] = net.ops.from_host(array) if isinstance(array, np.ndarray) else array
    if labels is not None:
        labels = np.asarray(labels)
        net.check_labels(labels, batch)
        given[LABELS] = net.ops.from_host(labels.astype(np.int32))
    return given


def shape_hint(got: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """A hint on how to fix an array of the wrong shape, if the cause can be guessed."""
    if len(shape) == 3 and got[1:] == (shape[2], *shape[:2]):
        return "; images are channels-last here: pass x.transpose(0, 2, 3, 1)"
    return "; add the batch axis: pass x[None]" if got == shape else ""


def check_labels(labels: np.ndarray, count: int, classes: int) -> None:
    """ShapeError unless these are `count` integers in 0..classes-1."""
    if labels.shape == (count, classes) and classes > 1:
        raise ShapeError(f"labels must be {count} integers, one per image, got {labels.dtype} {labels.shape}; "
                         "one-hot labels become integers by labels.argmax(axis=1)")
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ShapeError(f"labels must be {count} integers, one per image, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        hint = "; do they count from 1? pass labels - 1" if labels.min() == 1 and labels.max() == classes else ""
        raise ShapeError(f"labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}{hint}")


def check_ids(sample_ids, count: int) -> np.ndarray:
    """uint32 (count,), by default 0..count-1. ShapeError unless there is one per image."""
    if sample_ids is None:
        return np.arange(count, dtype=np.uint32)
    if len(sample_ids) != count:
        raise ShapeError(f"sample_ids must have one entry per image, {count}, got {len(sample_ids)}")
    return np.ascontiguousarray(sample_ids, np.uint32)
