"""From the neutral graph to a network of ours: folded, recognised, and lowered to channels-last layers.

Each operation of the source is handled once, in order. Its inputs are constants (then it is evaluated: fold.py) or
values (values.py); its output is a value. **No transpose runs in the network: only constants are permuted, and axes
renumbered.** What cannot be expressed is refused with the node, the operator, the shapes and advice.

The operations are in three files: windows.py (convolution, pooling, normalisation), shapes.py (axes) and arithmetic.py.
"""

from __future__ import annotations

import re
from collections import Counter
from math import prod

import numpy as np

from minicnn.builder import Builder
from minicnn.checks import NAME
from minicnn.errors import CheckpointError, MinicnnError
from minicnn.graph import Net
from minicnn.interop import layout
from minicnn.interop.formats.stored import InMemory
from minicnn.interop.graph import arithmetic, shapes, windows
from minicnn.interop.graph.fold import MAX_ELEMENTS, evaluate
from minicnn.interop.graph.neutral import Graph, Op, refuse
from minicnn.interop.graph.values import BATCH, NHWC, Padded, Pooled, Value
from minicnn.interop.layout import Turn, fill
from minicnn.interop.report import Moved, Report
from minicnn.interop.state_dict import Undrawn
from minicnn.layers.base import Layer
from minicnn.layers.combine import Flatten
from minicnn.layers.pool import AvgPool2d, GlobalAvgPool2d
from minicnn.plan import LABELS, Node

MAX_FOLDED = 4 * MAX_ELEMENTS   # elements of all results that are computed from constants
HANDLERS = {**windows.HANDLERS, **shapes.HANDLERS, **arithmetic.HANDLERS}


def lower(graph: Graph, report: Report, *, size: int | None = None, output: str | None = None,
          device: str = "auto") -> Net:
    """The network of a graph, with its weights. CheckpointError for what cannot be expressed."""
    graph.check()
    return Lowering(graph, report, size, output).net(device)


