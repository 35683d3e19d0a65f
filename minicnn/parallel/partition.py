"""Partitioning a network: the part of it that one rank runs.

Every layer with parameters has a placement:

    "channels"   each rank computes some of the output channels, with a shard of the weights (model parallel)
    "rows"       each rank computes some of the images, with a replica of the weights (data parallel)
    "root"       only rank 0 computes the layer

Layers without parameters take the sharding of their input. If the sharding that a layer needs differs from that of its
input, a Transfer reshards the value, once for all layers that read it. That AlexNet's columns communicate only before
conv3, fc6, fc7 and fc8 follows from the groups of conv2, conv4, conv5 and of the normalisation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np

from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.layers.base import Layer
from minicnn.layers.combine import Add, Concat, Flatten
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.local import Local2d
from minicnn.layers.lrn import LRN
from minicnn.parallel.comm import Comm
from minicnn.parallel.sharding import (
    Ranges,
    Shard,
    equal_ranges,
    even_ranges,
    flattened,
    merged,
    select_channels,
    shifted,
    width,
)
from minicnn.parallel.sync_batchnorm import SyncBatchNorm2d, synchronised
from minicnn.parallel.transfer import SelectChannels, SendToRoot, SplitDropout, Transfer
from minicnn.plan import LABELS, Node
from minicnn.weights import STATE


@dataclass
class Value:
    """An array of the unsharded network: its shape for one image, and the shard of each rank (None: replicated)."""

    name: str                           # its node in this rank's network
    shape: tuple[int, ...]
    shards: list[Shard] | None


@dataclass
class Partition:
    """The nodes of one rank.

    channels: for each parameter, and for state as "state/<name>", the channels of every rank; None if replicated.
    values: this rank's shard of each, by the same names.
    ends: last nodes of this rank's graph -> the layer of the unsharded network that reads the data they send.
    output: the node of the network's output, or the one that sends data towards it.   inference_ends: all nodes that
    send data towards the output.   sample_ids: of all images.
    """

    comm: Comm
    nodes: list[Node] = field(default_factory=list)
    channels: dict[str, list[Ranges] | None] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    output: str = ""
    inference_ends: list[str] = field(default_factory=list)
    sample_ids: np.ndarray | None = None

    @property
    def exchanges(self) -> bool:
        """Whether ranks exchange anything within a pass."""
        return any(self.channels.values()) or any(isinstance(node.layer, SyncBatchNorm2d) for node in self.nodes)


class Partitioner:
    """Builds the Partition of one rank; `place(node)` returns the placement of a layer with parameters."""

    def __init__(self, net: Net, comm: Comm, place: Callable[[Node], str]):
        self.net, self.comm, self.place = net, comm, place
        self.rank, self.size = comm.rank, comm.size
        self.partition = Partition(comm)
        self.values: dict[str, Value] = {}
        self._moved: dict[tuple, str] = {}
        self._copies: dict[int, tuple] = {}                 # id of a layer with parameters -> its copy and channels

    def run(self, rows: bool) -> Partition:
        """rows: whether the images are split over the ranks, or replicated."""
        net = self.net
        wanted = [*net.losses, net.output]
        plan = net.compile_plan(1, wanted, (), grad=False)
        self.shapes = {name: shape[1:] for name, shape in plan.shapes.items()}
        for name in (*net.inputs, LABELS):
            if name in self.shapes:
                self.values[name] = Value(name, self.shapes[name], None)
                if rows:
                    channels = prod(self.shapes[name][-1:])
                    self.values[name].shards = [Shard("own", ((0, channels),))] * self.size
        for node in net.nodes:
            if node.name in self.shapes:
                self._place(node)
        output = self.values[net.output]
        self.partition.output = output.name
        if self._kind(output) == "channels":                # the output itself is split by channels
            self.partition.output = self._fetch(output, self._at_root(output.shape[-1]), "output", ends=True)
        elif self.rank > 0 and self._kind(output) == "root":
            before = _ancestors(net, net.output)
            self.partition.inference_ends = [end for end, reader in self.partition.ends.items() if reader in before]
            self.partition.output = next(iter(self.partition.inference_ends), "")
        return self.partition

    # ---- placement
    def _place(self, node: Node) -> None:
        values = [self.values[name] for name in node.inputs if name != LABELS]
        kinds = {self._kind(value) for value in values}
        follows = node.layer.channelwise and kinds == {"channels"}         # a normalisation of channels that are split
        if node.layer.initial_values() and not follows:
            kind = self.place(node)
        elif node.layer.is_loss and kinds & {"channels", "root"}:
            kind = "root"
        else:
            kind = next((kind for kind in ("rows", "root", "channels") if kind in kinds), "everywhere")
        try:
            getattr(self, f"_{kind}")(node, values)
        except ConfigError as error:
            raise ConfigError(f"layer {node.name!r} of network {self.net.name!r}: {error}") from None

    def _kind(self, value: Value) -> str:
        if value.shards is None:
            return "everywhere"
        if value.shards[0].rows == "own":
            return "rows"
        return "root" if value.shards == self._at_root(value.shape[-1]) else "channels"

    def _everywhere(self, node: Node, values: list[Value]) -> None:
        """A function of replicated inputs, without parameters: computed by every rank, with the same state."""
        self._add(node, self._hold(node, node.layer, None), [value.name for value in values], None)

    def _rows(self, node: Node, values: list[Value]) -> None:
        """Data parallel: the full layer, for the rank's images."""
        inputs = [self._fetch(value, self._own_rows(value.shape[-1]), node.name) for value in values]
        layer = synchronised(node.layer, self.comm, node.name)
        if layer.is_loss:
            layer = copy.copy(layer)
            layer.weight = layer.weight / self.size         # each rank's loss is a mean over 1/size of the images
            inputs.append(LABELS)
        self._add(node, self._hold(node, layer, None), inputs, self._own_rows(prod(self.shapes[node.name][-1:])))

    def _root(self, node: Node, values: list[Value]) -> None:
        """The full layer on rank 0; the other ranks send their shards of its input."""
        train_only = getattr(node.layer, "train_only", False)
        inputs = [self._fetch(value, self._at_root(value.shape[-1]), node.name, ends=True, train_only=train_only)
                  for value in values]
        shards = self._at_root(prod(self.shapes[node.name][-1:]))
        if self.rank == 0:
            self._add(node, self._hold(node, node.layer, None), inputs + [LABELS] * node.layer.is_loss, shards)
        else:
            self._note(node, None)
            self.values[node.name] = Value(node.name, self.shapes[node.name], shards)

    # ---- split by channels: a rule for every kind of layer
    def _channels(self, node: Node, values: list[Value]) -> None:
        kind = type(node.layer)
        if kind in RULES:
            RULES[kind](self, node, values)
        elif node.layer.channelwise:
            self._channelwise(node, values)
        else:
            raise ConfigError(f"there is no rule for splitting {kind.__name__} by channels; add one to RULES in "
                              "minicnn/parallel/partition.py, or train with --parallel data")

    def _channelwise(self, node: Node, values: list[Value]) -> None:
        """A layer whose output channel c depends only on input channel c: the local channels, with their parameters and
        state."""
        if len(values) != 1:
            raise ConfigError(f"{type(node.layer).__name__} has {len(values)} inputs, and there is no rule for "
                              "splitting such a layer by channels; train with --parallel data")
        (x,), layer = values, node.layer
        shards = x.shards or _shards(even_ranges(x.shape[-1], self.size))
        part = layer
        if layer.params or layer.state:
            part = self._hold(node, layer, [share.channels for share in shards])
            part.channels = shards[self.rank].width
        self._add(node, part, [self._fetch(x, shards, node.name)], shards)

    def _convolution(self, node: Node, values: list[Value]) -> None:
        """A shard of the kernels; they read all input channels, or with groups those of their groups."""
        layer, (x,), size = node.layer, values, self.size
        K, C, G = layer.out_channels, layer.in_channels, layer.groups
        own = equal_ranges(K, size, f"its {K} kernels")
        if G % size == 0:
            wanted, groups = even_ranges(C, size), G // size
        elif size % G == 0:
            wanted, groups = [even_ranges(C, G)[rank * G // size] for rank in range(size)], 1
        else:
            raise ConfigError(f"its {G} groups and {size} ranks do not divide one another")
        part = self._hold(node, layer, own)
        part.in_channels, part.out_channels, part.groups = width(wanted[self.rank]), K // size, groups
        self._add(node, part, [self._fetch(x, _shards(wanted), node.name)], _shards(own))

    def _linear(self, node: Node, values: list[Value]) -> None:
        """A shard of the units; they read all inputs."""
        layer, (x,) = node.layer, values
        own = equal_ranges(layer.out_features, self.size, f"its {layer.out_features} units")
        part = self._hold(node, layer, own)
        part.out_features = layer.out_features // self.size
        self._add(node, part, [self._fetch(x, self._all(x.shape[-1]), node.name)], _shards(own))

    def _local(self, node: Node, values: list[Value]) -> None:
        """As a convolution without groups; the output channels are the last axis of the weights here, too."""
        layer, (x,) = node.layer, values
        P, Q, K = layer.out_shape
        own = equal_ranges(K, self.size, f"its {K} maps")
        part = self._hold(node, layer, own)
        part.out_shape = (P, Q, K // self.size)
        self._add(node, part, [self._fetch(x, self._all(x.shape[-1]), node.name)], _shards(own))

    def _lrn(self, node: Node, values: list[Value]) -> None:
        """Local, without communication, if groups align with shards; else a halo of n // 2 channels per side."""
        layer, (x,), size, rank = node.layer, values, self.size, self.rank
        C, G = x.shape[-1], layer.groups
        own, part = even_ranges(C, size), copy.copy(layer)
        if G % size == 0:
            part.groups = G // size
            return self._add(node, part, [self._fetch(x, _shards(own), node.name)], _shards(own))
        if size % G == 0 and C % size == 0:                 # a rank's channels are in one group, and so is its halo
            group = [even_ranges(C, G)[r * G // size][0] for r in range(size)]
            seen = [_widened(own[r], layer.n // 2, group[r]) for r in range(size)]
            part.groups = 1
        else:
            seen = [((0, C),)] * size
        name = self._fetch(x, _shards(seen), node.name)
        if seen == own:
            return self._add(node, part, [name], _shards(own))
        self._node(node.name, part, [name])
        offset = seen[rank][0][0] if seen[rank] else 0
        middle = self._node(f"{node.name}_own", SelectChannels(shifted(own[rank], -offset)), [node.name])
        self.values[node.name] = Value(middle, x.shape, _shards(own))

    def _dropout(self, node: Node, values: list[Value]) -> None:
        """The same masks as for these channels in the unsharded layer."""
        (x,), partition = values, self.partition
        layer = SplitDropout(node.layer, x.shape, x.shards[self.rank].channels, lambda: partition.sample_ids)
        self._add(node, layer, [x.name], x.shards)

    def _flatten(self, node: Node, values: list[Value]) -> None:
        (x,) = values
        pixels = prod(x.shape[:-1])
        shards = [Shard(s.rows, flattened(s.channels, x.shape[-1], pixels)) for s in x.shards]
        self._add(node, node.layer, [x.name], shards)

    def _sum(self, node: Node, values: list[Value]) -> None:
        """All inputs, resharded like the first sharded one."""
        shards = next(value.shards for value in values if value.shards is not None)
        self._add(node, node.layer, [self._fetch(value, shards, node.name) for value in values], shards)

    def _concat(self, node: Node, values: list[Value]) -> None:
        """Each rank concatenates its shards; the result is a shard of several, non-contiguous ranges."""
        inputs, channels, offset = [], [()] * self.size, 0
        for value in values:
            shards = value.shards or _shards(even_ranges(value.shape[-1], self.size))
            inputs.append(self._fetch(value, shards, node.name))
            channels = [(*have, *shifted(share.channels, offset)) for have, share in zip(channels, shards, strict=True)]
            offset += value.shape[-1]
        self._add(node, node.layer, inputs, _shards([merged(ranges) for ranges in channels]))

    # ---- building
    def _fetch(self, value: Value, want: list[Shard], reader: str, *, ends: bool = False,
               train_only: bool = False) -> str:
        """The node with this rank's shard `want` of `value`; adds a Transfer unless an earlier reader did."""
        own = want[self.rank]
        if value.shards is None:
            if own.width == value.shape[-1] or ends:
                return value.name
            key = (value.name, own)
            if key not in self._moved:
                self._moved[key] = self._node(f"{reader}_takes", SelectChannels(own.channels), [value.name])
            return self._moved[key]
        if value.shards == want:
            return value.name
        key = (value.name, tuple(want), reader if ends else None)
        if key not in self._moved:
            if ends and self.rank > 0:
                layer = SendToRoot(self.comm, reader, value.shards, want, train_only)
            else:
                layer = Transfer(self.comm, reader, value.shards, want)
            name = self._moved[key] = self._node(f"gather_before_{reader}", layer, [value.name])
            if ends:
                self.partition.ends[name] = reader
        return self._moved[key]

    def _node(self, name: str, layer: Layer, inputs: list[str]) -> str:
        taken = {node.name for node in self.partition.nodes}
        while name in taken:
            name += "_"
        self.partition.nodes.append(Node(name, layer, tuple(inputs)))
        return name

    def _add(self, node: Node, layer: Layer, inputs: list[str], shards: list[Shard] | None) -> None:
        self.partition.nodes.append(Node(node.name, layer, tuple(inputs)))
        self.values[node.name] = Value(node.name, self.shapes[node.name], shards)

    def _hold(self, node: Node, layer: Layer, own: list[Ranges] | None) -> Layer:
        """A copy of the layer for the rank's channels of parameters and state (None: all channels)."""
        if id(node.layer) in self._copies:
            part, others = self._copies[id(node.layer)]
            if own is not None or others is not None:
                raise ConfigError("it shares its weights with another layer; tied layers cannot be split by "
                                  "channels; train with --parallel data")
            return part
        for name, array in _arrays(node).items():
            host = self.net.ops.to_host(array)
            self.partition.values[name] = host if own is None else select_channels(host, own[self.rank])
        self._note(node, own)
        part = layer.copy()
        if node.layer.params or node.layer.state:
            self._copies[id(node.layer)] = part, own
        return part

    def _note(self, node: Node, own: list[Ranges] | None) -> None:
        self.partition.channels.update(dict.fromkeys(_arrays(node), own))

    def _all(self, channels: int) -> list[Shard]:
        return [Shard("all", ((0, channels),))] * self.size

    def _own_rows(self, channels: int) -> list[Shard]:
        return [Shard("own", ((0, channels),))] * self.size

    def _at_root(self, channels: int) -> list[Shard]:
        return [Shard("all", ((0, channels),) if rank == 0 else ()) for rank in range(self.size)]


RULES: dict[type, Callable] = {
    Conv2d: Partitioner._convolution, Linear: Partitioner._linear, Local2d: Partitioner._local, LRN: Partitioner._lrn,
    Dropout: Partitioner._dropout, Flatten: Partitioner._flatten, Add: Partitioner._sum, Concat: Partitioner._concat,
}


def _arrays(node: Node) -> dict:
    """Parameters and state of a node's layer, by their names in files."""
    return {f"{node.name}.{local}": param.data for local, param in node.layer.params.items()} | \
           {f"{STATE}{node.name}.{local}": array for local, array in node.layer.state.items()}


def _shards(channels: list[Ranges]) -> list[Shard]:
    return [Shard("all", ranges) for ranges in channels]


def _widened(ranges: Ranges, by: int, inside: tuple[int, int]) -> Ranges:
    """A single range extended by `by` channels on both sides, clipped to `inside`."""
    (first, last), = ranges
    return ((max(inside[0], first - by), min(inside[1], last + by)),)


def _ancestors(net: Net, name: str) -> set[str]:
    """The layer and all layers that it depends on."""
    found = {name}
    for node in reversed(net.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def heads(net: Net) -> set[str]:
    """The last layers: from the last layer with weights to each loss (or to the output).

    Channelwise layers with parameters, such as a normalisation of the logits, do not count as layers with weights.
    """
    readers: dict[str, list[str]] = {}
    by_name = {node.name: node for node in net.nodes}
    for node in net.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.name)
    found = set(net.losses)
    for start in [*net.losses, net.output]:
        name = by_name[start].inputs[0] if start in net.losses else start
        while name in by_name and set(readers.get(name, [])) <= found:
            found.add(name)
            if by_name[name].layer.initial_values() and not by_name[name].layer.channelwise:
                break
            name = by_name[name].inputs[0]
    return found
