"""Networks of cuda-convnet as graphs: layer by layer as they are written, or with the columns of two GPUs merged.

A column is a half of the channels, whose layers end in a or b. Merged, a layer that reads its own column alone has two
groups; one that reads both has its blocks of input channels in the order a, b, whatever the order of its `inputs`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.cuda_convnet import Layer, needs_size, neuron, norm, window
from minicnn.interop.graph.neutral import Graph, Op, refuse

IGNORED = ("cost.logreg", "cost.sum2")


def graph_of(layers: list[Layer], size: int | None, notes: list[str], *, merge: bool = True) -> Graph:
    """The neutral graph of layers with weights.   size: side of the images.   merge: columns to groups."""
    pairs = _columns(layers) if merge else {}
    if pairs:
        layers = _merged(layers, pairs)
        notes.append(f"{len(pairs)} pairs of columns became layers with two groups: "
                     f"{', '.join(f'{a}, {b} -> {name}' for name, (a, b) in list(pairs.items())[:3])} ...")
    return _Translation(layers, needs_size(size), notes).graph()


class _Translation:
    def __init__(self, layers: list[Layer], size: int, notes: list[str]):
        self.layers, self.size, self.notes = layers, size, notes
        self.ops: list[Op] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, tuple] = {}
        self.output, self.dropped = "", set()

    def graph(self) -> Graph:
        images = {name for layer in self.layers if layer.type == "conv" or layer.type == "local"
                  for name in layer.inputs}
        for layer in self.layers:
            if layer.type == "data":
                if layer.name in images:
                    reader = next(one for one in self.layers if layer.name in one.inputs
                                  and one.type in ("conv", "local"))
                    channels = reader.of_input("channels", reader.inputs.index(layer.name))
                    self.inputs[layer.name] = (None, channels, self.size, self.size)
                else:
                    self.dropped.add(layer.name)
            elif layer.type in IGNORED or set(layer.inputs) & self.dropped:
                self.dropped.add(layer.name)
            elif layer.type in LAYERS:
                self.layer(layer)
            else:
                raise refuse(Op(layer.type, layer.name, [], [layer.name], {}, layer.type), "is a layer that minicnn "
                             "does not have", advice=f"known are {', '.join(LAYERS)}")
        read = {name for op in self.ops for name in op.inputs}
        ends = [op.outputs[0] for op in self.ops if op.outputs[0] not in read]
        return Graph(self.inputs, ends[-1:], self.ops, self.constants, "cuda-convnet", layout="NCHW")

    def layer(self, layer: Layer) -> None:
        """The layer, and the nonlinearity that it ends with."""
        kind, (a, b) = ("", (1.0, 1.0)) if layer.parsed and layer.type != "neuron" else neuron(layer)
        if layer.type == "neuron":
            self.nonlinear(layer.name, layer.inputs[0], layer.name, kind, a, b)
            return
        inner = f"{layer.name} before" if kind else layer.name
        LAYERS[layer.type](self, layer, inner)
        if kind:
            self.nonlinear(f"{layer.name}_neuron", inner, layer.name, kind, a, b)

    def nonlinear(self, name: str, source: str, target: str, kind: str, a: float, b: float) -> None:
        """y = a * kind(b * x); a and b are of tanh alone."""
        if kind == "":
            self.emit("identity", name, [source], target)
            return
        if kind == "tanh" and b != 1.0:
            source = self.emit("scale", f"{name} in", [source], f"{target} in", scale=np.float32(b),
                               shift=np.float32(0))
        last = target if kind != "tanh" or a == 1.0 else f"{target} out"
        self.emit({"logistic": "sigmoid"}.get(kind, kind), name, [source], last)
        if last != target:
            self.emit("scale", f"{name} out", [last], target, scale=np.float32(a), shift=np.float32(0))

    def emit(self, kind: str, name: str, inputs: list[str], output: str, **attrs) -> str:
        self.ops.append(Op(kind, name, inputs, [output], attrs, kind))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = array
        return name

    def joined(self, layer: Layer, values: list[str]) -> str:
        """Several inputs as one."""
        if len(values) == 1:
            return values[0]
        return self.emit("concat", f"{layer.name} inputs", values, f"{layer.name} inputs", axis=1)

    def biases(self, layer: Layer, count: int) -> list[str]:
        if layer.biases is None:
            return []
        if layer.biases.size != count:
            raise CheckpointError(f"{layer.type} {layer.name!r} has {layer.biases.size} biases for {count} outputs; a "
                                  "bias for every place is not here")
        return [self.constant(f"{layer.name}.biases", layer.biases.reshape(-1))]


def _conv(t: _Translation, layer: Layer, out: str) -> None:
    windows = [window(layer, k) for k in range(len(layer.inputs))]
    first = windows[0]
    if len(windows) > 1 and any(replace(one, channels=0) != replace(first, channels=0) or one.groups > 1
                                for one in windows):
        raise CheckpointError(f"conv {layer.name!r} reads inputs with different geometry")
    parts = [conv_weight(layer, k) for k in range(len(windows))]
    weight = t.constant(f"{layer.name}.weights", np.concatenate(parts, 1))
    t.emit("conv", layer.name, [t.joined(layer, layer.inputs), weight, *t.biases(layer, first.filters)], out,
           stride=[first.stride] * 2, pads=[first.padding] * 4, groups=first.groups, ceil=True)


def conv_weight(layer: Layer, index: int) -> np.ndarray:
    """(K, C/G, f, f) of the weights of an input, which are (C/G * f * f, K)."""
    one = window(layer, index)
    w = layer.weights[index] if index < len(layer.weights) else np.zeros((0, 0))
    rows = one.channels // one.groups * one.size**2
    if w.shape != (rows, one.filters):
        raise CheckpointError(f"conv {layer.name!r} has weights {'x'.join(map(str, w.shape))}; expected "
                              f"{rows}x{one.filters}")
    return w.reshape(-1, one.size, one.size, one.filters).transpose(3, 0, 1, 2)


def _local(t: _Translation, layer: Layer, out: str) -> None:
    one, side = window(layer, 0), layer.number("imgSize", 0)
    if len(layer.inputs) != 1 or one.groups != 1 or not side:
        raise CheckpointError(f"local {layer.name!r} has groups, several inputs or no imgSize")
    count = -(-(side + 2 * one.padding - one.size) // one.stride) + 1
    w, shape = layer.weights[0], (count, count, one.channels, one.size, one.size, one.filters)
    if w.size != np.prod(shape) or layer.biases is None or layer.biases.size != count * count * one.filters:
        raise CheckpointError(f"local {layer.name!r} has weights {w.shape}; expected {count} x {count} places")
    names = [t.constant(f"{layer.name}.weights", np.ascontiguousarray(w.reshape(shape).transpose(3, 4, 2, 0, 1, 5))),
             t.constant(f"{layer.name}.biases", np.ascontiguousarray(
                 layer.biases.reshape(one.filters, count, count).transpose(1, 2, 0)))]
    t.emit("local", layer.name, [layer.inputs[0], *names], out, stride=[one.stride] * 2, pads=[one.padding] * 4,
           kernel=(one.size, one.size))


def _fc(t: _Translation, layer: Layer, out: str) -> None:
    flat = [t.emit("flatten", f"{layer.name} flat{k}", [name], f"{layer.name} flat{k}", axis=1)
            for k, name in enumerate(layer.inputs)]
    if len(layer.weights) != len(layer.inputs):
        raise CheckpointError(f"fc {layer.name!r} has {len(layer.weights)} weights for {len(layer.inputs)} inputs")
    array = np.concatenate(layer.weights)                                               # (inputs, outputs)
    weight = t.constant(f"{layer.name}.weights", array)
    t.emit("gemm", layer.name, [t.joined(layer, flat), weight, *t.biases(layer, array.shape[1])], out, transposed=False)


def _pool(t: _Translation, layer: Layer, out: str) -> None:
    how, start = layer.text("pool"), layer.number("start", 0)
    if how not in ("max", "avg") or start > 0:
        raise CheckpointError(f"pool {layer.name!r} is of the kind {how!r} with start {start}; expected max or avg, "
                              "and a start of at most 0")
    size, stride = layer.number("sizeX"), layer.number("stride")
    if layer.number("outputsX", 0) and not layer.parsed:
        raise CheckpointError(f"pool {layer.name!r} has its own number of outputs")
    t.emit("maxpool" if how == "max" else "avgpool", layer.name, layer.inputs[:1], out, kernel=(size, size),
           stride=[stride] * 2, pads=[-start, -start, 0, 0], ceil=True, count="image")


def _norm(t: _Translation, layer: Layer, out: str) -> None:
    columns = {"groups": layer.settings["columns"]} if layer.settings.get("columns", 1) > 1 else {}
    kind = "lrn" if layer.type == "cmrnorm" else "lrnwithin"
    t.emit(kind, layer.name, layer.inputs[:1], out, **norm(layer), **(columns if kind == "lrn" else {}))


def _hidden_sum(t: _Translation, layer: Layer, out: str) -> None:
    t.emit("dropout", layer.name, layer.inputs[:1], out, rate=1.0 - float(layer.number("keep", 0.5)), inverted=False)


def _eltsum(t: _Translation, layer: Layer, out: str) -> None:
    factors, names = layer.numbers("coeffs", 1.0), []
    for k, (name, factor) in enumerate(zip(layer.inputs, factors, strict=True)):
        names.append(name if factor == 1 else t.emit("scale", f"{layer.name} in{k}", [name], f"{layer.name} in{k}",
                                                     scale=np.float32(factor), shift=np.float32(0)))
    t.emit("add", layer.name, names, out)


LAYERS = {"conv": _conv, "local": _local, "fc": _fc, "pool": _pool, "cmrnorm": _norm, "rnorm": _norm,
          "hs": _hidden_sum, "eltsum": _eltsum, "neuron": None,
          "softmax": lambda t, layer, out: t.emit("softmax", layer.name, layer.inputs[:1], out, axis=1),
          "concat": lambda t, layer, out: t.emit("concat", layer.name, layer.inputs, out, axis=1)}
COLUMN = ("conv", "fc", "pool", "cmrnorm", "rnorm", "hs", "neuron")


# ---- columns
def _columns(layers: list[Layer]) -> dict[str, tuple[str, str]]:
    """Name of the merged layer -> the two columns: the pairs whose settings and shapes agree."""
    found, by_name = {}, {layer.name: layer for layer in layers}
    for a in layers:
        b = by_name.get(_partner(a.name))
        if b is None or a.type != b.type or a.type not in COLUMN or len(a.inputs) != len(b.inputs):
            continue
        alike = [{key: value for key, value in layer.settings.items() if key in GEOMETRY} for layer in (a, b)]
        if alike[0] == alike[1] and [w.shape for w in a.weights] == [w.shape for w in b.weights]:
            found[_base(a.name)] = (a.name, b.name)
    names = set(by_name) - {name for pair in found.values() for name in pair}
    return {} if names & set(found) or not _closed(found, by_name) else found


GEOMETRY = ("channels", "filters", "filtersize", "stride", "padding", "groups", "pool", "sizex", "start", "outputsx",
            "size", "scale", "pow", "mindiv", "keep", "outputs", "neuron")


def _partner(name: str) -> str:
    """"conv1a" -> "conv1b", and "conv1a_neuron" -> "conv1b_neuron"."""
    bare, neuron_, _ = name.partition("_neuron")
    return f"{bare[:-1]}b{neuron_}" if bare.endswith("a") else ""


def _base(name: str) -> str:
    bare, neuron_, _ = name.partition("_neuron")
    return bare[:-1] + neuron_


def _closed(pairs: dict, layers: dict[str, Layer]) -> bool:
    """Whether each pair reads layers that are no columns, or its own column, or both columns of a pair."""
    of = {name: base for base, pair in pairs.items() for name in pair}
    for a, b in pairs.values():
        for name, place in ((a, 0), (b, 1)):
            inputs = layers[name].inputs
            own = [pairs[of[source]].index(source) for source in inputs if source in of]
            if own and sorted(own) != [0, 1] and own != [place] or own and len(own) != len(inputs):
                return False
        if sorted(of.get(s, s) for s in layers[a].inputs) != sorted(of.get(s, s) for s in layers[b].inputs):
            return False
    return True


def _merged(layers: list[Layer], pairs: dict[str, tuple[str, str]]) -> list[Layer]:
    by_name = {layer.name: layer for layer in layers}
    of = {name: base for base, pair in pairs.items() for name in pair}
    result = []
    for layer in layers:
        if layer.name not in of:
            result.append(_reading_merged(layer, of, pairs))
        elif pairs[of[layer.name]][0] == layer.name:
            result.append(_pair(by_name[layer.name], by_name[pairs[of[layer.name]][1]], of, pairs))
    return result


def _by_column(layer: Layer, of: dict, pairs: dict) -> list[int]:
    """The places of its inputs, sorted by column: fc2048bb reads hs1b,hs1a."""
    place = lambda k: pairs[of[layer.inputs[k]]].index(layer.inputs[k]) if layer.inputs[k] in of else 0  # noqa: E731
    return sorted(range(len(layer.inputs)), key=place)


def _reading_merged(layer: Layer, of: dict, pairs: dict) -> Layer:
    """A layer that is no column, with merged inputs."""
    if not any(name in of for name in layer.inputs):
        return layer
    order = _by_column(layer, of, pairs)
    inputs = list(dict.fromkeys(of.get(layer.inputs[k], layer.inputs[k]) for k in order))
    weights = [np.concatenate([layer.weights[k] for k in order])] if len(layer.weights) == len(order) > 1 else \
        layer.weights
    return replace(layer, inputs=inputs, weights=weights)


def _pair(a: Layer, b: Layer, of: dict, pairs: dict) -> Layer:
    """Both columns as one layer."""
    both = [_by_column(layer, of, pairs) for layer in (a, b)]
    crossed = len(a.inputs) > 1
    inputs = list(dict.fromkeys(of.get(name, name) for name in (a.inputs[k] for k in both[0])))
    settings = dict(a.settings)
    weights = a.weights
    if any(layer.weights and len(layer.weights) != len(layer.inputs) for layer in (a, b)):
        raise CheckpointError(f"{a.type} {a.name!r} has {len(a.weights)} weights for {len(a.inputs)} inputs")
    if a.weights:
        stacked = [np.concatenate([layer.weights[k] for k in order]) for layer, order in zip((a, b), both, strict=True)]
        weights = [np.concatenate(stacked, 1)]              # (inputs of both columns or of one, K of both)
    if a.type == "fc" and not crossed and a.inputs[0] in of:
        weights = [_block_diagonal(a.weights[0], b.weights[0])]
    if a.type == "conv":
        one = window(a, 0)
        groups = 1 if crossed or a.inputs[0] not in of else 2
        channels = sum(window(a, k).channels for k in range(len(a.inputs))) * (1 if crossed or groups == 1 else 2)
        # As written, not as parsed: filters are those of a group, and paddings positive.
        settings |= {"channels": str(channels), "groups": str(groups * one.groups), "padding": str(one.padding),
                     "filters": str(2 * one.filters // (groups * one.groups)), "filtersize": str(one.size),
                     "stride": str(one.stride)}
    settings["columns"] = 2
    biases = None if a.biases is None else np.concatenate([a.biases.reshape(-1), b.biases.reshape(-1)])
    merged = Layer(_base(a.name), a.type, inputs, settings, weights, biases, a.parsed and a.type != "conv")
    if a.parsed and a.type == "conv":
        merged.settings.pop("neuron", None)                 # its twin follows
    return merged


def _block_diagonal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    zeros = lambda rows, columns: np.zeros((rows, columns), np.float32)         # noqa: E731
    return np.block([[a, zeros(len(a), b.shape[1])], [zeros(len(b), a.shape[1]), b]])
