"""A network as a chain of stages: boxes, and blocks of branches that fork behind one box and join at the next.

A box is a layer with the activations, normalisations and dropout behind it. Blocks that are equal and follow each other
are one stage, so many times. What is no chain within a branch is one box that says how many layers it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, Multiply, ReLU, Sigmoid, Tanh
from minicnn.layers.base import Layer
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.combine import Add, Concat, Flatten, Subsample
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.local import Local2d
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minicnn.visualize.units import prediction_plan

WITH_IT = {ReLU: "ReLU", ClippedReLU: "clipped ReLU", LeakyReLU: "leaky ReLU", Tanh: "tanh", Sigmoid: "sigmoid",
           GELU: "GELU", BatchNorm2d: "BN", Affine: "scale", LRN: "LRN", LRNWithin: "LRN within maps",
           Dropout: "dropout", Flatten: "", Multiply: "multiply"}            # drawn with the layer before
CONVOLUTION, FULL, POOLING, OTHER, IMAGE = "convolution", "fully connected", "pooling", "other", "image"
KINDS = {Conv2d: CONVOLUTION, Local2d: CONVOLUTION, Linear: FULL, MaxPool2d: POOLING, AvgPool2d: POOLING,
         GlobalAvgPool2d: POOLING, AdaptiveAvgPool2d: POOLING}
MANY = 4                                                # equal boxes in a row, from which on they are drawn as one


@dataclass
class Box:
    """name; kind: of KINDS; label: a few characters beside it; what: the same in words; shape: of the output for one
    image; parameters, macs: with those of the layers drawn with it; columns: 2 where a convolution with two groups
    reads or makes it; mixes: whether each column reads both; times: equal ones in a row."""

    name: str
    kind: str
    label: str
    what: str
    shape: tuple[int, ...]
    parameters: int = 0
    macs: int = 0
    columns: int = 1
    mixes: bool = True
    times: int = 1

    def alike(self, other: Stage) -> bool:
        """Whether they differ in their names alone."""
        return isinstance(other, Box) and replace(self, name=other.name, times=other.times) == other


@dataclass
class Block:
    """branches: each a chain of boxes, empty for an identity; join: where they end.   times: equal ones in a row."""

    branches: list[list[Box]]
    join: Box
    times: int = 1

    def boxes(self) -> list[Box]:
        return [*(box for branch in self.branches for box in branch), self.join]

    def alike(self, other: Stage) -> bool:
        return isinstance(other, Block) and [len(b) for b in self.branches] == [len(b) for b in other.branches] and all(
            one.alike(two) for one, two in zip(self.boxes(), other.boxes(), strict=True))


Stage = Box | Block


@dataclass
class Graph:
    """boxes by name in topological order, the image first; reads: name -> the boxes it reads."""

    boxes: dict[str, Box] = field(default_factory=dict)
    reads: dict[str, list[str]] = field(default_factory=dict)


def stages_of(net) -> list[Stage]:
    """The stages of the prediction, the image first. ConfigError for a network with several inputs."""
    graph = _graph(net)
    order = list(graph.boxes)
    return _repeated(_chain(graph, order[0], order[1:]))


def totals(stages: Sequence[Stage]) -> tuple[int, int]:
    """Parameters and multiply-adds of all."""
    each = [(box, stage.times) for stage in stages
            for box in (stage.boxes() if isinstance(stage, Block) else [stage])]
    return sum(times * box.parameters for box, times in each), sum(times * box.macs for box, times in each)


# ---- the graph of the boxes
def _graph(net) -> Graph:
    plan, graph = prediction_plan(net), Graph()
    (image, shape), = net.inputs.items()
    graph.boxes[image], graph.reads[image] = Box(image, IMAGE, "", "image", shape), []
    nodes = [node for node in net.nodes if node.name in plan.where]
    readers = [name for node in nodes for name in node.inputs]
    box_of = {image: image}
    for node in nodes:
        source = node.inputs[0]
        shapes = [plan.values[plan.where[name]].shape for name in node.inputs]
        parameters = sum(param.data.size for param in node.layer.params.values())
        macs = node.layer.plan(shapes, net.dtype, net.ops).macs
        with_it = _with_it(node.layer)
        alone = len(node.inputs) == 1 and readers.count(source) == 1 and box_of[source] != image
        if with_it is not None and (alone or isinstance(node.layer, (Flatten, Dropout))):
            box = graph.boxes[box_of[source]]
            box.what += f" + {with_it}" if with_it else ""
            box.parameters, box.macs = box.parameters + parameters, box.macs + macs
            box_of[node.name] = box.name
            continue
        label, what = _words(node.layer)
        kind = next((kind for layer, kind in KINDS.items() if isinstance(node.layer, layer)), OTHER)
        graph.boxes[node.name] = Box(node.name, kind, label, what, plan.values[plan.where[node.name]].shape[1:],
                                     parameters, macs)
        graph.reads[node.name] = list(dict.fromkeys(box_of[name] for name in node.inputs))
        box_of[node.name] = node.name
    _split_columns(net, graph)
    return graph


def _with_it(layer: Layer) -> str | None:
    return next((words for kind, words in WITH_IT.items() if isinstance(layer, kind)), None)


def _split_columns(net, graph: Graph) -> None:
    """Two columns where a convolution with two groups makes the maps, or reads them, pools between included."""
    for name in reversed(graph.boxes):
        box, groups = graph.boxes[name], getattr(net[name], "groups", 1) if graph.reads[name] else 1
        if groups == 2 and isinstance(net[name], Conv2d):
            box.columns, box.mixes = 2, False
            _make_columns(graph, graph.reads[name])
        elif box.columns == 2 and box.kind == POOLING:
            _make_columns(graph, graph.reads[name])
    for name, box in graph.boxes.items():
        if box.kind == POOLING and graph.reads[name] and graph.boxes[graph.reads[name][0]].columns == 2:
            box.columns, box.mixes = 2, False


def _make_columns(graph: Graph, names: Sequence[str]) -> None:
    for name in names:
        if graph.boxes[name].kind in (CONVOLUTION, POOLING):
            graph.boxes[name].columns = 2
            graph.boxes[name].mixes = graph.boxes[name].kind == CONVOLUTION


# ---- chains and blocks
def _chain(graph: Graph, first: str, rest: list[str]) -> list[Stage]:
    """The boxes behind `first`, which all depend on it, as stages; cut where every path goes through one box."""
    stages, start, inner = [graph.boxes[first]], first, []
    last = {source: name for name in rest for source in graph.reads[name]}         # the last box that reads each
    waiting: set[str] = {last[first]}                                              # that read what is before this one
    for name in rest:
        if waiting - {name}:
            waiting = waiting - {name} | {last[name]}
            inner.append(name)
            continue
        waiting = {last[name]} if name in last else set()
        box = graph.boxes[name]
        if inner:
            stages.append(Block(_branches(graph, start, inner, name), box))
        else:
            stages.append(box)
        start, inner = name, []
    return stages


def _branches(graph: Graph, start: str, inner: list[str], join: str) -> list[list[Box]]:
    """The branches from `start` to `join`, in the order in which the join reads them."""
    groups: list[list[str]] = []
    for name in inner:
        linked = [group for group in groups if set(group) & set(graph.reads[name])]
        groups = [group for group in groups if group not in linked] + [sorted(
            [*(other for group in linked for other in group), name], key=inner.index)]
    ends = {source: place for place, source in enumerate(graph.reads[join])}
    groups.sort(key=lambda group: min(ends.get(name, len(ends)) for name in group))
    branches = [_branch(graph, start, group) for group in groups]
    return branches + ([[]] if start in ends else [])


def _branch(graph: Graph, start: str, names: list[str]) -> list[Box]:
    """A chain of boxes; one box for a branch that is none."""
    boxes = [graph.boxes[name] for name in names]
    if all(graph.reads[name] == [before] for before, name in zip([start, *names], names, strict=False)):
        return boxes
    return [Box(names[-1], OTHER, f"{len(names)} layers", f"{len(names)} layers that fork", boxes[-1].shape,
                sum(box.parameters for box in boxes), sum(box.macs for box in boxes))]


def _repeated(stages: list[Stage]) -> list[Stage]:
    """Equal stages in a row as one; boxes where there are many."""
    runs: list[list[Stage]] = []
    for stage in stages:
        if runs and runs[-1][0].alike(stage):
            runs[-1].append(stage)
        else:
            runs.append([stage])
    found = []
    for run in runs:
        enough = len(run) >= (2 if isinstance(run[0], Block) else MANY)
        found += [replace(run[0], times=len(run))] if enough else run
    return found


# ---- words
def _words(layer: Layer) -> tuple[str, str]:
    """A few characters, and the same in words."""
    if isinstance(layer, (Conv2d, Local2d)):
        return _of_convolution(layer)
    if isinstance(layer, Linear):
        return "", "fully connected"
    if isinstance(layer, (MaxPool2d, AvgPool2d)):
        which = "max" if isinstance(layer, MaxPool2d) else "average"
        size, step = _by(layer.kernel), _step(layer)
        return f"{which} {size}{step and ' /' + step}", f"{which} pooling {size}{step and ', stride ' + step}"
    if isinstance(layer, GlobalAvgPool2d):
        return "average", "global average"
    if isinstance(layer, AdaptiveAvgPool2d):
        return f"average to {_by(layer.size)}", f"average pooling to {_by(layer.size)}"
    if isinstance(layer, Subsample):
        return f"shortcut /{layer.stride[0]}", f"shortcut without weights, stride {layer.stride[0]}"
    return {Add: ("+", "sum"), Concat: ("concat", "concatenation")}.get(type(layer), (type(layer).__name__,) * 2)


def _of_convolution(layer: Conv2d | Local2d) -> tuple[str, str]:
    size, step, groups = _by(layer.kernel), _step(layer), getattr(layer, "groups", 1)
    which = "local " if isinstance(layer, Local2d) else ""
    many = ""
    if groups > 1:
        many = ", depthwise" if groups == layer.in_channels else f", {groups} groups"
    return f"{which}{size}{step and ' /' + step}", f"{which}{size}{step and ', stride ' + step}{many}"


def _by(size: tuple[int, int]) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, size))


def _step(layer) -> str:
    """The stride, where there is one."""
    stride = layer.stride
    return "" if stride == (1, 1) else str(stride[0]) if stride[0] == stride[1] else _by(stride)
