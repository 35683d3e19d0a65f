"""A network as an ONNX file: opset 17, IR version 8, which every runtime since 2022 reads.

Activations stay where ONNX has them, (N, C, H, W): no Transpose is written, only constants are permuted. Padding is
resolved, since ceil sizes mean something else in some runtimes. What only training needs is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from minicnn.errors import ConfigError, ShapeError
from minicnn.graph import Net
from minicnn.interop.formats.wire import encoded, field
from minicnn.interop.layout import blocks_of, read_blocks, shapes_of
from minicnn.interop.state_dict import turn_of
from minicnn.layers.base import Layer

OPSET, IR_VERSION = 17, 8
FLOAT, INT64 = 1, 7
MAX_BYTES = 2**31 - 2**20       # of one message


class Writer:
    """Collects the nodes and tensors of a network."""

    def __init__(self, net: Net):
        self.net, self.shapes, self.blocks = net, shapes_of(net), read_blocks(net)
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []
        self.names = {name: name for name in net.inputs}        # our node -> the value that holds it
        self.arrays = {name: net.ops.to_host(array) for name, array in net.arrays().items()}

    def node(self, op: str, inputs: list[str], output: str, name: str | None = None, **attrs) -> str:
        """One node with one output; returns the output."""
        parts = field(1, inputs) + field(2, output) + field(3, name or output) + field(4, op)
        self.nodes.append(parts + b"".join(field(5, _attribute(key, value)) for key, value in attrs.items()))
        return output

    def tensor(self, name: str, array) -> str:
        """A constant; returns its name."""
        array = np.asarray(array)
        kind = FLOAT if array.dtype.kind == "f" else INT64
        array = np.ascontiguousarray(array, "<f4" if kind == FLOAT else "<i8").reshape(array.shape)
        dims = b"".join(field(1, size) for size in array.shape)
        self.tensors.append(dims + field(2, kind) + field(8, name) + field(9, array.tobytes()))
        return name

    def weight(self, node: str, local: str, name: str) -> str:
        """A parameter or state of a layer, in ONNX's layout."""
        return self.tensor(f"{node}.{name}", self.theirs(node, local))

    def theirs(self, node: str, local: str) -> np.ndarray:
        """A parameter or state of a layer, in ONNX's layout."""
        ours = f"{'state/' if local in ('mean', 'var') else ''}{node}.{local}"
        shape, turn = turn_of(self.net, ours, self.blocks.get(node))
        return turn.back(self.arrays[ours], shape)

    def shape(self, name: str) -> tuple[int, int, int, int]:
        """(N, H, W, C) of a node's output."""
        return self.shapes[name]


def _attribute(name: str, value) -> bytes:
    body = field(1, name)
    if isinstance(value, str):
        return body + field(4, value) + field(20, 3)
    if isinstance(value, float):
        return body + field(2, value) + field(20, 1)
    if isinstance(value, int):
        return body + field(3, value) + field(20, 2)
    return body + b"".join(field(8, int(item)) for item in value) + field(20, 7)


def onnx_bytes(net: Net, *, softmax: bool = False, classes: list[str] | None = None, preprocess: dict | None = None,
               mean_image: dict | None = None) -> bytes:
    """The file. ShapeError for a layer that ONNX cannot express; ConfigError where it would be larger than 2 GB."""
    if len(net.inputs) != 1:
        raise ConfigError(f"network {net.name!r} has {len(net.inputs)} inputs; an export has one, the images")
    if net.output in blocks_of(net):
        raise ShapeError(f"the output {net.output!r} is flattened maps, which ONNX would have in another order; end "
                         "the network with a fully connected layer")
    w, (image, shape), = Writer(net), *net.inputs.items()
    for node in _needed(net):
        kind = node.layer.kind()
        if kind not in WRITERS:
            raise ShapeError(f"layer {node.name!r} is a {kind}, which has no counterpart in ONNX here; expected one of "
                             f"{', '.join(WRITERS)}")
        w.names[node.name] = WRITERS[kind](w, node.name, node.layer, [w.names[name] for name in node.inputs],
                                           [w.shape(name) for name in node.inputs])
    logits, out = w.names[net.output], w.shape(net.output)
    if softmax:
        logits = w.node("Softmax", [logits], "probabilities", axis=1)
    dims = [None, shape[2], shape[0], shape[1]] if len(shape) == 3 else [None, *shape]
    theirs = [None, out[3], out[1], out[2]] if len(out) == 4 else [None, *out[1:]]
    graph = (b"".join(field(1, node) for node in w.nodes) + field(2, net.name)
             + b"".join(field(5, tensor) for tensor in w.tensors) + field(11, _value_info(w.names[image], dims))
             + field(12, _value_info(logits, theirs)))
    if len(graph) > MAX_BYTES:
        raise ConfigError(f"network {net.name!r} needs {len(graph):,} bytes, more than an ONNX file holds; export its "
                          "weights as safetensors")
    own = json.dumps({"name": net.name, "description": _described(net), "classes": classes, "preprocess": preprocess,
                      "mean_image": mean_image}, allow_nan=False)
    metadata = {"minicnn": own, **_image_metadata(preprocess)}
    return (field(1, IR_VERSION) + field(2, "minicnn") + field(3, "0.1.0") + encoded(7 << 3 | 2) + encoded(len(graph))
            + graph + field(8, field(2, OPSET)) + b"".join(field(14, field(1, key) + field(2, value))
                                                           for key, value in metadata.items()))


