"""Compilation of a network: execution order and memory plan.

For a batch size and a mode (training or inference) the plan

    1. keeps the nodes that the requested outputs depend on, in topological order;
    2. fuses a ReLU into the preceding convolution, fully connected or normalisation layer if no other node reads the
       value in between; into a normalisation also the addition of a residual connection (Add) before that ReLU; where
       the backend saves passes over memory by it, a max pooling into the preceding LRN, and the backward pass of a
       convolution's bias and ReLU into that of the LRN behind it;
    3. computes the lifetime of every array, from the step that writes it to the last step that reads it: forward steps
       are numbered in order, and their backward steps follow in reverse order;
    4. packs the arrays into one arena so that arrays with overlapping lifetimes never overlap in memory (arena.py).

Where the backend wants to save memory, outputs of batch normalisation are not kept for the backward pass if only
convolutions and fully connected layers read them, or layers whose backward reads no x: where needed, they are computed
again.

A *value* is the output of a node, a gradient, or scratch space; a *storage* is its memory. Several values share a
storage if a layer works in place (ReLU, dropout) or is a view (Flatten).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from minicnn.arena import Storage, pack
from minicnn.backend.ops import Ops
from minicnn.errors import MinicnnError
from minicnn.layers.activation import ReLU
from minicnn.layers.base import Layer, LayerPlan, stored_dtype
from minicnn.layers.combine import Add
from minicnn.layers.pool import MaxPool2d

# What a backend may save passes over memory with (Ops.fusions): a MaxPool2d in the LRN before it; bias and ReLU of a
# convolution in the backward pass of the LRN behind it; the update of weights in the product that is their gradient.
# Others save memory: "early", the weights of a convolution are updated as soon as their gradient is there; "again", see
# above.
FUSIONS = ("pool", "epilogue", "update", "early", "again")
LABELS = "labels"   # the second input of loss layers: the (N,) integers given to `loss`


@dataclass(frozen=True)
class Node:
    """A named layer, and the names of the nodes or network inputs that it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


def copied(nodes: Sequence[Node]) -> list[Node]:
    """The same nodes with copies of their layers; a layer shared by several nodes is copied once, so it stays tied."""
    copies: dict[int, Layer] = {}
    for node in nodes:
        if id(node.layer) not in copies:
            copies[id(node.layer)] = node.layer.copy()
    return [Node(node.name, copies[id(node.layer)], tuple(node.inputs)) for node in nodes]


@dataclass
class Value:
    """An array of the plan; if `batched`, its first axis is the batch (or a multiple) and shrinks with it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: Storage
    batched: bool = True
    is_input: bool = False


@dataclass
class Step:
    """One node of the plan and its arrays, as indices into Plan.values (None: not needed)."""

    node: Node
    fused: tuple[Node, ...]          # the nodes fused into it: an Add, a ReLU, or both in this order; a MaxPool2d
    time: int
    xs: list[int]
    y: int
    saves: tuple[str, ...]
    buffers: dict[str, int]
    work: int | None
    macs: int
    algorithm: str
    trains: bool                     # this layer or an earlier one has trainable parameters
    own_shape: tuple[int, ...]       # of the layer's own output, without what is fused
    frozen: bool = False             # its parameters and state are not updated
    reuses_dy: int | None = None     # the position in xs whose gradient may be the array dy
    work_back: int | None = None
    dy: int | None = None
    dxs: list[int | None] = field(default_factory=list)
    input_dxs: dict[int, str] = field(default_factory=dict)      # position in xs -> network input whose gradient it is
    sums: list[tuple[int, int]] = field(default_factory=list)    # (temporary, gradient) accumulated after backward
    before: Step | None = None       # the step whose epilogue this one's backward can end with
    again: int | None = None         # where x is computed again for backward, by `source`
    source: Step | None = None
    gone: bool = False               # its own y is not there in backward

    @property
    def relu(self) -> bool:
        """Whether a ReLU is fused into this layer."""
        return bool(self.fused) and isinstance(self.fused[-1].layer, ReLU)

    @property
    def add(self) -> Node | None:
        """The Add that is fused into this layer; its other value is the last of xs."""
        return next((node for node in self.fused if isinstance(node.layer, Add)), None)

    @property
    def pool(self) -> Node | None:
        """The MaxPool2d that is fused into this layer; then this layer's own output does not exist."""
        return next((node for node in self.fused if isinstance(node.layer, MaxPool2d)), None)

    def saved(self, arrays: list) -> dict:
        """The `saved` dict of the layer's backward; `arrays`: see Plan.arrays."""
        xs = [arrays[value] for value in self.xs]
        saved = {"in_shapes": [tuple(x.shape) for x in xs]}
        if "x" in self.saves:
            saved["x"] = xs[0] if self.again is None else arrays[self.again]
        if "xs" in self.saves:
            saved["xs"] = xs
        if "y" in self.saves:
            saved["y"] = arrays[self.y]
        saved.update({name: arrays[value] for name, value in self.buffers.items()})
        return saved


