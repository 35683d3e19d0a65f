"""Checks of a network's graph and of its inputs; the messages recognise the most common mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from minicnn.errors import CheckpointError, ConfigError, ShapeError, expected
from minicnn.layers.base import Layer
from minicnn.plan import LABELS, Node

NAME = re.compile(r"[A-Za-z0-9_]+")


def check_names(nodes: Sequence[Node], inputs: Iterable[str]) -> None:
    """ConfigError unless every name is valid and unique, and every node reads only inputs or earlier nodes."""
    known = {*inputs, LABELS}
    for name in (*inputs, *(node.name for node in nodes)):
        check_name(name)
    for node in nodes:
        check_layer(node.layer)
    for node in nodes:
        if node.name in known:
            raise ConfigError(f"layer {node.name!r}: the name is already used; layer names must be unique")
        for source in node.inputs:
            if source not in known:
                raise ConfigError(f"layer {node.name!r} reads {source!r}, but no earlier layer has that name")
        known.add(node.name)


def check_name(name: str) -> None:
    """ConfigError for a name that cannot be part of an array's name in files, such as "conv1.w" or "state/bn1.mean"."""
    if not isinstance(name, str):
        raise ConfigError(f"the name of a layer or input comes first, such as 'conv1'; got {name!r}")
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be the name of a layer or input: use letters, digits and _ only")


def check_layer(layer) -> Layer:
    """The layer. ConfigError for what is none, such as its class."""
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, type):
        raise ConfigError(f"expected a layer, got the class {layer.__name__}; write {layer.__name__}(...)")
    raise ConfigError(f"expected a layer, got {layer!r}")


def check_image_shape(shape) -> tuple[int, ...]:
    """The shape of one image, (H, W, C). ConfigError for what is none, or seems to be channels-first."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not all(isinstance(size, int) for size in shape):
        raise ConfigError(f"the shape of one image must be given as (H, W, C), got {shape!r}")
    if len(shape) == 3 and shape[0] == 3 and shape[1] == shape[2] >= 16:
        raise ConfigError(f"images are channels-last here, (H, W, C): for {shape} write {(*shape[1:], shape[0])}")
    return tuple(shape)


def check_output(output: str | None, nodes: Sequence[Node]) -> str:
    """The node whose value `forward` returns: `output`, or the last that is no loss."""
    names = [node.name for node in nodes if not node.layer.is_loss]
    if not names:
        raise ConfigError("the network has no layers besides losses")
    if output is not None and all(node.name != output for node in nodes):
        raise ConfigError(f"output names {output!r}, which is no layer; {expected(output, names)}")
    return output or names[-1]


def check_values(values, own: Iterable[str]) -> None:
    """CheckpointError where `values` names arrays that the network does not have."""
    if unknown := sorted(set(values or ()) - set(own)):
        raise CheckpointError(f"the given arrays have {unknown[0]!r}, which the network has not; "
                              f"{expected(unknown[0], own)}")


# What PyTorch calls it -> how it is done here.
ELSEWHERE = {"parameters": "net.params", "named_parameters": "net.params",
             "state_dict": "net.arrays(), or net.save(path)",
             "load_state_dict": "net.load_arrays(arrays), or net.load(path)", "eval": "net(x), which predicts",
             "train": "net.loss(x, labels), which trains; net(x) predicts",
             "zero_grad": "nothing: backward() starts from zero",
             "to": "net.copy(device=...)", "cuda": "net.copy(device='cuda')", "modules": "net.nodes",
             "layers": "net.nodes", "register_forward_hook": "net.trace(x, keep=[...])"}


def no_attribute(name: str, nodes: Sequence[Node]) -> str:
    """What to say of an attribute that a network does not have."""
    if any(node.name == name for node in nodes):
        return f"a network has no attribute {name!r}; its layer is net[{name!r}]"
    return f"a network has no attribute {name!r}" + (f"; use {ELSEWHERE[name]}" if name in ELSEWHERE else "")


def unknown_layer(name: str, nodes: Sequence[Node]) -> ConfigError:
    """The error for a name that no layer has."""
    return ConfigError(f"no layer is called {name!r}; {expected(name, (node.name for node in nodes))}")


def check_inputs(net, x, labels, dtype: str | None = None) -> dict:
    """Input -> array on the device, plus the labels if given. ShapeError for a wrong shape, dtype or batch size.

    dtype: of the inputs, by default the network's.
    """
    dtype = dtype or net.dtype
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
        if str(array.dtype) != dtype:
            raise ShapeError(f"{where} must be {dtype}, got {array.dtype}; " + (
                f"convert it with x.astype({dtype!r})" if dtype == net.dtype else
                f"with stored=True it holds bf16, without it is {net.dtype}"))
        if batch not in (None, array.shape[0]):
            raise ShapeError(f"the inputs of network {net.name!r} have different batch sizes")
        batch = array.shape[0]
        given[name] = net.ops.from_host(array) if isinstance(array, np.ndarray) else array
    if labels is not None:
        labels = np.asarray(labels)
        check_labels(labels, batch, net.num_classes)
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