def _value_info(name: str, dims: list) -> bytes:
    shape = b"".join(field(1, field(2, "N") if size is None else field(1, size)) for size in dims)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, shape)))


def _image_metadata(preprocess: dict | None) -> dict[str, str]:
    """What ONNX itself has for images (docs/MetadataProps.md)."""
    if preprocess is None:
        return {}
    scaled = "Normalized_0_1" if preprocess["range"] == 1 else "NominalRange_0_255"
    return {"Image.BitmapPixelFormat": "Bgr8" if preprocess["order"] == "bgr" else "Rgb8",
            "Image.ColorSpaceGamma": "SRGB", "Image.NominalPixelRange": scaled}


def _described(net: Net) -> dict:
    """The description without auxiliary classifiers, which only training needs."""
    kept = {node.name for node in _needed(net)}
    kept |= {node.name for node in net.nodes if node.layer.is_loss and node.inputs[0] in kept}
    found = net.description()
    return found | {"nodes": [node for node in found["nodes"] if node["name"] in kept]}


def _needed(net: Net) -> list:
    """The nodes that the logits depend on."""
    wanted, kept = {net.output}, []
    for node in reversed(net.nodes):
        if node.name in wanted and not node.layer.is_loss:
            kept.append(node)
            wanted |= set(node.inputs)
    return kept[::-1]


# ---- one function for each kind of layer: (writer, name, layer, inputs, shapes of the inputs) -> output
def _window(layer: Layer, shape) -> dict:
    (_, _), window = layer.geometry(shape)
    return {"kernel_shape": list(layer.kernel), "strides": list(layer.stride), "pads": list(window["pads"])}


def _conv(w: Writer, name, layer, inputs, shapes) -> str:
    weights = [w.weight(name, "w", "weight"), *([w.weight(name, "b", "bias")] if layer.bias else [])]
    return w.node("Conv", inputs + weights, name, group=layer.groups, **_window(layer, shapes[0]))


def _linear(w: Writer, name, layer, inputs, shapes) -> str:
    if len(shapes[0]) == 4:                                 # at every pixel: a 1 x 1 convolution
        kernel = w.tensor(f"{name}.weight", w.arrays[f"{name}.w"].T[:, :, None, None])
        bias = [w.weight(name, "b", "bias")] if layer.bias else []
        return w.node("Conv", [*inputs, kernel, *bias], name, kernel_shape=[1, 1])
    weights = [w.weight(name, "w", "weight"), *([w.weight(name, "b", "bias")] if layer.bias else [])]
    return w.node("Gemm", inputs + weights, name, transB=1)


def _maxpool(w: Writer, name, layer, inputs, shapes) -> str:
    return w.node("MaxPool", inputs, name, **_window(layer, shapes[0]))


def _avgpool(w: Writer, name, layer, inputs, shapes) -> str:
    """What counts in the divisor is padding to ONNX; what hangs over the edge of that is left to ceil_mode."""
    attrs = _window(layer, shapes[0])
    counted = list(layer.window(shapes[0])["counted"])
    if counted in (attrs["pads"], [0, 0, 0, 0]):
        return w.node("AveragePool", inputs, name, **attrs, count_include_pad=int(any(counted)))
    padded = w.node("Pad", [*inputs, w.tensor(f"{name}.pads", [0, 0, *counted[:2], 0, 0, *counted[2:]])], f"{name}.pad")
    rest = [total - some for total, some in zip(attrs["pads"], counted, strict=True)]
    return w.node("AveragePool", [padded], name, **attrs | {"pads": rest}, count_include_pad=0)


