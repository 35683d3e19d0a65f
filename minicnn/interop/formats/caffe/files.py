"""Caffe's files: .caffemodel (a network with weights), .prototxt (a network as text), .binaryproto (a mean image).

A caffemodel holds the network that was trained, with data layers and losses; a deploy.prototxt has that for
inference, whose weights are then taken from the caffemodel by the names of the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError, ConfigError
from minicnn.interop.formats.caffe.prototxt import MAX_TEXT, parse
from minicnn.interop.formats.caffe.schema import BLOB, NET, V1_TYPES
from minicnn.interop.formats.stored import Stored, StoredFile, check_shape
from minicnn.interop.formats.wire import Reader, Span
from minicnn.interop.graph.neutral import Graph, Op, refuse

DATA = ("Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData")
DROPPED = ("Accuracy", "Silence")


@dataclass
class CaffeNet:
    """graph: neutral.   transform: of its data layer, where it has one.   notes: what was left out."""

    graph: Graph
    transform: dict
    notes: list[str] = field(default_factory=list)


def is_caffe(message: dict) -> bool:
    return bool(message.get("layer") or message.get("layers"))


def read_prototxt(path: Path) -> tuple[dict, list[str]]:
    """The network in a text file, and the fields that are not known."""
    file = StoredFile(path)
    if file.size > MAX_TEXT:
        raise CheckpointError(f"{path}: a text of {file.size:,} bytes; expected at most {MAX_TEXT:,}")
    try:
        text = file.read(0, file.size, "the text").decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is no text in UTF-8") from error
    try:
        message, skipped = parse(text, NET)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not is_caffe(message):
        raise CheckpointError(f"{path}: has no layers; expected a network of Caffe")
    return message, sorted(skipped)


def read_mean(path: Path) -> np.ndarray:
    """A .binaryproto: the mean image, (H, W, 3), RGB in 0..255. ConfigError for what is none."""
    file = StoredFile(path)
    reader = Reader(file.descriptor, file.size)
    blob = Blobs(file, reader).read(reader.message(BLOB), "the mean image")
    array = blob if isinstance(blob, np.ndarray) else blob.read()
    array = array.reshape(array.shape[-3:]) if array.ndim >= 3 else array
    if array.ndim != 3 or array.shape[0] != 3:
        raise ConfigError(f"{path}: an array of {array.shape}; expected a mean image (3, H, W)")
    return np.ascontiguousarray(array[::-1].transpose(1, 2, 0))


class Blobs:
    """Reads the arrays of one file."""

    def __init__(self, file: StoredFile, reader: Reader):
        self.file, self.reader = file, reader

    def read(self, blob: dict, name: str) -> Stored | np.ndarray:
        """The array. CheckpointError where its size is not that of its shape."""
        legacy = [blob[side] for side in ("num", "channels", "height", "width") if side in blob]
        shape = check_shape(name, legacy or blob.get("shape", {}).get("dim", ()))
        kind = "double_data" if blob.get("double_data") else "data"
        spans: list[Span] = blob.get(kind, [])
        width = 8 if kind == "double_data" else 4
        if blob.get("diff") and not spans:
            raise CheckpointError(f"{name} has gradients and no weights; this is no trained model")
        if any(not isinstance(span, Span) or span.size % width for span in spans) or \
                sum(span.size for span in spans) != prod(shape) * width:
            raise CheckpointError(f"damaged: {name} of {'x'.join(map(str, shape))} has another number of elements")
        if len(spans) == 1:
            return Stored(self.file, name, "F64" if width == 8 else "F32", shape, spans[0].offset)
        parts = [np.frombuffer(self.reader.data, f"<f{width}", span.size // width, span.offset) for span in spans]
        return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32).reshape(shape)


def layers_of(message: dict) -> list[dict]:
    """The layers of either version, with the type as text."""
    layers = message.get("layer") or []
    for layer in message.get("layers", []):
        if "layer" in layer:
            raise CheckpointError("a network of Caffe's first format (V0); upgrade it with Caffe's "
                                  "upgrade_net_proto_binary")
        kind = V1_TYPES.get(layer.get("type", 0), f"V1 type {layer.get('type')}")
        layers = [*layers, {**layer, "type": kind}]
    return layers


def weights_of(message: dict, blobs: Blobs) -> dict[str, list]:
    """Layer -> its arrays. CheckpointError where no layer has any."""
    found = {layer.get("name", ""): [blobs.read(blob, f"{layer.get('name', '')} blob {k}")
                                     for k, blob in enumerate(layer["blobs"])]
             for layer in layers_of(message) if layer.get("blobs")}
    if not found:
        raise CheckpointError("a network of Caffe without weights; expected a .caffemodel, with --graph FILE.prototxt "
                              "where that is another one")
    return found


class Translation:
    """Of one network, with these weights, to the graph for inference.

    def __init__(self, message: dict, weights: dict[str, list], size: int | None,
                 translations: dict[str, Callable]):
    every layer that writes it, since layers work in place.
    """

    def __init__(self, message: dict, weights: dict[str, list], size: int | None, translations: dict[str, Callable]):
        self.translations = translations
        self.message, self.weights, self.size = message, weights, size
        self.current: dict[str, str] = {}
        self.constants: dict = {}
        self.ops: list[Op] = []
        self.inputs: dict[str, tuple] = {}
        self.losses: list[str] = []
        self.read, self.labels, self.transform, self.notes = set(), set(), {}, []

    def net(self) -> CaffeNet:
        shapes = [shape.get("dim", []) for shape in self.message.get("input_shape", [])]
        dims = self.message.get("input_dim", [])
        shapes = shapes or [dims[k:k + 4] for k in range(0, len(dims), 4)]
        for k, name in enumerate(self.message.get("input", [])):
            self.input(name, shapes[k] if k < len(shapes) else [])
        every = layers_of(self.message)
        layers = [layer for layer in every if self.is_for_test(layer)]
        if not self.inputs and not any(layer.get("type") in (*DATA, "Input") for layer in layers):
            layers = [layer for layer in every if layer.get("type") in DATA][:1] + layers     # of a training network
        for layer in layers:
            self.layer(layer)
        unused = sorted(set(self.weights) - {layer.get("name", "") for layer in layers})
        if unused:
            self.notes.append(f"weights of other layers: {', '.join(unused[:8])}")
        outputs = self.losses[-1:] or [op.outputs[0] for op in self.ops if op.outputs[0] not in self.read][-1:]
        if len(self.losses) > 1:
            self.notes.append(f"{len(self.losses) - 1} auxiliary classifiers were left out")
        graph = Graph(self.inputs, outputs, self.ops, self.constants, self.message.get("name") or "net", layout="NCHW")
        return CaffeNet(graph, self.transform, self.notes)

    def is_for_test(self, layer: dict) -> bool:
        """By the layer's rules; one that asks for a stage is not kept."""
        holds = lambda rule: (rule.get("phase", 1) == 1 and not rule.get("stage")           # noqa: E731
                              and rule.get("min_level", 0) <= 0 <= rule.get("max_level", 0))
        if layer.get("include"):
            return any(holds(rule) for rule in layer["include"])
        return not any(holds(rule) for rule in layer.get("exclude", ())) and layer.get("phase", 1) == 1

    # ---- values
    def input(self, name: str, dims: list) -> None:
        shape = [None, *(dims[1:] if len(dims) == 4 else [None] * 3)]
        self.current[name], self.inputs[name] = name, tuple(shape)

    def bottom(self, layer: dict, index: int = 0) -> str:
        names = layer.get("bottom", [])
        if index >= len(names) or names[index] not in self.current:
            given = names[index] if index < len(names) else "none"
            raise CheckpointError(f"{layer['type']} {layer.get('name', '')!r} reads {given!r}, which nothing before it "
                                  "makes")
        value = self.current[names[index]]
        self.read.add(value)
        return value

    def top(self, layer: dict, index: int = 0) -> str:
        """A new value; in a layer that works in place, another one than it reads."""
        tops = layer.get("top", [])
        name = tops[index] if index < len(tops) else layer.get("name", "")
        taken = {*self.inputs, *(out for op in self.ops for out in op.outputs)}
        value, count = name, 2
        while value in taken:
            value, count = f"{name}#{count}", count + 1
        return value

    def emit(self, layer: dict, kind: str, inputs: list[str], outputs: list[str] | None = None, **attrs) -> None:
        outputs = outputs or [self.top(layer)]
        self.ops.append(Op(kind, layer.get("name", ""), inputs, outputs, attrs, layer["type"]))
        for name, value in zip(layer.get("top", []) or [layer.get("name", "")], outputs, strict=False):
            self.current[name] = value

    def blobs(self, layer: dict, count: int, *, exact: bool = True) -> list[str]:
        """Names of a layer's arrays, as constants. CheckpointError where there are others."""
        arrays = self.weights.get(layer.get("name", ""), [])
        if len(arrays) != count and (exact or len(arrays) < count):
            raise CheckpointError(f"{layer['type']} {layer.get('name', '')!r} has {len(arrays)} arrays in the file; "
                                  f"expected {count}")
        names = [f"{layer.get('name', '')} blob {k}" for k in range(count)]
        self.constants |= dict(zip(names, arrays, strict=False))
        return names

    def array(self, name: str) -> np.ndarray:
        found = self.constants[name]
        return found if isinstance(found, np.ndarray) else found.read()

    # ---- layers
    def layer(self, layer: dict) -> None:
        kind = layer.get("type", "")
        if kind in DROPPED:
            return
        if kind in DATA or kind == "Input":
            self.data(layer)
        elif kind in self.translations:
            self.translations[kind](self, layer)
        elif set(layer.get("bottom", ())) & self.labels or kind.endswith("Loss"):
            self.notes.append(f"left out: {kind} {layer.get('name', '')!r}")
        else:
            raise refuse(Op(kind, layer.get("name", ""), [], layer.get("top", [""]), {}, kind), "is a layer that "
                         "minicnn does not have", advice=f"known are {', '.join(self.translations)}")

    def data(self, layer: dict) -> None:
        tops, self.transform = layer.get("top", []), self.transform | layer.get("transform_param", {})
        shapes = [shape.get("dim", []) for shape in layer.get("input_param", {}).get("shape", [])]
        for k, name in enumerate(tops):
            if k and layer["type"] != "Input":
                self.labels.add(name)
                continue
            side, crop = self.size, self.transform.get("crop_size") or None
            self.input(name, shapes[k] if k < len(shapes) else [1, self.channels(), side or crop, side or crop])

    def channels(self) -> int | None:
        """Of the images, by the first convolution that has weights."""
        for layer in layers_of(self.message):
            if layer["type"] == "Convolution" and self.weights.get(layer.get("name", "")):
                shape = self.weights[layer["name"]][0].shape
                return shape[1] * layer.get("convolution_param", {}).get("group", 1) if len(shape) == 4 else None
        return None