class Lowering:
    """The state of lowering one graph.   b: collects our nodes.   env: name -> what it stands for."""

    def __init__(self, graph: Graph, report: Report, size: int | None, output: str | None):
        self.graph, self.report = graph, report
        self.constants, self.env = dict(graph.constants), {}
        self.outputs = _chosen(graph, output)
        self.ops = graph.needed(self.outputs)
        self.readers = Counter(name for op in self.ops for name in op.inputs)
        self.readers.update(self.outputs)
        self.arrays: dict[str, tuple[object, Turn, str]] = {}   # our array -> (tensor, turn, words)
        self.folded, self.used = 0, set()
        self._begin(size)

    # ---- inputs
    def _begin(self, size: int | None) -> None:
        used = {name for op in self.ops for name in op.inputs} | set(self.outputs)
        inputs = {name: shape for name, shape in self.graph.inputs.items() if name in used}
        if len(inputs) != 1:
            raise CheckpointError(f"has {len(inputs)} inputs that are used ({', '.join(inputs) or 'none'}); expected "
                                  "one, the images")
        (name, declared), = inputs.items()
        self.input = name
        if not declared:
            raise CheckpointError(f"its input {name!r} has no shape; export it with the shape of the images")
        last = self.graph.layout or ("NHWC" if len(declared) == 4 and self._is_channels_last(name) else "NCHW")
        shape = self._sizes(name, list(declared), last, size)
        order = NHWC if len(shape) == 4 and last == "NCHW" else tuple(range(len(shape)))
        own = self.fresh("image" if len(shape) == 4 else name)
        self.b = Builder([shape[axis] for axis in order[1:]], self.graph.name, own)
        self.env[name] = Value(own, tuple(shape), order)
        self.report.values[own] = (name, order, None)

    def _sizes(self, name: str, shape: list, last: str, size: int | None) -> list[int]:
        self.batch = shape[0] = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else BATCH
        if self.batch != BATCH:
            self.report.note(f"the batch is fixed to {self.batch} in the file; here it is free")
        sides = (1, 2) if last == "NHWC" else (2, 3)
        for axis in range(1, len(shape)):
            if not isinstance(shape[axis], int) or shape[axis] < 1:
                if size is None or len(shape) != 4 or axis not in sides:
                    raise CheckpointError(f"its input {name!r} has no fixed size on axis {axis} of {len(shape)}; give "
                                          "the side of the images: --size N, or size= in Python")
                shape[axis] = size
        if max(shape[1:], default=0) > 4096 and len(shape) == 4:
            raise CheckpointError(f"its input {name!r} is {'x'.join(map(str, shape[1:]))}; the limit is 4096 x 4096")
        return shape

    def _is_channels_last(self, name: str) -> bool:
        """Whether the first thing that happens to the images' axes is a transposition to channels-first."""
        names = {name}
        for op in self.ops:
            if names & set(op.inputs):
                if op.kind == "transpose":
                    return list(op.attrs.get("perm") or ()) == [0, 3, 1, 2]
                if op.kind not in ("add", "sub", "mul", "div", "identity", "cast"):
                    return False
                names |= set(op.outputs)
        return False

    # ---- running
    def net(self, device: str) -> Net:
        for op in self.ops:
            self.run(op)
        value = self._final()
        if len(value.shape) == 2 and value.shape[1] > 1:
            self.b.loss(self.fresh("loss"), input=value.node)
        net = self.b.net(device=device, values=Undrawn(), output=value.node)
        self._fill(net)
        return net

    def run(self, op: Op) -> None:
        """Evaluate an operation, or make layers of it."""
        if op.kind == "if":
            return self._branch(op)
        if op.kind == "identity" and self.is_known(op.inputs[0]) and op.inputs[0] in self.constants:
            self.constants[op.outputs[0]] = self.constants[op.inputs[0]]        # it may stay in the file
            return None
        if op.kind not in HANDLERS and not self.is_constant(op):
            raise refuse(op, "is an operator that minicnn does not have", advice=op.attrs.get("advice", "expected "
                         "those of image classifiers (Conv, MaxPool, AveragePool, BatchNormalization, LRN, Gemm, Relu, "
                         "Clip, Concat, Add, Flatten ...)"))
        try:
            results = self.fold(op) if self.is_constant(op) else HANDLERS[op.kind](self, op)
        except MinicnnError as error:
            text = str(error)
            raise CheckpointError(text if text.startswith(str(op)) else f"{op}: {text}") from error
        for name, result in zip(op.outputs, results, strict=False):
            self.env[name] = result
        if missing := [name for name in op.outputs[len(results):] if self.readers[name]]:
            raise refuse(op, f"its output {missing[0]!r} is read, which minicnn does not have",
                         advice="export the model for inference")

    def is_constant(self, op: Op) -> bool:
        if op.kind == "shape":
            return True
        return all(name == "" or self.is_known(name) for name in op.inputs)

    def is_known(self, name: str) -> bool:
        """Whether a name stands for a constant."""
        return isinstance(self.env.get(name), np.ndarray) or (name in self.constants and name not in self.env)

    def fold(self, op: Op) -> list:
        if op.kind == "constant":
            return [np.asarray(op.attrs["value"])]
        if op.kind == "shape" and not self.is_known(op.inputs[0]):
            shape = self.given(op, 0).shape
            return [np.array(shape[op.attrs["start"]:op.attrs["end"]], np.int64)]
        result = evaluate(op, [None if name == "" else self.array(name) for name in op.inputs])
        results = result if isinstance(result, list) else [result]
        self.folded += sum(array.size for array in results if array.base is None)
        if self.folded > MAX_FOLDED + sum(prod(one.shape) for one in self.graph.constants.values()):
            raise refuse(op, f"the {self.folded:,} elements computed from constants are too many",
                         advice="fold constants before the export")
        return results

    def _branch(self, op: Op) -> None:
        """An If whose condition is known: the branch that is taken."""
        if not self.is_known(op.inputs[0]):
            raise refuse(op, "depends on the images", advice="export the model without conditions")
        taken = op.attrs["then" if bool(np.all(self.array(op.inputs[0]))) else "else"]
        for inner in taken.ops:
            self.run(inner)
        for name, source in zip(op.outputs, taken.outputs, strict=True):
            if source in self.env:
                self.env[name] = self.env[source]
            elif source in self.constants:
                self.constants[name] = self.constants[source]
            else:
                raise refuse(op, f"its branch makes no {source!r}")

    # ---- what operations ask for
    def given(self, op: Op, index: int):
        """What an input stands for. CheckpointError where it is missing."""
        name = op.inputs[index] if index < len(op.inputs) else ""
        if name in self.env:
            return self.env[name]
        if name not in self.constants:
            raise refuse(op, f"has no input {index}")
        return self.array(name)

    def value(self, op: Op, index: int = 0) -> Value:
        """An input that is a finished value. CheckpointError otherwise."""
        found = self.given(op, index)
        if isinstance(found, Pooled):
            found = self.spread(found)
        if not isinstance(found, Value):
            raise refuse(op, UNFINISHED.get(type(found).__name__, "reads a constant where images are expected"),
                         shapes=[found.shape])
        return found

    def image(self, op: Op, index: int = 0) -> tuple[Value, tuple[int, int, int, int]]:
        """An input that is an image, and the zeros around it. CheckpointError where its channels are elsewhere."""
        found = self.given(op, index)
        pads = (0, 0, 0, 0)
        if isinstance(found, Padded):
            found, pads = found.value, found.pads
        else:
            found = self.value(op, index)
        if not found.is_image:
            raise refuse(op, "needs images (N, C, H, W)" if len(found.shape) != 4 else "works on an axis that is not "
                         "that of the channels", shapes=[found.shape], advice="1-D and 3-D layers are not here"
                         if len(found.shape) in (3, 5) else "export the model channels-first")
        return found, pads

    def tensor(self, op: Op, index: int):
        """An input that is a constant, as a tensor that may still be in the file. CheckpointError otherwise."""
        name = op.inputs[index] if index < len(op.inputs) else ""
        if not self.is_known(name):
            raise refuse(op, f"its input {index} ({name!r}) is computed from the images", advice="weights must be "
                         "constants")
        self.used.add(name)
        found = self.env[name] if name in self.env else self.constants[name]
        return InMemory(name, found) if isinstance(found, np.ndarray) else found

    def array(self, name: str) -> np.ndarray:
        """A constant. What was read is kept, so that views of it are views of one array."""
        if isinstance(self.env.get(name), np.ndarray):
            return self.env[name]
        found = self.constants[name]
        if not isinstance(found, np.ndarray):
            found = self.constants[name] = found.read()
        self.used.add(name)
        return found

    def optional(self, op: Op, index: int) -> np.ndarray | None:
        """A constant input that may be left out."""
        if index >= len(op.inputs) or op.inputs[index] == "":
            return None
        return self.tensor(op, index).read()

    def inputs_of(self, op: Op) -> list:
        """The constant inputs behind the first, for settings that are attributes or inputs."""
        return [None, *(self.array(name) if name and self.is_known(name) else None for name in op.inputs[1:])]

    def is_single(self, name: str) -> bool:
        """Whether one operation alone reads this value."""
        return self.readers[name] == 1

    # ---- nodes
    def emit(self, op: Op, layer: Layer, inputs: list[str], like: Value, *, weight: str = "", **changes) -> Value:
        """A new node of ours for this operation; its value has the axes of `like`, with some changes."""
        name = self.b.layer(self._name(op, weight), layer, inputs)
        fields = {"shape": like.shape, "order": like.order, "blocks": like.blocks, **changes}
        value = Value(name, **fields)
        self.report.values[name] = (op.outputs[0], value.order, value.rows())
        return value

    def relabel(self, op: Op, value: Value) -> Value:
        """The node's value is now what this operation makes."""
        self.report.values[value.node] = (op.outputs[0], value.order, value.rows())
        return value

    def keep(self, target: str, tensor, turn: Turn, words: str = "") -> None:
        """The tensor that fills an array of ours."""
        self.arrays[target] = (tensor, turn, words or turn.words)

    def keep_vector(self, target: str, array: np.ndarray, name: str) -> None:
        self.keep(target, InMemory(name, np.ascontiguousarray(array, np.float32)), layout.same(array.shape))

    def layer_of(self, value: Value) -> Layer | None:
        """The layer that makes a value; None for the images."""
        return next((node.layer for node in reversed(self.b.nodes) if node.name == value.node), None)

    def exchange(self, name: str, layer: Layer) -> None:
        """Another layer in the place of a node's."""
        self.b.nodes = [Node(name, layer, node.inputs) if node.name == name else node for node in self.b.nodes]

    def _name(self, op: Op, weight: str) -> str:
        """The source's name of the node, else that of its weights, else that of its value."""
        if NAME.fullmatch(op.name):
            return self.fresh(op.name)
        stem = re.sub(r"\.(weight|w|kernel|W)$", "", weight)
        if stem != weight and ":" not in stem:
            return self.fresh(stem)
        return self.fresh(op.name or op.outputs[0])

    def fresh(self, name: str) -> str:
        """A name that is valid here and not used yet."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", name)[:80].strip("_") or "node"
        taken = getattr(self, "taken", None)
        if taken is None:
            taken = self.taken = {LABELS}
        found, number = base, 2
        while found in taken:
            found, number = f"{base}_{number}", number + 1
        taken.add(found)
        return found

    def flat(self, pooled: Pooled) -> Value:
        """A mean over all pixels as (N, C)."""
        value = pooled.value
        return self.emit(pooled.op, GlobalAvgPool2d(), [value.node], value, shape=value.shape[:2], order=(0, 1))

    def spread(self, pooled: Pooled) -> Value:
        """A mean over all pixels as an image of one."""
        value = pooled.value
        return self.emit(pooled.op, AvgPool2d(value.shape[2:]), [value.node], value, shape=pooled.shape)

    def affine(self, op: Op, value: Value, scale, shift) -> Value:
        """value * scale + shift, for each channel."""
        return arithmetic.affine(self, op, value, scale, shift)

    # ---- the end
    def _final(self) -> Value:
        name = self.outputs[0]
        value = self.env.get(name)
        if isinstance(value, Pooled):
            value = self.flat(value)
        if not isinstance(value, Value):
            raise CheckpointError(f"its output {name!r} is no value that is computed from the images")
        if len(value.shape) == 4 and value.is_image and value.shape[2:] == (1, 1):
            node = self.b.layer(self.fresh("flatten"), Flatten(), value.node)
            value = Value(node, value.shape[:2], (0, 1))
            self.report.values[node] = (name, value.order, None)
        if value.blocks is not None:
            raise CheckpointError(f"its output {name!r} is flattened maps {value.blocks[0]}, whose order would be "
                                  "another one here; end it with a fully connected layer")
        if not self.b.nodes:
            raise CheckpointError(f"its output {name!r} is its input: there is nothing in the graph")
        return value

    def _fill(self, net: Net) -> None:
        arrays, lost = net.arrays(), 0
        for target, (tensor, turn, words) in self.arrays.items():
            ours = arrays[target]
            host = ours if isinstance(ours, np.ndarray) else np.empty(ours.shape, np.float32)
            lost += fill(host, tensor, turn)
            if host is not ours:
                ours[...] = net.ops.from_host(host)
            self.report.moved.append(Moved(tensor.name, tuple(tensor.shape), words, target))
        if lost:
            self.report.note(f"{lost:,} elements are not finite")
        used = self.used | {tensor.name for tensor, _, _ in self.arrays.values()}
        self.report.unmatched = [name for name in self.graph.constants if name not in used]


UNFINISHED = {"Padded": "reads a padded value, which only convolutions and pooling can take",
              "Part": "reads some of the channels, and minicnn has no layer that cuts channels out",
              "Squares": "reads x * x, which minicnn knows only in response normalisation"}


def _chosen(graph: Graph, output: str | None) -> list[str]:
    """The output that is meant."""
    if output is not None:
        made = [name for op in graph.ops for name in op.outputs]
        if output not in made:
            raise CheckpointError(f"has no value {output!r}; its outputs are {', '.join(graph.outputs)}")
        return [output]
    if len(graph.outputs) != 1:
        raise CheckpointError(f"has {len(graph.outputs)} outputs ({', '.join(graph.outputs[:8])}); name one of them: "
                              "--output NAME, or output= in Python")
    return graph.outputs
