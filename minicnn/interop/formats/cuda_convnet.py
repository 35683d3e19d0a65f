"""cuda-convnet: networks as pairs of .cfg files, as the authors of AlexNet wrote them, and its pickled checkpoints.

A section is a layer; a checkpoint holds the same settings as they were parsed, with the weights. Two columns, as on
the two GPUs of the paper, are layers in pairs whose names end in a and b: `merge_columns` makes layers with groups of
them (columns.py). Initialisers such as initWFunc=module.function(...) were Python that the original ran; here they are
ignored.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError, ConfigError
from minicnn.interop.formats.numpy_pickles import Array
from minicnn.interop.formats.stored import StoredFile

MAX_TEXT = 4 * 2**20
REFUSED_KEYS = {"randsparse": "sparse connections", "filterchannels": "sparse connections", "blocked": "blocked norms"}


@dataclass
class Layer:
    """One layer: its settings as lists of numbers or text, by name in lower case, one item for each input.

    weights: one for each input, (C/G*f*f, K) or (inputs, outputs).   parsed: the settings are those of a checkpoint,
    where paddings are negative, filters those of all groups, and scales divided.
    """

    name: str
    type: str
    inputs: list[str]
    settings: dict
    weights: list[np.ndarray] = field(default_factory=list)
    biases: np.ndarray | None = None
    parsed: bool = False

    def numbers(self, key: str, default=None) -> list:
        """A setting with one number for each input."""
        found = self.settings.get(key.lower(), default)
        if found is None:
            raise CheckpointError(f"{self.type} {self.name!r} has no {key}")
        items = list(found) if isinstance(found, (list, tuple)) else str(found).split(",")
        try:
            items = [float(item) if "." in str(item) or "e" in str(item).lower() else int(item) for item in items]
        except ValueError:
            raise CheckpointError(f"{self.type} {self.name!r}: {key} = {found!r} is no number"[:200]) from None
        if any(abs(item) >= 2**31 for item in items):
            raise CheckpointError(f"{self.type} {self.name!r}: {key} = {found} is too large"[:200])
        return items * max(1, len(self.inputs)) if len(items) == 1 else items

    def of_input(self, key: str, index: int, default=None):
        """A setting for one input."""
        found = self.numbers(key, default)
        if index >= len(found):
            raise CheckpointError(f"{self.type} {self.name!r} has {len(found)} {key} for {len(self.inputs)} inputs")
        return found[index]

    def number(self, key: str, default=None):
        return self.of_input(key, 0, default)

    def text(self, key: str, default: str = "") -> str:
        return str(self.settings.get(key.lower(), default)).strip()


# ---- text
def read_cfg(path: Path, params: Path | None) -> list[Layer]:
    """The layers of a .cfg, with the settings of its layer-params file, in an order in which they can run."""
    sections = _sections(path)
    more = _sections(params) if params is not None else {}
    layers = {}
    for name, settings in sections.items():
        settings = {**more.get(name, {}), **settings}
        if "type" not in settings:
            raise CheckpointError(f"{path}: [{name}] has no type")
        if on := [key for key in REFUSED_KEYS if settings.get(key, "0") not in ("0", "", "none")]:
            raise CheckpointError(f"{path}: [{name}] has {REFUSED_KEYS[on[0]]}, which minicnn does not have")
        inputs = [part.strip() for part in settings.get("inputs", "").split(",") if part.strip()]
        layers[name] = Layer(name, settings["type"], inputs, settings)
    return in_order(layers)


def _sections(path: Path) -> dict[str, dict[str, str]]:
    file = StoredFile(path)
    if file.size > MAX_TEXT:
        raise CheckpointError(f"{path}: a text of {file.size:,} bytes; expected at most {MAX_TEXT:,}")
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",))
    try:
        parser.read_string(file.read(0, file.size, "the text").decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is no .cfg: {' '.join(str(error).split())[:150]}") from error
    return {name: dict(parser.items(name)) for name in parser.sections()}


def in_order(layers: dict[str, Layer]) -> list[Layer]:
    """The layers, each behind what it reads. CheckpointError for what does not exist, or reads itself."""
    done: dict[str, Layer] = {}
    waiting = list(layers.values())
    while waiting:
        ready = [layer for layer in waiting if all(name in done for name in layer.inputs)]
        if not ready:
            layer = waiting[0]
            missing = next(name for name in layer.inputs if name not in done)
            raise CheckpointError(f"{layer.type} {layer.name!r} reads {missing!r}, which "
                                  + ("reads it in turn" if missing in layers else "does not exist"))
        done |= {layer.name: layer for layer in ready}
        waiting = [layer for layer in waiting if layer.name not in done]
    return list(done.values())


# ---- checkpoints
def layers_of_checkpoint(root) -> list[Layer]:
    """The layers in a pickled checkpoint, with their weights. CheckpointError for another pickle."""
    state = root.get("model_state") if isinstance(root, dict) else None
    entries = state.get("layers") if isinstance(state, dict) else None
    if isinstance(entries, dict):
        entries = list(entries.values())
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and isinstance(entry.get("name"), str)
                                                for entry in entries):
        raise CheckpointError("a pickle without the layers of cuda-convnet (model_state: layers)")
    names = [entry["name"] for entry in entries]
    layers = {}
    for entry in entries:
        inputs = [names[source] if isinstance(source, int) and 0 <= source < len(names) else source
                  for source in _list(entry.get("inputs"))]
        settings = {key.lower(): value for key, value in entry.items() if isinstance(key, str)}
        layer = Layer(entry["name"], str(entry.get("type", "")), [str(name) for name in inputs], settings, parsed=True)
        layer.weights = [item.read() for item in _list(entry.get("weights")) if isinstance(item, Array)]
        if isinstance(entry.get("biases"), Array):
            layer.biases = entry["biases"].read()
        layers[layer.name] = layer
    return in_order(layers)


def _list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else []


def take_weights(layers: list[Layer], trained: list[Layer]) -> None:
    """Give the layers of a .cfg the weights of the same names. CheckpointError where one has none."""
    found = {layer.name: layer for layer in trained}
    for layer in layers:
        other = found.get(layer.name)
        if layer.type in ("conv", "fc", "local") and (other is None or not other.weights):
            raise CheckpointError(f"has no weights of {layer.name!r}; are these of another network?")
        if other is not None:
            layer.weights, layer.biases = other.weights, other.biases


# ---- what a layer means, whether it was written or parsed
@dataclass(frozen=True)
class Window:
    """Of one input of a convolution."""

    channels: int
    filters: int
    size: int
    stride: int
    padding: int
    groups: int


def window(layer: Layer, index: int) -> Window:
    """The geometry of a convolution of an input; filters are those of all groups."""
    groups = layer.of_input("groups", index, 1)
    filters, padding = layer.number("filters"), layer.of_input("padding", index, 0)
    if not layer.parsed:
        filters *= groups
    found = Window(layer.of_input("channels", index), filters, layer.of_input("filterSize", index),
                   layer.of_input("stride", index, 1), -padding if layer.parsed else padding, groups)
    if min(found.size, found.stride, found.groups, found.channels, found.filters) < 1 or found.padding < 0:
        raise CheckpointError(f"conv {layer.name!r} has the geometry {found}"[:200])
    return found


def norm(layer: Layer) -> dict:
    """n, k, alpha (divided by the window's size), beta of a response normalisation."""
    size, scale = layer.number("size"), layer.number("scale")
    across = layer.type == "cmrnorm"
    if layer.parsed:
        scale *= size if across else size**2
    k = layer.number("minDiv", 1.0) if across else 1.0
    return {"n": size, "k": float(k), "alpha": float(scale), "beta": float(layer.number("pow"))}


def neuron(layer: Layer) -> tuple[str, tuple[float, float]]:
    """(kind, (a, b)) of the nonlinearity that a layer ends with: "" for none, "tanh" with y = a * tanh(b * x)."""
    found = layer.settings.get("neuron", "")
    if isinstance(found, dict):                             # parsed: {"type": "tanh", "params": {"a": 1.0, "b": 1.0}}
        params = found.get("params") if isinstance(found.get("params"), dict) else {}
        kind, values = str(found.get("type", "")), [params.get("a", 1.0), params.get("b", 1.0)]
    else:
        match = re.fullmatch(r"(\w*)(?:\[([^\]]*)\])?", str(found).strip())
        if match is None:
            raise CheckpointError(f"{layer.type} {layer.name!r}: neuron = {found!r} cannot be read"[:200])
        kind, values = match[1], [part for part in (match[2] or "1,1").split(",")]
    if kind in ("", "ident"):
        return "", (1.0, 1.0)
    if kind not in ("relu", "tanh", "logistic"):
        raise CheckpointError(f"{layer.type} {layer.name!r} has the neuron {kind!r}; expected relu, tanh, logistic or "
                              "ident")
    try:
        a, b = (float(value) for value in [*values, 1.0][:2])
    except (TypeError, ValueError):
        raise CheckpointError(f"{layer.type} {layer.name!r}: neuron = {found!r} cannot be read"[:200]) from None
    return kind, (a, b)


def needs_size(size: int | None) -> int:
    if size is None:
        raise ConfigError("does not say how large the images are; give their side: --size 224 for the networks of "
                          "ImageNet, 24 or 32 for those of CIFAR-10")
    return size
