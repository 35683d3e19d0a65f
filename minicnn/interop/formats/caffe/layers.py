"""The layers of Caffe as operations of the neutral graph, as its C++ computes them (src/caffe/layers)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.caffe.files import CaffeNet, Translation
from minicnn.interop.formats.stored import Stored
from minicnn.interop.graph.neutral import Op


def read_caffe(message: dict, weights: dict[str, list], size: int | None) -> CaffeNet:
    """The graph for inference of a network, with these weights.   size: side of the images, where it does not say."""
    return Translation(message, weights, size, LAYERS).net()


def _sides(layer: dict, settings: dict, name: str, plain: str, default: int | None) -> list[int]:
    """(height, width): name_h and name_w, or one value, or two, or the default."""
    both = [settings.get(f"{name}_h"), settings.get(f"{name}_w")]
    if None not in both:
        return both
    given = settings.get(plain, default)
    given = given if isinstance(given, list) else [given]
    if len(given) not in (1, 2) or None in given:
        raise CheckpointError(f"{layer['type']} {layer.get('name', '')!r} has {plain} = {given}; expected one number, "
                              "or two")
    return (given * 2)[:2]


def _convolution(t: Translation, layer: dict) -> None:
    p = layer.get("convolution_param", {})
    bias = p.get("bias_term", 1)
    if p.get("axis", 1) != 1:
        raise CheckpointError(f"Convolution {layer.get('name', '')!r} works on axis {p['axis']}; expected 1")
    pads = _sides(layer, p, "pad", "pad", 0)
    t.emit(layer, "conv", [t.bottom(layer), *t.blobs(layer, 2 if bias else 1)], groups=p.get("group", 1),
           stride=_sides(layer, p, "stride", "stride", 1), pads=pads * 2, dilation=p.get("dilation"))


def _pooling(t: Translation, layer: dict) -> None:
    p = layer.get("pooling_param", {})
    kind = {0: "maxpool", 1: "avgpool"}.get(p.get("pool", 0))
    if kind is None:
        raise CheckpointError(f"Pooling {layer.get('name', '')!r} is stochastic; expected MAX or AVE")
    if p.get("global_pooling"):
        return t.emit(layer, "globalpool", [t.bottom(layer)], how="max" if kind == "maxpool" else "mean")
    t.emit(layer, kind, [t.bottom(layer)], kernel=tuple(_sides(layer, p, "kernel", "kernel_size", None)),
           stride=_sides(layer, p, "stride", "stride", 1), pads=_sides(layer, p, "pad", "pad", 0) * 2,
           ceil=p.get("round_mode", 0) == 0, count="padding", whole_windows=True)
    return None


def _lrn(t: Translation, layer: dict) -> None:
    p = layer.get("lrn_param", {})
    within = p.get("norm_region", 0) == 1
    t.emit(layer, "lrnwithin" if within else "lrn", [t.bottom(layer)], n=p.get("local_size", 5),
           alpha=p.get("alpha", 1.0), beta=p.get("beta", 0.75), k=1.0 if within else p.get("k", 1.0))


def _inner_product(t: Translation, layer: dict) -> None:
    p = layer.get("inner_product_param", {})
    if p.get("axis", 1) != 1:
        raise CheckpointError(f"InnerProduct {layer.get('name', '')!r} works on axis {p['axis']}; expected 1")
    names = t.blobs(layer, 2 if p.get("bias_term", 1) else 1)
    for name, rank in zip(names, (2, 1), strict=False):
        found = t.constants[name]
        if len(found.shape) > rank:                         # old files: (1, 1, out, in) and (1, 1, 1, out)
            if prod(found.shape[:-rank]) != 1:
                raise CheckpointError(f"{name} has the shape {found.shape}; expected {rank} axes")
            t.constants[name] = (found.reshape(found.shape[-rank:]) if isinstance(found, np.ndarray) else
                                 Stored(found.file, found.name, found.dtype, found.shape[-rank:], found.offset))
    flat = f"{layer.get('name', '')} flat"
    t.ops.append(Op("flatten", flat, [t.bottom(layer)], [flat], {"axis": 1}, "InnerProduct"))
    t.read.add(flat)
    t.emit(layer, "gemm", [flat, *names], transposed=not p.get("transpose", 0))


def _batchnorm(t: Translation, layer: dict) -> None:
    mean, var, factor = t.blobs(layer, 3)
    scale = float(t.array(factor).reshape(-1)[0]) if t.array(factor).size == 1 else 0.0
    scale = 0.0 if scale == 0.0 else 1.0 / scale
    for name in (mean, var):
        t.constants[name] = t.array(name).reshape(-1) * np.float32(scale)
    t.constants.pop(factor)
    t.notes.append(f"{layer.get('name', '')}: mean and variance times {scale:g}, by Caffe's third array")
    ones, zeros = f"{layer.get('name', '')} gamma", f"{layer.get('name', '')} beta"
    t.constants |= {ones: np.ones_like(t.constants[mean]), zeros: np.zeros_like(t.constants[mean])}
    t.emit(layer, "batchnorm", [t.bottom(layer), ones, zeros, mean, var],
           eps=layer.get("batch_norm_param", {}).get("eps", 1e-5))


def _scale(t: Translation, layer: dict) -> None:
    p = layer.get("scale_param", {})
    if len(layer.get("bottom", ())) != 1 or p.get("axis", 1) != 1 or p.get("num_axes", 1) != 1:
        raise CheckpointError(f"Scale {layer.get('name', '')!r} multiplies two arrays, or along other axes than the "
                              "channels")
    gamma, *beta = t.blobs(layer, 2 if p.get("bias_term", 0) else 1)
    t.emit(layer, "scale", [t.bottom(layer)], scale=t.array(gamma).reshape(-1),
           shift=t.array(beta[0]).reshape(-1) if beta else np.float32(0), reads=[gamma, *beta])


def _bias(t: Translation, layer: dict) -> None:
    p = layer.get("bias_param", {})
    if len(layer.get("bottom", ())) != 1 or p.get("axis", 1) != 1 or p.get("num_axes", 1) != 1:
        raise CheckpointError(f"Bias {layer.get('name', '')!r} adds two arrays, or along other axes than the channels")
    (beta,) = t.blobs(layer, 1)
    t.emit(layer, "scale", [t.bottom(layer)], scale=np.float32(1), shift=t.array(beta).reshape(-1), reads=[beta])


def _power(t: Translation, layer: dict) -> None:
    p = layer.get("power_param", {})
    if p.get("power", 1.0) != 1.0:
        raise CheckpointError(f"Power {layer.get('name', '')!r} raises to {p['power']:g}; expected 1")
    t.emit(layer, "scale", [t.bottom(layer)], scale=np.float32(p.get("scale", 1.0)),
           shift=np.float32(p.get("shift", 0.0)))


def _eltwise(t: Translation, layer: dict) -> None:
    p, names = layer.get("eltwise_param", {}), [t.bottom(layer, k) for k in range(len(layer.get("bottom", ())))]
    if p.get("operation", 1) != 1:
        raise CheckpointError(f"Eltwise {layer.get('name', '')!r} multiplies, or takes the maximum; expected SUM")
    coefficients = p.get("coeff") or [1.0] * len(names)
    if len(coefficients) != len(names):
        raise CheckpointError(f"Eltwise {layer.get('name', '')!r} has {len(coefficients)} coefficients for "
                              f"{len(names)} arrays")
    for k, factor in enumerate(coefficients):
        if factor != 1.0:
            scaled = f"{layer.get('name', '')} input {k}"
            t.ops.append(Op("scale", scaled, [names[k]], [scaled], {"scale": np.float32(factor),
                                                                    "shift": np.float32(0)}, "Eltwise"))
            names[k] = scaled
            t.read.add(scaled)
    t.emit(layer, "add", names)


def _slice(t: Translation, layer: dict) -> None:
    p, tops = layer.get("slice_param", {}), layer.get("top", [])
    points = p.get("slice_point", [])
    ends = zip([0, *points[:-1]], points, strict=True) if points else ()
    sizes = [end - begin for begin, end in ends]            # of all but the last, whose size lower.py knows
    outputs = [t.top({**layer, "top": tops}, k) for k in range(len(tops))]
    t.emit(layer, "split", [t.bottom(layer)], outputs, axis=p.get("axis", p.get("slice_dim", 1)),
           **({"first_sizes": sizes} if sizes else {}))


def _softmax(t: Translation, layer: dict) -> None:
    if layer["type"] == "SoftmaxWithLoss":
        t.losses.append(t.bottom(layer))
    else:
        t.emit(layer, "softmax", [t.bottom(layer)], axis=layer.get("softmax_param", {}).get("axis", 1))


def _simple(kind: str, **settings: tuple[str, str, object]) -> Callable:
    """A layer with one input.   settings: attribute -> (message, field, default)."""
    def translate(t: Translation, layer: dict) -> None:
        t.emit(layer, kind, [t.bottom(layer)], **{name: layer.get(message, {}).get(key, default)
                                                  for name, (message, key, default) in settings.items()})
    return translate


def _concat(t: Translation, layer: dict) -> None:
    p = layer.get("concat_param", {})
    names = [t.bottom(layer, k) for k in range(len(layer.get("bottom", ())))]
    t.emit(layer, "concat", names, axis=p.get("axis", p.get("concat_dim", 1)))


def _split(t: Translation, layer: dict) -> None:
    value = t.bottom(layer)
    for name in layer.get("top", ()):
        t.current[name] = value


def _relu(t: Translation, layer: dict) -> None:
    slope = layer.get("relu_param", {}).get("negative_slope", 0.0)
    t.emit(layer, "leakyrelu" if slope else "relu", [t.bottom(layer)], **({"slope": slope} if slope else {}))


LAYERS: dict[str, Callable[[Translation, dict], None]] = {
    "Convolution": _convolution, "Pooling": _pooling, "LRN": _lrn, "InnerProduct": _inner_product,
    "BatchNorm": _batchnorm, "Scale": _scale, "Bias": _bias, "Power": _power, "Eltwise": _eltwise, "Slice": _slice,
    "Softmax": _softmax, "SoftmaxWithLoss": _softmax, "Concat": _concat, "Split": _split, "ReLU": _relu,
    "TanH": _simple("tanh"), "Sigmoid": _simple("sigmoid"),
    "Dropout": _simple("dropout", rate=("dropout_param", "dropout_ratio", 0.5)),
    "Flatten": _simple("flatten", axis=("flatten_param", "axis", 1)),
    "Reshape": lambda t, layer: t.emit(layer, "reshape", [t.bottom(layer)], shape=list(
        layer.get("reshape_param", {}).get("shape", {}).get("dim", ()))),
}
