"""From a network to the part of it that one rank runs.

Every layer with parameters has a place:

    "channels"   each rank computes some of its output channels, and so holds some of its weights
    "rows"       each rank computes it for some of the images, and holds all of its weights
    "root"       rank 0 computes it alone

Layers without parameters stay where their input is. Where what a layer wants is not what the rank has, the value goes
through a Transfer, once, however many layers read it. That is all: that AlexNet's columns meet before conv3, fc6, fc7
and fc8 and nowhere else follows from the groups of conv2, conv4, conv5 and of the normalisation.
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
from minicnn.parallel.sharding import Ranges, Share, equal, even, flattened, joined, shifted, take, width
from minicnn.parallel.transfer import HandOver, SplitDropout, Take, Transfer
from minicnn.plan import LABELS, Node
from minicnn.weights import STATE


@dataclass
class Value:
    """An array of the unsplit network: its shape for one image, and who has what of it (None: everyone has all)."""

    name: str                           # what the rank's own network calls it
    shape: tuple[int, ...]
    shares: list[Share] | None


@dataclass
class Split:
    """The part of a rank, as nodes.

    channels: for each parameter, and for state as "state/<name>", the channels of every rank; None where all have all.
    values: this rank's part of each, by the same names.
    ends: the nodes at which this rank's graph ends, and the layers of the unsplit network that they lead to.
    output: the node that has the network's output here, or hands over what leads to it.   test_ends: all nodes that
    lead to it, where there may be several.   sample_ids: of all images.
    """

    comm: Comm
    nodes: list[Node] = field(default_factory=list)
    channels: dict[str, list[Ranges] | None] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    output: str = ""
    test_ends: list[str] = field(default_factory=list)
    sample_ids: np.ndarray | None = None


class Splitter:
    """Goes through the nodes of `net` once; `place(node)` says where a layer with parameters belongs."""

    def __init__(self, net: Net, comm: Comm, place: Callable[[Node], str]):
        self.net, self.comm, self.place = net, comm, place
        self.rank, self.size = comm.rank, comm.size
        self.split = Split(comm)
        self.values: dict[str, Value] = {}
        self._moved: dict[tuple, str] = {}
        self._copies: dict[int, tuple] = {}                 # id of a layer with parameters -> its copy, its channels

    def run(self, rows: bool) -> Split:
        """rows: each rank is given some of the images; else all of them."""
        net = self.net
        wanted = [*net.losses, net.output]
        plan = net.compile_plan(1, wanted, (), grad=False)
        self.shapes = {name: plan.values[where].shape[1:] for name, where in plan.where.items()}
        for name in (*net.inputs, LABELS):
            if name in self.shapes:
                self.values[name] = Value(name, self.shapes[name], None)
                if rows:
                    channels = prod(self.shapes[name][-1:])
                    self.values[name].shares = [Share("own", ((0, channels),))] * self.size
        for node in net.nodes:
            if node.name in self.shapes:
                self._place(node)
        output = self.values[net.output]
        self.split.output = output.name
        if self._kind(output) == "channels":                # a network that ends in the middle of its columns
            self.split.output = self._fetch(output, self._at_root(output.shape[-1]), "output", ends=True)
        elif self.rank > 0 and self._kind(output) == "root":
            before = _ancestors(net, net.output)
            self.split.test_ends = [end for end, reader in self.split.ends.items() if reader in before]
            self.split.output = next(iter(self.split.test_ends), "")
        return self.split

    # ---- where a node belongs
    def _place(self, node: Node) -> None:
        values = [self.values[name] for name in node.inputs if name != LABELS]
        kinds = {self._kind(value) for value in values}
        if node.layer.initial_values():
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
        if value.shares is None:
            return "everywhere"
        if value.shares[0].rows == "own":
            return "rows"
        return "root" if value.shares == self._at_root(value.shape[-1]) else "channels"

    def _everywhere(self, node: Node, values: list[Value]) -> None:
        """Of the images alone, without parameters: every rank does it for itself, and has the same state."""
        self._add(node, self._hold(node, node.layer, None), [value.name for value in values], None)

    def _rows(self, node: Node, values: list[Value]) -> None:
        """The layer as it is, for the rank's own images."""
        inputs = [self._fetch(value, self._own_rows(value.shape[-1]), node.name) for value in values]
        layer = node.layer
        if layer.is_loss:
            layer = copy.copy(layer)
            layer.weight = layer.weight / self.size         # the ranks' losses are means over 1/size of the images
            inputs.append(LABELS)
        self._add(node, self._hold(node, layer, None), inputs, self._own_rows(prod(self.shapes[node.name][-1:])))

    def _root(self, node: Node, values: list[Value]) -> None:
        """The layer as it is, on rank 0; the others hand over what they have of its input."""
        train_only = getattr(node.layer, "train_only", False)
        inputs = [self._fetch(value, self._at_root(value.shape[-1]), node.name, ends=True, train_only=train_only)
                  for value in values]
        shares = self._at_root(prod(self.shapes[node.name][-1:]))
        if self.rank == 0:
            self._add(node, self._hold(node, node.layer, None), inputs + [LABELS] * node.layer.is_loss, shares)
        else:
            self._note(node, None)
            self.values[node.name] = Value(node.name, self.shapes[node.name], shares)

    # ---- channels: a rule for every kind of layer
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
        """Any layer in which a channel depends on that channel alone: the channels that are here, with their parameters
        and their state."""
        (x,), layer = values, node.layer
        shares = x.shares or _shares(even(x.shape[-1], self.size))
        part = layer
        if layer.params or layer.state:
            part = self._hold(node, layer, [share.channels for share in shares])
            part.channels = shares[self.rank].width
        self._add(node, part, [self._fetch(x, shares, node.name)], shares)

    def _convolution(self, node: Node, values: list[Value]) -> None:
        """Own kernels; they see all channels, or with groups those of their groups."""
        layer, (x,), size = node.layer, values, self.size
        K, C, G = layer.out_channels, layer.in_channels, layer.groups
        own = equal(K, size, f"its {K} kernels")
        if G % size == 0:
            wanted, groups = even(C, size), G // size
        elif size % G == 0:
            wanted, groups = [even(C, G)[rank * G // size] for rank in range(size)], 1
        else:
            raise ConfigError(f"its {G} groups and {size} ranks do not divide one another")
        part = self._hold(node, layer, own)
        part.in_channels, part.out_channels, part.groups = width(wanted[self.rank]), K // size, groups
        self._add(node, part, [self._fetch(x, _shares(wanted), node.name)], _shares(own))

    def _linear(self, node: Node, values: list[Value]) -> None:
        """Own units; they see everything."""
        layer, (x,) = node.layer, values
        own = equal(layer.out_features, self.size, f"its {layer.out_features} units")
        part = self._hold(node, layer, own)
        part.out_features = layer.out_features // self.size
        self._add(node, part, [self._fetch(x, self._all(x.shape[-1]), node.name)], _shares(own))

    def _local(self, node: Node, values: list[Value]) -> None:
        """As a convolution without groups; the kernels of all places stand in the last axis, too."""
        layer, (x,) = node.layer, values
        P, Q, K = layer.out_shape
        own = equal(K, self.size, f"its {K} maps")
        part = self._hold(node, layer, own)
        part.out_shape = (P, Q, K // self.size)
        self._add(node, part, [self._fetch(x, self._all(x.shape[-1]), node.name)], _shares(own))

    def _lrn(self, node: Node, values: list[Value]) -> None:
        """At home where its groups are the ranks' columns; else with a halo of n // 2 channels from the neighbours."""
        layer, (x,), size, rank = node.layer, values, self.size, self.rank
        C, G = x.shape[-1], layer.groups
        own, part = even(C, size), copy.copy(layer)
        if G % size == 0:
            part.groups = G // size
            return self._add(node, part, [self._fetch(x, _shares(own), node.name)], _shares(own))
        if size % G == 0 and C % size == 0:                 # a rank's channels lie in one group: its halo does, too
            group = [even(C, G)[r * G // size][0] for r in range(size)]
            seen = [_widened(own[r], layer.n // 2, group[r]) for r in range(size)]
            part.groups = 1
        else:
            seen = [((0, C),)] * size
        name = self._fetch(x, _shares(seen), node.name)
        if seen == own:
            return self._add(node, part, [name], _shares(own))
        self._node(node.name, part, [name])
        offset = seen[rank][0][0] if seen[rank] else 0
        middle = self._node(f"{node.name}_own", Take(shifted(own[rank], -offset)), [node.name])
        self.values[node.name] = Value(middle, x.shape, _shares(own))

    def _dropout(self, node: Node, values: list[Value]) -> None:
        """The masks that these channels have in the unsplit layer."""
        (x,), split = values, self.split
        layer = SplitDropout(node.layer, x.shape, x.shares[self.rank].channels, lambda: split.sample_ids)
        self._add(node, layer, [x.name], x.shares)

    def _flatten(self, node: Node, values: list[Value]) -> None:
        (x,) = values
        pixels = prod(x.shape[:-1])
        shares = [Share(s.rows, flattened(s.channels, x.shape[-1], pixels)) for s in x.shares]
        self._add(node, node.layer, [x.name], shares)

    def _sum(self, node: Node, values: list[Value]) -> None:
        """All inputs as the first split one has them."""
        shares = next(value.shares for value in values if value.shares is not None)
        self._add(node, node.layer, [self._fetch(value, shares, node.name) for value in values], shares)

    def _concat(self, node: Node, values: list[Value]) -> None:
        """Each rank joins what it has; its channels are then no longer neighbours, and later layers know."""
        inputs, channels, offset = [], [()] * self.size, 0
        for value in values:
            shares = value.shares or _shares(even(value.shape[-1], self.size))
            inputs.append(self._fetch(value, shares, node.name))
            channels = [(*have, *shifted(share.channels, offset)) for have, share in zip(channels, shares, strict=True)]
            offset += value.shape[-1]
        self._add(node, node.layer, inputs, _shares([joined(ranges) for ranges in channels]))

    # ---- building
    def _fetch(self, value: Value, want: list[Share], reader: str, *, ends: bool = False,
               train_only: bool = False) -> str:
        """Name of the node that has of `value` what this rank wants; a new Transfer where no other reader had one."""
        own = want[self.rank]
        if value.shares is None:
            if own.width == value.shape[-1] or ends:
                return value.name
            key = (value.name, own)
            if key not in self._moved:
                self._moved[key] = self._node(f"{reader}_takes", Take(own.channels), [value.name])
            return self._moved[key]
        if value.shares == want:
            return value.name
        key = (value.name, tuple(want), reader if ends else None)
        if key not in self._moved:
            if ends and self.rank > 0:
                layer = HandOver(self.comm, reader, value.shares, want, train_only)
            else:
                layer = Transfer(self.comm, reader, value.shares, want)
            name = self._moved[key] = self._node(f"gather_before_{reader}", layer, [value.name])
            if ends:
                self.split.ends[name] = reader
        return self._moved[key]

    def _node(self, name: str, layer: Layer, inputs: list[str]) -> str:
        taken = {node.name for node in self.split.nodes}
        while name in taken:
            name += "_"
        self.split.nodes.append(Node(name, layer, tuple(inputs)))
        return name

    def _add(self, node: Node, layer: Layer, inputs: list[str], shares: list[Share] | None) -> None:
        self.split.nodes.append(Node(node.name, layer, tuple(inputs)))
        self.values[node.name] = Value(node.name, self.shapes[node.name], shares)

    def _hold(self, node: Node, layer: Layer, own: list[Ranges] | None) -> Layer:
        """A copy of the layer, which will hold the rank's channels of parameters and state (None: all of them)."""
        if id(node.layer) in self._copies:
            part, others = self._copies[id(node.layer)]
            if own is not None or others is not None:
                raise ConfigError("it shares its weights with another layer, and such layers cannot be split by "
                                  "channels; train with --parallel data")
            return part
        for name, array in _arrays(node).items():
            host = self.net.ops.to_host(array)
            self.split.values[name] = host if own is None else take(host, own[self.rank])
        self._note(node, own)
        part = layer.copy()
        if node.layer.params or node.layer.state:
            self._copies[id(node.layer)] = part, own
        return part

    def _note(self, node: Node, own: list[Ranges] | None) -> None:
        self.split.channels.update(dict.fromkeys(_arrays(node), own))

    def _all(self, channels: int) -> list[Share]:
        return [Share("all", ((0, channels),))] * self.size

    def _own_rows(self, channels: int) -> list[Share]:
        return [Share("own", ((0, channels),))] * self.size

    def _at_root(self, channels: int) -> list[Share]:
        return [Share("all", ((0, channels),) if rank == 0 else ()) for rank in range(self.size)]


RULES: dict[type, Callable] = {
    Conv2d: Splitter._convolution, Linear: Splitter._linear, Local2d: Splitter._local, LRN: Splitter._lrn,
    Dropout: Splitter._dropout, Flatten: Splitter._flatten, Add: Splitter._sum, Concat: Splitter._concat,
}


def _arrays(node: Node) -> dict:
    """Parameters and state of a node's layer by the names that they have in files."""
    return {f"{node.name}.{local}": param.data for local, param in node.layer.params.items()} | \
           {f"{STATE}{node.name}.{local}": array for local, array in node.layer.state.items()}


def _shares(channels: list[Ranges]) -> list[Share]:
    return [Share("all", ranges) for ranges in channels]


def _widened(ranges: Ranges, by: int, inside: tuple[int, int]) -> Ranges:
    """A single range with `by` channels more on either side, as far as they lie `inside`."""
    (first, last), = ranges
    return ((max(inside[0], first - by), min(inside[1], last + by)),)


def _ancestors(net: Net, name: str) -> set[str]:
    """The layer and all that lead to it."""
    found = {name}
    for node in reversed(net.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def heads(net: Net) -> set[str]:
    """The layers that end the network: from each loss (or else the output) back to the first one with weights.

    Channelwise layers with parameters, such as a normalisation of the logits, are passed on the way.
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
