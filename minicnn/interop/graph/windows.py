"""Lowering: convolution, pooling, and the normalisations; they need images whose channels are our last axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minicnn.interop import layout
from minicnn.interop.graph.neutral import Op, refuse
from minicnn.interop.graph.values import Pads, Part, Pooled, Value
from minicnn.layers.activation import ClippedReLU, ReLU
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.layers.conv import Conv2d
from minicnn.layers.local import Local2d
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AvgPool2d, MaxPool2d

NO_PADS = (0, 0, 0, 0)


def geometry(op: Op, value: Value, kernel: tuple[int, int], outer: Pads) -> tuple[tuple[int, int], Pads]:
    """Stride, and the padding in all: that of the operation, by its rule, and the border that is there already."""
    stride = tuple(op.attrs.get("stride") or (1, 1))
    if len(kernel) != 2 or len(stride) != 2 or min(*kernel, *stride) < 1:
        raise refuse(op, f"has the window {kernel} and the stride {stride}", shapes=[value.shape],
                     advice="expected two of each, at least 1")
    if any(step != 1 for step in op.attrs.get("dilation") or ()) and max(kernel) > 1:
        raise refuse(op, f"is dilated by {op.attrs['dilation']}, which no layer here is", shapes=[value.shape])
    rule = op.attrs.get("auto_pad") or "NOTSET"
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        sides = [size + outer[k] + outer[k + 2] for k, size in enumerate(value.shape[2:])]
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sides, kernel, stride, strict=True)]
        before = [total // 2 if rule == "SAME_UPPER" else total - total // 2 for total in totals]
        pads = (*before, totals[0] - before[0], totals[1] - before[1])
    else:
        pads = NO_PADS if rule == "VALID" else tuple(op.attrs.get("pads") or NO_PADS)
    if len(pads) != 4 or min(pads) < 0:
        raise refuse(op, f"has the padding {pads}", shapes=[value.shape], advice="expected four sizes, none negative")
    return stride, tuple(a + b for a, b in zip(pads, outer, strict=True))


def conv(low, op: Op) -> list:
    if isinstance(part := low.given(op, 0), Part):
        return [step_of_part(low, op, part)]
    value, outer = low.image(op)
    weight = low.tensor(op, 1)
    if len(weight.shape) != 4:
        raise refuse(op, f"has weights of the shape {weight.shape}", shapes=[value.shape], advice="1-D and 3-D "
                     "convolutions are not here")
    K, channels, R, S = weight.shape
    groups, C = op.attrs.get("groups", 1), value.shape[1]
    if groups < 1 or channels * groups != C or K % groups:
        raise refuse(op, f"has weights {'x'.join(map(str, weight.shape))} for {groups} groups of {C} channels",
                     shapes=[value.shape])
    stride, pads = geometry(op, value, (R, S), outer)
    bias = low.optional(op, 2)
    layer = Conv2d(C, K, (R, S), stride=stride, padding=pads, groups=groups, bias=bias is not None,
                   ceil=op.attrs.get("ceil", False))
    H, W = layer.geometry((1, *value.shape[2:], C))[0]
    made = low.emit(op, layer, [value.node], value, weight=weight.name, shape=(value.shape[0], K, H, W))
    low.keep(f"{made.node}.w", weight, layout.conv(weight.shape))
    if bias is not None:
        low.keep_vector(f"{made.node}.b", bias.reshape(-1), op.inputs[2])
    return [made]


def pool(low, op: Op) -> list:
    value, outer = low.image(op)
    kernel = tuple(op.attrs["kernel"])
    stride, pads = geometry(op, value, kernel, outer)
    if kernel == stride == (1, 1) and not any(pads):
        low.report.dropped.append(f"{op} (1x1, stride 1)")
        return [value]
    size = {"stride": stride, "padding": pads, "ceil": op.attrs.get("ceil", False)}
    if op.kind == "avgpool":
        layer = _average(op, value, kernel, size, outer)
    else:
        if any(outer) and not isinstance(low.layer_of(value), (ReLU, ClippedReLU)):
            raise refuse(op, "takes the maximum with zeros around the image, which is padded with -infinity here",
                         shapes=[value.shape], advice="it is only the same behind a ReLU")
        layer = MaxPool2d(kernel, **size)
    H, W = layer.geometry((1, *value.shape[2:], 1))[0]
    if op.attrs.get("whole_windows") and not any(pads):
        counts = [-(-(n - k) // s) + 1 for n, k, s in zip(value.shape[2:], kernel, stride, strict=True)]
        if counts != [H, W]:
            raise refuse(op, f"has windows outside of the image: Caffe makes {counts[0]}x{counts[1]} of it",
                         shapes=[value.shape], advice="its values there are undefined")
    return [low.emit(op, layer, [value.node], value, shape=(*value.shape[:2], H, W))]


def _average(op: Op, value: Value, kernel: tuple, size: dict, outer: Pads) -> AvgPool2d:
    """The layer whose divisor counts what the operation counts; zeros that were put around before it always count."""
    shape, pads = (1, *value.shape[2:], 1), size["padding"]
    counts = any(pads) and (op.attrs.get("count") == "padding" or any(outer))
    layer = AvgPool2d(kernel, **size, count_pad="padding" if counts else False)
    if counts and op.attrs.get("count") != "padding" and outer != pads:     # its own padding does not count
        over = AvgPool2d(kernel, stride=size["stride"], padding=outer, ceil=True, count_pad="padding")
        if over.geometry(shape)[0] == layer.geometry(shape)[0]:             # which is what hangs over the edge
            return over
        raise refuse(op, "has two paddings, of which one counts in the divisor", shapes=[value.shape])
    exact = layer.geometry(shape)[1]["pads"]
    if counts and all(a <= b for a, b in zip(exact, pads, strict=True)):    # nothing hangs over the edge
        return AvgPool2d(kernel, **size, count_pad=True)
    return layer


def globalpool(low, op: Op) -> list:
    value, outer = low.image(op)
    if any(outer):
        raise refuse(op, "averages over zeros around the image", shapes=[value.shape])
    if op.attrs.get("how", "mean") == "mean":
        return [Pooled(value, op)]
    return [low.emit(op, MaxPool2d(value.shape[2:]), [value.node], value, shape=(*value.shape[:2], 1, 1))]


def batchnorm(low, op: Op) -> list:
    value = low.value(op)
    if op.attrs.get("per_pixel"):
        raise refuse(op, "has statistics for every pixel (spatial = 0)", shapes=[value.shape])
    if not value.is_image and len(value.shape) != 2:
        raise refuse(op, "normalises an axis that is not that of the channels", shapes=[value.shape])
    count, rows = value.shape[1], value.rows()
    layer = BatchNorm2d(count, eps=op.attrs["eps"], momentum=op.attrs.get("momentum", 0.1))
    made = low.emit(op, layer, [value.node], value, weight=op.inputs[1])
    for index, local in enumerate(("w", "b", "mean", "var"), start=1):
        array = low.tensor(op, index).read().reshape(-1)
        if array.size != count:
            raise refuse(op, f"has {array.size} {op.inputs[index]!r} for {count} channels", shapes=[value.shape])
        prefix = "state/" if local in ("mean", "var") else ""
        low.keep_vector(f"{prefix}{made.node}.{local}", array if rows is None else array[rows], op.inputs[index])
    return [made]


def lrn(low, op: Op) -> list:
    if isinstance(part := low.given(op, 0), Part):
        return [step_of_part(low, op, part)]
    value, outer = low.image(op)
    n = op.attrs["n"]
    if n % 2 == 0 or any(outer):
        raise refuse(op, f"has a window of {n} channels, without a centre: it reaches further up in ONNX and further "
                     "down in PyTorch" if n % 2 == 0 else "reads a padded image", shapes=[value.shape])
    constants = {name: float(op.attrs[name]) for name in ("k", "alpha", "beta")}
    kind = LRNWithin if op.kind == "lrnwithin" else LRN
    groups = {"groups": op.attrs["groups"]} if op.attrs.get("groups", 1) > 1 else {}
    made = low.emit(op, kind(n, **constants, **groups, divide_alpha=True), [value.node], value)
    low.report.note(f"{made.node}: n {n}, k {constants['k']:g}, alpha {constants['alpha']:g} divided by "
                    f"{'n x n' if kind is LRNWithin else 'n'}, beta {constants['beta']:g} ({op.origin})")
    return [made]


def local(low, op: Op) -> list:
    value, outer = low.image(op)
    w, b = low.tensor(op, 1), low.tensor(op, 2)
    stride, pads = geometry(op, value, tuple(op.attrs["kernel"]), outer)
    layer = Local2d(value.shape[2:], value.shape[1], w.shape[-1], op.attrs["kernel"], stride=stride, padding=pads)
    if layer.initial_values()["w"][1] != tuple(w.shape):
        raise refuse(op, f"has weights of the shape {w.shape}", shapes=[value.shape])
    P, Q, K = layer.out_shape
    made = low.emit(op, layer, [value.node], value, shape=(value.shape[0], K, P, Q))
    low.keep(f"{made.node}.w", w, layout.same(w.shape), "one kernel for each place")
    low.keep(f"{made.node}.b", b, layout.same(b.shape))
    return [made]


# ---- channels that are treated apart, and joined again
def split(low, op: Op) -> list:
    """Parts of the channels; what is done to all of them alike becomes one layer with groups."""
    value = low.value(op)
    axis = op.attrs.get("axis", 0) % len(value.shape)
    if not value.is_image or axis != 1:
        raise refuse(op, f"cuts axis {axis}; only channels can be cut", shapes=[value.shape])
    C = value.shape[1]
    given = low.inputs_of(op)
    sizes = op.attrs.get("sizes") or (given[1].tolist() if len(given) > 1 and given[1] is not None else None)
    if "first_sizes" in op.attrs:
        sizes = [*op.attrs["first_sizes"], C - sum(op.attrs["first_sizes"])]
    if sizes is None:
        part = -(-C // len(op.outputs))
        sizes = [min(part, C - k * part) for k in range(len(op.outputs))]
    if sum(sizes) != C or min(sizes) < 1 or len(sizes) != len(op.outputs):
        raise refuse(op, f"cuts {C} channels into {sizes}", shapes=[value.shape])
    ends = np.cumsum(sizes).tolist()
    return [part_of(value, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def part_of(value: Value, begin: int, end: int, squeezed: bool = False) -> Part:
    N, _, H, W = value.shape
    return Part(value, begin, end, (N, H, W) if squeezed else (N, end - begin, H, W), squeezed=squeezed)


def step_of_part(low, op: Op, part: Part) -> Part:
    """The part with one more step; a convolution changes its shape."""
    if part.squeezed:
        raise refuse(op, "reads a part of the channels without its axis", shapes=[part.shape])
    shape, arrays = part.shape, ()
    if op.kind == "conv":
        weight = low.tensor(op, 1).read()
        if weight.ndim != 4 or weight.shape[1] * op.attrs.get("groups", 1) != shape[1]:
            raise refuse(op, f"has weights of the shape {weight.shape}", shapes=[shape])
        arrays = (weight, low.optional(op, 2))
        inner = Value("", shape, (0, 2, 3, 1))
        stride, pads = geometry(op, inner, weight.shape[2:], NO_PADS)
        layer = Conv2d(shape[1], len(weight), weight.shape[2:], stride=stride, padding=pads)
        shape = (shape[0], len(weight), *layer.geometry((1, *shape[2:], shape[1]))[0])
    return replace(part, shape=shape, steps=(*part.steps, (op, arrays)))


def joined(low, op: Op, parts: list[Part]) -> list:
    """All parts of a value in their order, to which the same was done: one layer with groups for each step."""
    base = parts[0].value
    ends = [0, *(part.end for part in parts)]
    whole = (all(part.value is base or part.value == base for part in parts) and ends[-1] == base.shape[1]
             and all(part.begin == end for part, end in zip(parts, ends, strict=False)))
    alike = len({tuple(_signature(step) for step in part.steps) for part in parts}) == 1
    if not whole or not alike or any(part.squeezed for part in parts):
        raise refuse(op, "joins parts of the channels that were not treated alike, or not all in order",
                     shapes=[part.shape for part in parts], advice="minicnn has no layer that cuts channels out")
    value = base
    for steps in zip(*(part.steps for part in parts), strict=True):
        value = _step(low, steps, value, len(parts))
    return [low.relabel(op, value)]


def _signature(step) -> tuple:
    op, arrays = step
    attrs = {name: attr for name, attr in op.attrs.items() if op.kind != "affine"}
    return op.kind, repr(sorted(attrs.items())), tuple(None if array is None else array.shape for array in arrays)


def _step(low, steps: tuple, value: Value, count: int) -> Value:
    """One step that was done to all parts, as a step of the whole."""
    op = steps[0][0]
    if op.kind == "affine":
        scale, shift = (np.concatenate([one.attrs[name] for one, _ in steps]) for name in ("scale", "shift"))
        return low.affine(op, value, scale, shift)
    if op.kind != "conv":
        groups = {"groups": count * op.attrs.get("groups", 1)} if op.kind == "lrn" else {}
        merged = Op(op.kind, op.name, [op.inputs[0]], op.outputs, op.attrs | groups, op.origin)
    else:
        weights = [f"{op.outputs[0]}.{local}" for local in ("w", "b")]
        for name, index in zip(weights, (0, 1), strict=True):
            arrays = [arrays[index] for _, arrays in steps]
            low.env[name] = None if arrays[0] is None else np.concatenate(arrays)
        inputs = [op.inputs[0], *(name for name in weights if low.env[name] is not None)]
        merged = Op("conv", op.name, inputs, op.outputs, op.attrs | {"groups": count * op.attrs.get("groups", 1)},
                    op.origin)
        low.used.update(name for one, _ in steps for name in one.inputs[1:])
    low.env[op.inputs[0]] = value
    low.run(merged)
    return low.env[op.outputs[0]]


def slice_(low, op: Op) -> list:
    """A cut along the channels."""
    value, given = low.value(op), low.inputs_of(op)
    read = lambda name, index: (op.attrs.get(name) or                            # noqa: E731
                                (given[index].reshape(-1).tolist() if index < len(given) and given[index] is not None
                                 else None))
    starts, ends, axes, steps = (read(name, k) for k, name in enumerate(("starts", "ends", "axes", "steps"), start=1))
    axis = (axes or [0])[0] % len(value.shape)
    if not value.is_image or len(starts or ()) != 1 or axis != 1 or (steps or [1]) != [1]:
        raise refuse(op, "cuts an array; only channels can be cut, one after the other", shapes=[value.shape])
    begin, end, _ = slice(starts[0], ends[0]).indices(value.shape[1])
    if begin >= end:
        raise refuse(op, f"cuts channels {starts[0]} to {ends[0]}", shapes=[value.shape])
    return [value if (begin, end) == (0, value.shape[1]) else part_of(value, begin, end)]


def gather(low, op: Op) -> list:
    """One channel."""
    value, index = low.value(op), low.tensor(op, 1).read()
    if not value.is_image or op.attrs.get("axis", 0) % 4 != 1 or index.size != 1:
        raise refuse(op, "picks values out of an array; only single channels can be picked", shapes=[value.shape])
    at = int(index.reshape(-1)[0]) % value.shape[1]
    return [part_of(value, at, at + 1, squeezed=index.ndim == 0)]


HANDLERS = {"conv": conv, "maxpool": pool, "avgpool": pool, "globalpool": globalpool, "batchnorm": batchnorm,
            "lrn": lrn, "lrnwithin": lrn, "local": local, "split": split, "slice": slice_, "gather": gather}
