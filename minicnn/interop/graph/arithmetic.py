"""Lowering: fully connected layers, sums, scales and shifts, activations, and response normalisation in disguise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from minicnn.interop import layout
from minicnn.interop.formats.stored import InMemory
from minicnn.interop.graph.neutral import Op, refuse
from minicnn.interop.graph.values import Part, Squares, Value
from minicnn.interop.graph.windows import lrn, pool, step_of_part
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.combine import Add
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear


# ---- fully connected layers
def gemm(low, op: Op) -> list:
    value, weight = low.value(op), low.tensor(op, 1)
    if op.attrs.get("transposed_input"):
        raise refuse(op, "transposes the features (transA)", shapes=[value.shape])
    transposed = bool(op.attrs.get("transposed"))
    if len(value.shape) != 2 or len(weight.shape) != 2 or weight.shape[transposed] != value.shape[1]:
        raise refuse(op, f"multiplies with {'x'.join(map(str, weight.shape))}", shapes=[value.shape],
                     advice="flatten the maps first")
    bias, out = low.optional(op, 2), weight.shape[not transposed]
    if bias is not None:
        if bias.size not in (1, out) or bias.ndim > 1 and bias.shape[-1] != bias.size:
            raise refuse(op, f"adds an array of the shape {bias.shape}", shapes=[value.shape])
        bias = np.broadcast_to(bias.reshape(-1) * op.attrs.get("beta", 1.0), out)
    alpha = op.attrs.get("alpha", 1.0)
    if alpha != 1.0:
        weight = InMemory(weight.name, weight.read() * np.float32(alpha))
    made = low.emit(op, Linear(value.shape[1], out, bias=bias is not None), [value.node], value, weight=weight.name,
                    shape=(value.shape[0], out), blocks=None)
    _keep_rows(low, f"{made.node}.w", weight, value, transposed)
    if bias is not None:
        low.keep_vector(f"{made.node}.b", bias, op.inputs[2])
    return [made]


def _keep_rows(low, target: str, weight, value: Value, transposed: bool) -> None:
    """Weights of a fully connected layer, with the rows of flattened maps in our order."""
    if value.blocks is None or len(value.blocks) == 1:
        block = value.blocks[0] if value.blocks else None
        low.keep(target, weight, layout.linear(weight.shape, block, transposed))
        return
    array = weight.read().T if transposed else weight.read()
    words = " and ".join(f"({','.join(map(str, block))})" for block in value.blocks)
    low.keep(target, InMemory(weight.name, array[value.rows()]), layout.same(array.shape), f"rows {words} CHW -> HWC")


def matmul(low, op: Op) -> list:
    if low.is_known(op.inputs[0]):
        raise refuse(op, "multiplies constants with the images from the left", shapes=[low.value(op, 1).shape])
    return gemm(low, Op("gemm", op.name, op.inputs, op.outputs, {}, op.origin))


# ---- activations
def activation(low, op: Op) -> list:
    found = low.given(op, 0)
    if isinstance(found, Part):
        return [step_of_part(low, op, found)]
    value = low.value(op)
    layer = ACTIVATIONS[op.kind](op)
    return [value if layer is None else low.emit(op, layer, [value.node], value)]


def _gelu(op: Op) -> GELU:
    if op.attrs.get("approximate", "none") != "none":
        raise refuse(op, f"is approximated by {op.attrs['approximate']}", advice="here it is exact")
    return GELU()


def clip(low, op: Op) -> list:
    given = low.inputs_of(op)
    bound = lambda name, index, default: float(op.attrs[name]) if op.attrs.get(name) is not None else (     # noqa: E731
        float(given[index].reshape(-1)[0]) if index < len(given) and given[index] is not None else default)
    least, most = bound("min", 1, -math.inf), bound("max", 2, math.inf)
    limit = np.finfo(np.float32).max
    least, most = (-math.inf if least <= -limit else least), (math.inf if most >= limit else most)
    if (least, most) == (-math.inf, math.inf):
        return [low.given(op, 0)]
    if least != 0 or not most > 0:
        raise refuse(op, f"clips to [{least:g}, {most:g}]", shapes=[low.given(op, 0).shape],
                     advice="expected [0, c], a ReLU with or without a ceiling")
    kind = "relu" if most == math.inf else "clippedrelu"
    return activation(low, Op(kind, op.name, op.inputs[:1], op.outputs, {"ceiling": most}, op.origin))


def dropout(low, op: Op) -> list:
    value, given = low.value(op), low.inputs_of(op)
    rate = op.attrs.get("rate")
    if rate is None:
        rate = float(given[1].reshape(-1)[0]) if len(given) > 1 and given[1] is not None else 0.5
    return [low.emit(op, Dropout(rate, inverted=op.attrs.get("inverted", True)), [value.node], value)]


def identity(low, op: Op) -> list:
    return [low.given(op, 0)]


def softmax(low, op: Op) -> list:
    """At the end it is left out: the output is the logits."""
    found = low.given(op, 0)
    axis = op.attrs["axis"] % len(found.shape)
    over = math.prod(found.shape[axis:]) if op.attrs.get("flattens") else found.shape[axis]
    features = math.prod(found.shape[1:])
    if op.outputs[0] in low.outputs and low.is_single(op.outputs[0]) and over == features:
        low.report.dropped.append(f"{op} (the output is the logits)")
        return [found]
    raise refuse(op, f"over axis {axis} is not at the end, over all classes", shapes=[found.shape],
                 advice="minicnn has softmax in its loss alone; name the value before it as output")


# ---- sums, scales and shifts
def add(low, op: Op) -> list:
    known = [name for name in op.inputs if low.is_known(name)]
    if known:
        return _with_constants(low, op, known, lambda array: (1.0, array))
    found = [low.given(op, k) for k in range(len(op.inputs))]
    values = [low.value(op, k) for k in range(len(found))]
    if len(values) == 1:
        return [values[0]]
    if len({(value.shape, value.order, value.blocks) for value in values}) > 1:
        raise refuse(op, "adds arrays of different shapes or orders of axes", shapes=[value.shape for value in values])
    return [low.emit(op, Add(), [value.node for value in values], values[0])]


def sub(low, op: Op) -> list:
    if low.is_known(op.inputs[1]):
        return _with_constants(low, op, op.inputs[1:], lambda array: (1.0, -array))
    if low.is_known(op.inputs[0]):
        return _with_constants(low, op, op.inputs[:1], lambda array: (-1.0, array))
    raise refuse(op, "subtracts two arrays", shapes=[low.given(op, k).shape for k in (0, 1)])


def mul(low, op: Op) -> list:
    known = [name for name in op.inputs if low.is_known(name)]
    if known:
        return _with_constants(low, op, known, lambda array: (array, 0.0))
    first, second = low.given(op, 0), low.given(op, 1)
    if op.inputs[0] == op.inputs[1] and isinstance(first, Value):
        return [Squares(first, first.shape, 1)]
    for x, formula in ((first, second), (second, first)):
        if isinstance(formula, Squares) and formula.beta is not None and formula.beta < 0:
            return _normalised(low, op, x, replace(formula, beta=-formula.beta))
    raise refuse(op, "multiplies two arrays", shapes=[first.shape, second.shape],
                 advice="gates (squeeze and excitation) are not here")


def div(low, op: Op) -> list:
    if low.is_known(op.inputs[1]):
        with np.errstate(divide="ignore"):
            return _with_constants(low, op, op.inputs[1:], lambda array: (1.0 / array, 0.0))
    first, second = low.given(op, 0), low.given(op, 1)
    if isinstance(second, Squares) and second.beta is not None and second.beta > 0:
        return _normalised(low, op, first, second)
    raise refuse(op, "divides two arrays", shapes=[getattr(first, "shape", ()), second.shape])


def scale(low, op: Op) -> list:
    """x * scale + shift, for each channel (axis 1), or by single numbers."""
    value = low.value(op)
    vectors = [np.asarray(op.attrs[name], np.float32) for name in ("scale", "shift")]
    if len(value.shape) == 4 and not value.is_image or any(
            vector.size not in (1, value.shape[1]) for vector in vectors):
        raise refuse(op, f"scales by {vectors[0].size} numbers", shapes=[value.shape])
    rows = value.rows()
    low.used.update(op.attrs.get("reads", ()))
    vectors = [vector[rows] if rows is not None and vector.size > 1 else vector for vector in vectors]
    return [low.affine(op, value, *(vector.reshape(()) if vector.size == 1 else vector for vector in vectors))]


def neg(low, op: Op) -> list:
    return [low.affine(op, low.value(op), np.float32(-1.0), np.float32(0.0))]


def pow_(low, op: Op) -> list:
    found, power = low.given(op, 0), float(low.tensor(op, 1).read().reshape(-1)[0])
    if isinstance(found, Value) and power == 2.0:
        return [Squares(found, found.shape, 1)]
    if isinstance(found, Squares) and found.k is not None and found.beta is None:
        return [replace(found, beta=power)]
    if isinstance(found, Value) and power == 1.0:
        return [found]
    raise refuse(op, f"raises to the power {power:g}", shapes=[found.shape])


def _with_constants(low, op: Op, known: list[str], scale_and_shift) -> list:
    """x * scale + shift, with constants of one element, or of one for each channel."""
    others = [name for name in op.inputs if name not in known]
    if len(others) != 1:
        raise refuse(op, "joins several arrays with constants")
    found = low.env[others[0]]
    array = low.array(known[0])
    for name in known[1:]:
        array = array + low.array(name)
    if isinstance(found, Squares):
        return [_scaled_squares(op, found, array, scale_and_shift)]
    if isinstance(found, Part):
        size = found.end - found.begin if not found.steps else found.shape[1]
        scale, shift = scale_and_shift(_per_channel(op, array.astype(np.float32), found.shape, 1, size))
        return [replace(found, steps=_with_affine(op, found.steps, np.broadcast_to(np.float32(scale), size),
                                                  np.broadcast_to(np.float32(shift), size)))]
    value = low.value(Op(op.kind, op.name, others, op.outputs, {}, op.origin))
    axis = value.channel_axis
    vector = _per_channel(op, array.astype(np.float32), value.shape, axis, value.shape[axis], op.attrs.get("axis"))
    rows = value.rows()
    if rows is not None and vector.size > 1:
        vector = vector[rows]
    scale, shift = scale_and_shift(vector)
    if low.graph.ours and op.kind == "mul" and vector.size == 1 and 0 < float(vector.reshape(-1)[0]) < 1:
        rate = round(1.0 - float(vector.reshape(-1)[0]), 6)             # dropout of the paper, as minicnn writes it
        return [low.emit(op, Dropout(rate), [value.node], value)]
    return [low.affine(op, value, np.float32(scale), np.float32(shift))]


def _with_affine(op: Op, steps: tuple, scale: np.ndarray, shift: np.ndarray) -> tuple:
    """The steps of a part with one more, which is joined with one of its kind before it."""
    if steps and steps[-1][0].kind == "affine":
        last = steps[-1][0].attrs
        scale, shift, steps = last["scale"] * scale, last["shift"] * scale + shift, steps[:-1]
    return (*steps, (Op("affine", op.name, op.inputs, op.outputs, {"scale": scale, "shift": shift}), ()))


def _per_channel(op: Op, array: np.ndarray, shape: tuple, axis: int, size: int, begin: int | None = None) -> np.ndarray:
    """A constant that is broadcast to this shape, as () or (channels,). CheckpointError where other axes vary."""
    if array.size == 1:
        return array.reshape(())
    full = array.shape
    if begin is not None:                                   # old versions: the axes of the constant begin there
        full = (*full, *(1,) * (len(shape) - begin - len(full)))
    full = (1,) * (len(shape) - len(full)) + tuple(full)
    if len(full) != len(shape) or any(n != 1 for k, n in enumerate(full) if k != axis) or full[axis] != size:
        raise refuse(op, f"with a constant of the shape {'x'.join(map(str, array.shape))}, which varies along other "
                     "axes than the channels", shapes=[shape])
    return array.reshape(-1)


def affine(low, op: Op, value: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
    """y = scale * x + shift, merged into the layer before it where that has no other reader."""
    scale, shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
    if not np.any(scale != 1) and not np.any(shift != 0):
        return value
    count = value.shape[value.channel_axis]
    if merged := _merged(low, op, value, scale, shift, count):
        return merged
    made = low.emit(op, Affine(count, bias=bool(np.any(shift != 0))), [value.node], value)
    low.keep_vector(f"{made.node}.w", np.broadcast_to(scale, count), op.inputs[-1])
    if np.any(shift != 0):
        low.keep_vector(f"{made.node}.b", np.broadcast_to(shift, count), op.inputs[-1])
    return made


def _merged(low, op: Op, value: Value, scale, shift, count: int) -> Value | None:
    """The layer before, with the scale and shift in its weights; None where it cannot take them."""
    node = low.b.nodes[-1] if low.b.nodes else None
    source = next((name for name in op.inputs if isinstance(low.env.get(name), Value)), None)
    if node is None or node.name != value.node or source is None or not low.is_single(source):
        return None
    layer, w, b = node.layer, f"{value.node}.w", f"{value.node}.b"
    if type(layer) not in ((Affine,) if low.graph.ours else (Conv2d, Linear, BatchNorm2d, Affine)):
        return None                                         # what minicnn wrote as two layers comes back as two
    if np.any(scale != 1):
        tensor, turn, words = low.arrays[w]
        ours = turn.of(tensor.read()) * scale               # our last axis is that of the output channels
        low.keep(w, InMemory(tensor.name, ours), layout.same(ours.shape), words)
    old = low.arrays[b][0].read() if b in low.arrays else np.float32(0.0)
    if b in low.arrays or np.any(shift != 0):
        if not getattr(layer, "bias", True):
            low.exchange(value.node, type(layer)(**layer.options() | {"bias": True}))
        name = low.arrays[b][0].name if b in low.arrays else op.inputs[-1]
        low.keep_vector(b, np.broadcast_to(old * scale + shift, count), name)
    return low.relabel(op, value)


# ---- response normalisation in disguise
def _scaled_squares(op: Op, found: Squares, array: np.ndarray, scale_and_shift) -> Squares:
    """The formula times alpha, or plus k."""
    if array.size != 1:
        raise refuse(op, f"with a constant of the shape {array.shape}", shapes=[found.shape])
    scale, shift = (float(np.asarray(one).reshape(-1)[0]) for one in scale_and_shift(array.astype(np.float64)))
    if found.k is not None or found.beta is not None:
        raise refuse(op, "changes the formula of a response normalisation that is complete", shapes=[found.shape])
    scaled = replace(found, alpha=found.alpha * scale)
    return scaled if shift == 0.0 else replace(scaled, k=shift)


def mean_of_squares(low, op: Op) -> list:
    """An average pooling of x * x: over neighbouring channels, or over pixels."""
    found = low.given(op, 0)
    if not isinstance(found, Squares):
        return pool(low, op)
    kernel, stride = tuple(op.attrs["kernel"]), tuple(op.attrs.get("stride") or ())
    pads = tuple(op.attrs.get("pads") or (0,) * 2 * len(kernel))
    rank, first = len(found.shape), len(found.shape) - len(kernel)
    where = found.channels - first
    if any(step != 1 for step in stride) or found.window != (1, 1, 1) or op.attrs.get("ceil"):
        raise refuse(op, "averages x * x with a stride, or twice", shapes=[found.shape])
    if where >= 0 and all(size == 1 for k, size in enumerate(kernel) if k != where) and not any(
            size for k, size in enumerate(pads) if k % len(kernel) != where):
        n, before, after = kernel[where], found.pads[0] + pads[where], found.pads[1] + pads[where + len(kernel)]
        if (before, after) != (n // 2, n // 2) or any(pads) and op.attrs.get("count") != "padding":
            raise refuse(op, f"averages {n} channels of x * x with {before} and {after} zeros around",
                         shapes=[found.shape], advice="expected n odd, and n // 2 of them on both sides")
        shape = list(found.shape)
        shape[found.channels] += pads[where] + pads[where + len(kernel)] - n + 1
        return [replace(found, shape=tuple(shape), window=(n, 1, 1))]
    n = kernel[0]
    inside = rank == 4 and found.channels == 1 and kernel == (n, n) and set(pads) == {n // 2} and n % 2 == 1
    if inside and op.attrs.get("count") == "padding" and found.pads == (0, 0):
        return [replace(found, window=(1, n, n))]
    raise refuse(op, f"averages x * x over {kernel}", shapes=[found.shape])


def _normalised(low, op: Op, x, formula: Squares) -> list:
    """x / formula, where the formula is of the same x."""
    shape = formula.value.shape
    if x != formula.value or formula.shape != shape or formula.k is None or formula.window == (1, 1, 1):
        raise refuse(op, "divides by a mean of squares of another array, or one that is not over neighbours",
                     shapes=[getattr(x, "shape", ()), formula.shape])
    n = formula.window[0] if formula.window[0] > 1 else formula.window[1]
    attrs = {"n": n, "k": formula.k, "alpha": formula.alpha, "beta": formula.beta}
    kind = "lrn" if formula.window[0] > 1 else "lrnwithin"
    name = next(name for name in op.inputs if low.env.get(name) == x)
    return lrn(low, Op(kind, op.name, [name], op.outputs, attrs, "Div of a mean of squares"))


ACTIVATIONS = {"gelu": _gelu, "relu": lambda op: ReLU(), "tanh": lambda op: Tanh(), "sigmoid": lambda op: Sigmoid(),
               "leakyrelu": lambda op: LeakyReLU(op.attrs["slope"]) if op.attrs["slope"] else ReLU(),
               "clippedrelu": lambda op: ClippedReLU(op.attrs["ceiling"])}
HANDLERS = {**dict.fromkeys(ACTIVATIONS, activation), "gemm": gemm, "matmul": matmul, "clip": clip, "dropout": dropout,
            "identity": identity, "cast": identity, "softmax": softmax, "add": add, "sub": sub, "mul": mul, "div": div,
            "neg": neg, "scale": scale, "pow": pow_, "avgpool": mean_of_squares}