def _global(w: Writer, name, layer, inputs, shapes) -> str:
    return w.node("Flatten", [w.node("GlobalAveragePool", inputs, f"{name}.mean", name)], name, f"{name}.flatten",
                  axis=1)


def _adaptive(w: Writer, name, layer, inputs, shapes) -> str:
    (_, H, W, _), (P, Q) = shapes[0], layer.size
    if H % P or W % Q:
        raise ShapeError(f"layer {name!r} averages {H} x {W} maps to {P} x {Q} by windows of several sizes, which ONNX "
                         "does not have")
    window = [H // P, W // Q]
    return w.node("AveragePool", inputs, name, kernel_shape=window, strides=window)


def _subsample(w: Writer, name, layer, inputs, shapes) -> str:
    """Single pixels by a maximum of one, then channels of zeros."""
    taken = w.node("MaxPool", inputs, f"{name}.taken", kernel_shape=[1, 1], strides=list(layer.stride))
    after = layer.channels - layer.before - shapes[0][3]
    return w.node("Pad", [taken, w.tensor(f"{name}.pads", [0, layer.before, 0, 0, 0, after, 0, 0])], name)


def _batchnorm(w: Writer, name, layer, inputs, shapes) -> str:
    parts = {"b": "bias", "mean": "running_mean", "var": "running_var"}
    weight = (w.weight(name, "w", "weight") if layer.scale else
              w.tensor(f"{name}.weight", np.ones(layer.channels, np.float32)))
    rest = [w.weight(name, ours, theirs) for ours, theirs in parts.items()]
    return w.node("BatchNormalization", [*inputs, weight, *rest], name, epsilon=float(layer.eps),
                  momentum=1.0 - layer.momentum)


def _affine(w: Writer, name, layer, inputs, shapes) -> str:
    axes = (-1, 1, 1) if len(shapes[0]) == 4 else (-1,)
    scale = w.tensor(f"{name}.weight", w.theirs(name, "w").reshape(axes))
    if not layer.bias:
        return w.node("Mul", [*inputs, scale], name)
    scaled = w.node("Mul", [*inputs, scale], f"{name}.scaled", name)
    return w.node("Add", [scaled, w.tensor(f"{name}.bias", w.theirs(name, "b").reshape(axes))], name, f"{name}.add")


def _lrn(w: Writer, name, layer, inputs, shapes) -> str:
    alpha = layer.alpha if layer.divide_alpha else layer.alpha * layer.n
    attrs = {"size": layer.n, "alpha": float(alpha), "beta": float(layer.beta), "bias": float(layer.k)}
    if layer.groups == 1:
        return w.node("LRN", inputs, name, **attrs)
    parts = [f"{name}.part{k}" for k in range(layer.groups)]
    body = field(1, inputs) + field(2, parts) + field(3, f"{name}.split") + field(4, "Split")
    w.nodes.append(body + field(5, _attribute("axis", 1)))
    normed = [w.node("LRN", [part], f"{part}.lrn", f"{part}.lrn" if k else name, **attrs) for k, part in
              enumerate(parts)]
    return w.node("Concat", normed, name, f"{name}.concat", axis=1)


def _lrn_within(w: Writer, name, layer, inputs, shapes) -> str:
    n, alpha = layer.n, layer.alpha if layer.divide_alpha else layer.alpha * layer.n**2
    squares = w.node("Mul", inputs * 2, f"{name}.squares")
    mean = w.node("AveragePool", [squares], f"{name}.mean", kernel_shape=[n, n], strides=[1, 1], pads=[n // 2] * 4,
                  count_include_pad=1)
    constants = {"alpha": alpha, "k": layer.k, "beta": -layer.beta}
    alpha, k, beta = (w.tensor(f"{name}.{key}", np.float32(value)) for key, value in constants.items())
    scaled = w.node("Mul", [mean, alpha], f"{name}.scaled")
    power = w.node("Pow", [w.node("Add", [scaled, k], f"{name}.sum"), beta], f"{name}.power")
    return w.node("Mul", [*inputs, power], name)


def _dropout(w: Writer, name, layer, inputs, shapes) -> str:
    if layer.inverted:
        return w.node("Dropout", [*inputs, w.tensor(f"{name}.ratio", np.float32(layer.rate))], name)
    return w.node("Mul", [*inputs, w.tensor(f"{name}.keep", np.float32(layer.test_factor))], name)


def _local(w: Writer, name, layer, inputs, shapes) -> str:
    """The windows of every place by a convolution with one-hot kernels, then a matrix product for each place."""
    (R, S), C, (P, Q, K) = layer.kernel, layer.in_shape[2], layer.out_shape
    one_hot = np.tile(np.eye(R * S, dtype=np.float32).reshape(R * S, 1, R, S), (C, 1, 1, 1))
    windows = w.node("Conv", [*inputs, w.tensor(f"{name}.windows", one_hot)], f"{name}.taken", group=C,
                     kernel_shape=[R, S], strides=list(layer.stride), pads=list(layer.pads))
    rows = w.node("Reshape", [windows, w.tensor(f"{name}.rows", [0, C * R * S, P * Q])], f"{name}.reshaped")
    by_place = w.node("Transpose", [rows], f"{name}.places", perm=[2, 0, 1])
    weights = w.arrays[f"{name}.w"].transpose(3, 4, 2, 0, 1, 5).reshape(P * Q, C * R * S, K)
    product = w.node("MatMul", [by_place, w.tensor(f"{name}.weight", weights)], f"{name}.product")
    bias = w.tensor(f"{name}.bias", w.arrays[f"{name}.b"].reshape(P * Q, 1, K))
    total = w.node("Add", [product, bias], f"{name}.sum")
    back = w.node("Transpose", [total], f"{name}.back", perm=[1, 2, 0])
    return w.node("Reshape", [back, w.tensor(f"{name}.maps", [0, K, P, Q])], name)


def _concat(w: Writer, name, layer, inputs, shapes) -> str:
    return w.node("Concat", inputs, name, axis=1)


def _flatten(w: Writer, name, layer, inputs, shapes) -> str:
    return w.node("Flatten", inputs, name, axis=1)


def _add(w: Writer, name, layer, inputs, shapes) -> str:
    return w.node("Add" if len(inputs) == 2 else "Sum", inputs, name)


def _clipped(w: Writer, name, layer, inputs, shapes) -> str:
    bounds = [w.tensor(f"{name}.{key}", np.float32(value)) for key, value in (("min", 0.0), ("max", layer.ceiling))]
    return w.node("Clip", inputs + bounds, name)


def _gelu(w: Writer, name, layer, inputs, shapes) -> str:
    """By its formula, since opset 17 does not have it."""
    root, one, half = (w.tensor(f"{name}.{key}", np.float32(value)) for key, value in
                       (("root", 2**0.5), ("one", 1.0), ("half", 0.5)))
    error = w.node("Erf", [w.node("Div", [*inputs, root], f"{name}.scaled")], f"{name}.erf")
    product = w.node("Mul", [*inputs, w.node("Add", [error, one], f"{name}.sum")], f"{name}.product")
    return w.node("Mul", [product, half], name)


def _multiply(w: Writer, name, layer, inputs, shapes) -> str:
    return w.node("Mul", [*inputs, w.tensor(f"{name}.factor", np.float32(layer.factor))], name)


def _plain(op: str) -> Callable:
    return lambda w, name, layer, inputs, shapes: w.node(op, inputs, name)


WRITERS: dict[str, Callable] = {
    "Conv2d": _conv, "Linear": _linear, "MaxPool2d": _maxpool, "AvgPool2d": _avgpool, "GlobalAvgPool2d": _global,
    "AdaptiveAvgPool2d": _adaptive, "Subsample": _subsample, "BatchNorm2d": _batchnorm, "Affine": _affine, "LRN": _lrn,
    "LRNWithin": _lrn_within, "Dropout": _dropout, "Local2d": _local, "Concat": _concat, "Add": _add,
    "Flatten": _flatten, "GELU": _gelu, "Multiply": _multiply, "ClippedReLU": _clipped,
    "ReLU": _plain("Relu"), "Tanh": _plain("Tanh"), "Sigmoid": _plain("Sigmoid"),
    "LeakyReLU": lambda w, name, layer, inputs, shapes: w.node("LeakyRelu", inputs, name, alpha=float(layer.slope)),
}