class Plan:
    """The steps of a network for one (largest) batch size. `arrays(n)` gives the arrays of all values for n images."""

    def __init__(self, nodes: Sequence[Node], inputs: dict[str, tuple[tuple[int, ...], str]], outputs: Iterable[str],
                 *, ops: Ops, dtype: str, grad: bool, fuse: bool, stored: str | None = None, keep: Iterable[str] = (),
                 frozen: Iterable[str] = ()):
        """inputs: name -> (shape with the batch axis first, dtype).   outputs, keep: nodes whose values stay valid
        after the run.   grad: a backward pass will follow, so the arrays it needs are kept.   fuse: False runs every
        node separately.   frozen: nodes whose weights get no gradient and whose state is not updated.
        stored: the dtype of activations and their gradients in memory, by default that of layers.base.stored_dtype.
        Losses are of `dtype`.
        """
        self.ops, self.dtype, self.grad, frozen = ops, dtype, grad, set(frozen)
        self.stored = stored or stored_dtype(nodes, dtype, ops)
        self.frozen = {id(node.layer) for node in nodes if node.name in frozen}     # includes tied nodes
        self.values: list[Value] = []
        self.steps: list[Step] = []
        self.trained: set[int] = set()                      # gradients that parameters' gradients depend on
        self.where: dict[str, int] = {}                     # node or input -> its value, if that exists
        self.shapes: dict[str, tuple[int, ...]] = {}        # node or input -> the shape of its value, in any case
        self.gradient: dict[int, int] = {}                  # value -> its gradient
        self.again: dict[int, int] = {}                     # value -> where it is computed again, in backward
        self.outputs = set(outputs)
        self.pinned = self.outputs | set(keep)
        order = _needed(nodes, self.pinned)
        self.readers: dict[str, list[Node]] = {}
        for node in order:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)
        self.batch = next((shape[0] for shape, _ in inputs.values()), 1)
        self._end = 2 * len(order)                          # the backward step of time t is at time end - 1 - t

        for name, (shape, input_dtype) in inputs.items():
            if name in self.readers:
                given = not input_dtype == dtype != self.stored         # else copied, unless given as it is stored
                self.where[name] = self._new(name, shape, input_dtype if given else self.stored, -1, outside=given)
                self.values[-1].is_input, self.values[-1].storage.given = True, given
        absorbs = self._fusible(order) if fuse else {}
        absorbed_by = {node.name: name for name, absorbed in absorbs.items() for node in absorbed}
        for time, node in enumerate(order):
            if node.name in absorbed_by:
                self.where[node.name] = self.where[absorbed_by[node.name]]
            else:
                self._add_step(node, time, absorbs.get(node.name, ()), fuse)
        self.shapes = {name: self.values[value].shape for name, value in self.where.items()}
        for step in self.steps:
            if step.pool:                                   # its own output is never stored
                del self.where[step.node.name]
                self.shapes[step.node.name] = step.own_shape
            if grad and fuse and "epilogue" in ops.fusions and step.node.layer.ends_epilogue:
                step.before = self._epilogue_before(step)
        for name in self.pinned:
            self.values[self.where[name]].storage.outside = True
        if grad:
            self._add_gradients()

        self.storages = list({id(value.storage): value.storage for value in self.values}.values())
        self.arena_bytes = pack([storage for storage in self.storages if not storage.outside])
        self._arrays: dict[int, list] = {}
        self._outside: dict[int, object] = {}

    # ---- values
    def _new(self, name, shape, dtype, time, *, outside=False, batched=True) -> int:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        self.values.append(Value(name, tuple(shape), str(dtype), Storage(nbytes, time, time, outside), batched))
        return len(self.values) - 1

    def _share(self, name, shape, source: int) -> int:
        """A new value that shares the storage of another."""
        old = self.values[source]
        self.values.append(Value(name, tuple(shape), old.dtype, old.storage, old.batched))
        return len(self.values) - 1

    def _use(self, value: int | None, time: int) -> None:
        if value is not None:
            storage = self.values[value].storage
            storage.death = max(storage.death, time)

    # ---- forward
    def _fusible(self, order: list[Node]) -> dict[str, tuple[Node, ...]]:
        """Node -> the following nodes that are fused into it."""
        found, before = {}, set(self.where)                 # before: inputs, and nodes that come earlier
        for node in order:
            add = self._only_reader(node, Add) if node.layer.absorbs_add and len(node.inputs) == 1 else None
            if add and not (len(add.inputs) == 2 and before.issuperset({*add.inputs} - {node.name})):
                add = None
            relu = self._only_reader(add or node, ReLU) if node.layer.absorbs_relu else None
            pools = node.layer.absorbs_pool and "pool" in self.ops.fusions
            pool = self._only_reader(node, MaxPool2d) if pools else None
            found[node.name] = tuple(filter(None, (add, relu, pool)))
            before.add(node.name)
        return found

    def _only_reader(self, node: Node, kind: type[Layer]) -> Node | None:
        """The node that reads this one's value, if it is of this kind and no subclass, and if nothing else does."""
        readers = self.readers.get(node.name, [])
        alone = len(readers) == 1 and readers[0].inputs.count(node.name) == 1 and node.name not in self.pinned
        return readers[0] if alone and type(readers[0].layer) is kind else None

    def _epilogue_before(self, step: Step) -> Step | None:
        """The step whose output only this one reads, if its bias and ReLU can be left to this one's backward."""
        before = next((other for other in self.steps if other.y == step.xs[0]), None)
        if before is None or before.add or not before.node.layer.has_epilogue:
            return None
        reader = self._only_reader(before.fused[-1] if before.fused else before.node, type(step.node.layer))
        return before if reader is step.node else None

    def _planned(self, node: Node, in_shapes: list) -> LayerPlan:
        try:
            return node.layer.plan(in_shapes, self.dtype, self.ops)
        except MinicnnError as error:
            raise type(error)(f"layer {node.name!r}: {error}") from None

    def _add_step(self, node: Node, time: int, fused: tuple[Node, ...], fuse: bool) -> None:
        layer = node.layer
        added = [name for other in fused for name in other.inputs if isinstance(other.layer, Add) and name != node.name]
        xs = [self.where[name] for name in (*node.inputs, *added)]
        in_shapes = [self.values[x].shape for x in xs]
        plan = self._planned(node, in_shapes)
        own_shape, names = plan.out_shape, dict.fromkeys((*plan.buffers, *plan.unbatched), node.name)
        for pool in (other for other in fused if isinstance(other.layer, MaxPool2d)):
            behind = self._planned(pool, [plan.out_shape])
            plan = replace(plan, out_shape=behind.out_shape, buffers=plan.buffers | behind.buffers)
            names |= dict.fromkeys(behind.buffers, pool.name)
        gone = self.grad and fuse and self._may_be_gone(node, fused)
        saves = (*plan.saves, "y") if fused and isinstance(fused[-1].layer, ReLU) and not gone else plan.saves
        if layer.is_view or (layer.in_place and "x" not in saves and self._may_overwrite(node, time)):
            y = self._share(node.name, plan.out_shape, xs[0])
        else:
            y = self._new(node.name, plan.out_shape, self.dtype if layer.is_loss else self.stored, time)
        buffers = {name: self._new(f"{names[name]}.{name}", shape, dtype, time)
                   for name, (shape, dtype) in plan.buffers.items()}
        buffers |= {name: self._new(f"{node.name}.{name}", shape, dtype, time, batched=False)
                    for name, (shape, dtype) in plan.unbatched.items()}
        work = self._new(f"{node.name} work", (plan.work,), "uint8", time, batched=False) if plan.work else None
        for value in (*xs, y):
            self._use(value, time)
        source = next((step for step in self.steps if step.gone and step.y == xs[0] and "x" in saves), None)
        again = self._again(xs[0], time) if source else None
        if self.grad:
            saved = xs[:1] * ("x" in saves and not source) + xs * ("xs" in saves) + [y] * ("y" in saves)
            for value in (*saved, *buffers.values()):
                self._use(value, self._end - 1 - time)
        frozen = id(layer) in self.frozen
        has_weights = bool(layer.initial_values()) and not frozen
        trains = has_weights or any(step.trains for step in self.steps if step.y in xs)
        self.where[node.name] = y
        self.steps.append(Step(node, fused, time, xs, y, saves, buffers, work, plan.macs, plan.algorithm, trains,
                               own_shape, frozen, plan.reuses_dy, again=again, source=source, gone=gone))

    def _may_be_gone(self, node: Node, fused: tuple[Node, ...]) -> bool:
        """Whether backward can do without this node's value, since those that read it can have it computed again."""
        last = fused[-1] if fused else node
        readers = self.readers.get(last.name, [])
        return ("again" in self.ops.fusions and node.layer.computes_again and last.name not in self.pinned
                and not any(isinstance(other.layer, Add) for other in fused)
                and bool(readers) and all(reader.layer.takes_x_again for reader in readers))

    def _again(self, x: int, time: int) -> int:
        """Where x lies when it is computed again, from the backward step of its last reader to that of its first."""
        back = self._end - 1 - time
        if x not in self.again:
            value = self.values[x]
            self.again[x] = self._new(f"{value.name} again", value.shape, value.dtype, back)
        storage = self.values[self.again[x]].storage
        storage.birth = min(storage.birth, back)
        return self.again[x]

    def _may_overwrite(self, node: Node, time: int) -> bool:
        """Whether `node` may overwrite its input: no later forward or backward step reads that memory."""
        storage = self.values[self.where[node.inputs[0]]].storage
        names = [name for name, value in self.where.items() if self.values[value].storage is storage]
        placed = {step.node.name for step in self.steps}
        waiting = [reader for name in names for reader in self.readers.get(name, [])
                   if reader.name not in placed and reader is not node and self.where.get(reader.name) is None]
        return not (waiting or storage.outside or storage.death > time or self.pinned.intersection(names))

    # ---- backward
    def _add_gradients(self) -> None:
        """Assign dy and dxs to every step, in the order of the backward pass.

        The first reader of a value in this order writes its gradient; other readers write temporaries, which are
        accumulated. Gradients of network inputs are allocated by BackwardPass, only if requested.
        """
        gradient = self.gradient                            # value -> its gradient
        ends = {self.where[name] for name in self.pinned}
        behind_parameters = {step.y for step in self.steps if step.trains}
        for step in reversed(self.steps):
            time = self._end - 1 - step.time
            layer, name = step.node.layer, step.node.name
            if step.y in ends and not layer.is_loss and step.y not in gradient:
                gradient[step.y] = self._new(f"d {name}", self.values[step.y].shape, self.stored, step.time)
            step.dy = gradient.get(step.y)
            if step.dy is None and not layer.is_loss:
                continue
            self._use(step.dy, time)
            if step.work is not None:
                nbytes = self.values[step.work].shape
                step.work_back = self._new(f"{name} work, backward", nbytes, "uint8", time, batched=False)
            for position, x in enumerate(step.xs):
                value = self.values[x]
                if value.is_input:
                    step.dxs.append(None)
                    if value.dtype == self.stored:          # labels have no gradient
                        step.input_dxs[position] = value.name
                    continue
                if layer.is_view or layer.in_place or position == step.reuses_dy:
                    dx = self._share(f"d {value.name}", value.shape, step.dy)
                else:
                    dx = self._new(f"d {value.name}", value.shape, self.stored, time)
                if x in behind_parameters:
                    self.trained.add(dx)
                if x in gradient:
                    step.sums.append((dx, gradient[x]))
                    self._use(gradient[x], time)
                gradient.setdefault(x, dx)
                self._use(dx, time)
                step.dxs.append(dx)

    # ---- memory
    @property
    def input_values(self) -> dict[str, int]:
        """Network input -> its value, for the inputs used by this plan."""
        return {value.name: i for i, value in enumerate(self.values) if value.is_input}

    def forget_arrays(self) -> None:
        """Drop the views of the arena before it is reallocated."""
        self._arrays.clear()

    def arrays(self, batch: int, arena) -> list:
        """One array per value for `batch` images: arena views, separate arrays for pinned values, None for inputs."""
        if batch not in self._arrays:
            self._arrays[batch] = [self._view(value, batch, arena) for value in self.values]
        return self._arrays[batch]

    def input(self, value: int, given, arena):
        """The array of an input: `given`, or a copy of it as activations are stored."""
        planned = self.values[value]
        if planned.storage.given or str(given.dtype) == planned.dtype:
            return given
        self.ops.write(copied := self._view(planned, len(given), arena), given)
        return copied

    def _view(self, value: Value, batch: int, arena):
        storage = value.storage
        if storage.given:
            return None
        if storage.outside:
            memory = self._outside.setdefault(id(storage), None)
            if memory is None:
                memory = self._outside[id(storage)] = self.ops.empty((storage.nbytes,), "uint8")
        else:
            memory = arena[storage.offset:storage.offset + storage.nbytes]
        rows = value.shape[0] * batch // self.batch if value.batched else value.shape[0]
        shape = (rows, *value.shape[1:])
        nbytes = prod(shape) * np.dtype(value.dtype).itemsize
        return memory[:nbytes].view(value.dtype).reshape(shape)


def _needed(nodes: Sequence[Node], wanted: set[str]) -> list[Node]:
    """The nodes that `wanted` depend on, including themselves, in the given order."""
    needed = set(wanted)
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return [node for node in nodes if node.name in needed]
