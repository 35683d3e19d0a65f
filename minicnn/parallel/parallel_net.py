"""A network that several ranks train together. Three ways to share the work of AlexNet:

    columns   the paper's Figure 2: each rank has half of the kernels of every layer, all images go to both, and the
              columns meet before conv3, fc6, fc7 and fc8; fc8 and the loss are on rank 0
    data      each rank has the whole network and some of the images; gradients are summed, behind the backward pass
    hybrid    "One weird trick" (Krizhevsky, arXiv 1404.5997): convolutions, which have few weights and much to compute,
              by images; fully connected layers, which have many weights, by units; fc8 and the loss by images again

On every rank the result looks like any other Net and is trained by the same Trainer. It has the parameters of the
unsplit network under their names, each rank its own channels of them; checkpoints hold the unsplit ones. The batch is
that of all ranks together, and so the learning rate means the same however many there are: loss and gradients are means
over that batch.
"""

from __future__ import annotations

from math import prod

import numpy as np

from minicnn.checks import check_inputs
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.layers.linear import Linear
from minicnn.parallel.comm import Comm, RankError
from minicnn.parallel.net_ranks import NetRanks, checksum
from minicnn.parallel.partition import Splitter, heads
from minicnn.parallel.transfer import Transfer
from minicnn.param import layer_of
from minicnn.plan import Node
from minicnn.weights import STATE, check

BUCKET = 2 << 20        # elements of gradients that are summed over the ranks in one go


def columns(net: Net, comm: Comm) -> ParallelNet:
    """Each rank computes 1 / size of the channels of every layer: for AlexNet, the paper's columns.

    Rank 0 has the layers that end the network: from each loss back to the last one with weights.
    """
    ending = heads(net)
    return ParallelNet(net, comm, lambda node: "root" if node.name in ending else "channels", by_rows=False)


shard_channels = columns    # what it is for a network that was not drawn in two columns


def data(net: Net, comm: Comm) -> ParallelNet:
    """Each rank computes everything for 1 / size of the images."""
    return ParallelNet(net, comm, lambda node: "rows", by_rows=True)


def hybrid(net: Net, comm: Comm) -> ParallelNet:
    """Hidden fully connected layers by units, everything else by images."""
    ending = heads(net)

    def place(node: Node) -> str:
        return "channels" if isinstance(node.layer, Linear) and node.name not in ending else "rows"

    return ParallelNet(net, comm, place, by_rows=True)


SCHEMES = {"columns": columns, "data": data, "hybrid": hybrid}


class ParallelNet(Net):
    """The part of `net` that this rank runs. See Net; what is different:

    loss(x, labels)   takes all images with columns, the rank's own (`ranks.local_rows`) with data and hybrid; gives the
                      loss of all of them on every rank.
    forward(x)        takes all images and gives all logits, on every rank.
    logits            after `loss`: of the images given; only where `ranks.has_logits` (with columns: rank 0).
    backward()        after `loss` only.
    """

    def __init__(self, net: Net, comm: Comm, place, by_rows: bool):
        self.comm, self.by_rows = comm, by_rows
        comm.check_equal({"the network": _words(net), "its weights": _weights(net)})
        self.split = Splitter(net, comm, place).run(by_rows)
        self.whole_shapes = {name: tuple(array.shape) for name, array in net.arrays().items()}
        self._description = net.description
        self._num_classes, self._output_params = net.num_classes, net.output_params
        if not self.split.output:
            raise ConfigError(f"network {net.name!r} has no layer with parameters between its images and its output: "
                              "there is nothing to split")
        only_gradients = by_rows and not any(self.split.channels.values())     # cross, and nothing within a pass
        comm.work_with(net.ops.interconnect(comm.place), only_gradients)           # on the rank's own GPU from here on
        super().__init__(self.split.nodes, net.inputs, output=self.split.output, seed=net.seed, dtype=net.dtype,
                         device=net.ops.spec, fuse=net.fuse, name=net.name, values=self.split.values)
        # weights that every rank holds whole: their gradients are summed over the ranks
        self._shared = {name for name, own in self.split.channels.items() if own is None and by_rows}
        # state that every rank updates from its own images: averaged after every step
        self._averaged = [name.removeprefix(STATE) for name in sorted(self._shared) if name.startswith(STATE)]
        self.ranks = NetRanks(self)
        self._bucket: list = []
        self._pending: list = []

    # ---- what it is
    @property
    def num_params(self) -> int:
        """Number of trained values of all ranks together."""
        return sum(prod(shape) for name, shape in self.whole_shapes.items() if not name.startswith(STATE))

    @property
    def layers_with_weights(self) -> list[str]:
        return list(dict.fromkeys(layer_of(name) for name in self.whole_shapes if not name.startswith(STATE)))

    @property
    def layers_with_arrays(self) -> list[str]:
        return list(dict.fromkeys(layer_of(name.removeprefix(STATE)) for name in self.whole_shapes))

    def description(self) -> dict:
        """Of the unsplit network."""
        return self._description()

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def output_params(self) -> list[str]:
        return [name for name in self._output_params if name in self.params]

    @property
    def transfers(self) -> list[Node]:
        """The nodes in which the ranks meet."""
        return [node for node in self.nodes if isinstance(node.layer, Transfer)]

    def drawing(self, batch: int) -> tuple[list[dict], dict[str, dict]]:
        """The layers with parameters and what crosses before them, as visualize.columns.draw_columns takes them.

        Rank 0 knows all of it. Milliseconds are those of the ledger, without the time spent waiting.
        """
        plan = self.compile_plan(batch, [*self.losses, self.output], (), grad=True)
        steps = {step.node.name: step for step in plan.steps}
        layers = [{"name": "image", "shape": self.input_shape, "ranks": tuple(range(self.comm.size)), "shared": True}]
        for node in self.nodes:
            if node.layer.params:
                both = self.split.channels[next(iter(node.layer.params.values())).name] is not None
                layers.append({"name": node.name, "shape": plan.values[steps[node.name].y].shape[1:],
                               "ranks": tuple(range(self.comm.size)) if both else (0,), "shared": False})
        times = {(row["point"], row["direction"]): row["moving_ms"] for row in self.comm.ledger.rows()}
        meetings = {}
        for node in self.transfers:
            point, shape = node.layer.point, plan.values[steps[node.name].xs[0]].shape
            ms = tuple(times.get((point, direction)) for direction in ("forward", "backward"))
            meetings[point] = {"bytes": node.layer.traffic(shape, np.dtype(self.dtype).itemsize),
                               "ms": None if None in ms else ms}
        return layers, meetings

    def memory(self, batch: int, train: bool = True) -> int:
        """Bytes that a step needs, of all ranks on this machine."""
        outputs = [self.output, *self.losses] if train else [self.output]
        plan = self.compile_plan(self.ranks.local_batch(batch), outputs, (), train)
        outside = sum(storage.nbytes for storage in plan.storages if storage.outside)
        weights = sum(param.data.nbytes for param in self.params.values())
        return self.comm.neighbours * (plan.arena_bytes + outside + weights * (3 if train else 1))

    # ---- running
    def loss(self, x, labels, train: bool = True, *, grad: bool | None = None, keep=(), sample_ids=None,
             epoch: int | None = None) -> float:
        given = sample_ids is not None
        if not given:
            sample_ids = np.arange(len(labels), dtype=np.uint32) + (self.comm.rank * len(labels) if self.by_rows else 0)
        if train:
            self.comm.ledger.step_begins()
        self._begin(len(labels), np.asarray(sample_ids, np.uint32), labels, train, epoch, given)
        own = super().loss(x, labels, train, grad=grad, keep=keep, sample_ids=sample_ids, epoch=epoch)
        if train:
            self._average_state()
        total = 0.0
        for part in self.comm.numbers([own], "loss")[:, 0]:
            total += part
        return float(total)

    def _average_state(self) -> None:
        """The ranks' running statistics become their mean, which is that of all images."""
        arrays = [self.state[name] for name in self._averaged]
        if arrays:
            self.comm.all_reduce(arrays, "state", "forward")
            for array in arrays:
                array /= self.comm.size

    def _begin(self, count: int, ids: np.ndarray, labels, train: bool, epoch, given: bool) -> None:
        """Every rank is about to do the same with images that belong together."""
        same = {"the number of images": count, "whether this is training": train, "the epoch": epoch}
        if not self.by_rows:
            same |= {"the order of the images": ids, "their labels": np.asarray(labels, np.int64)}
        self.comm.check_equal(same)
        self.split.sample_ids = ids
        if self.by_rows:
            everyone = np.empty((self.comm.size, count), np.uint32)
            self.comm.all_gather(ids, everyone, "agreement")
            self.split.sample_ids = everyone.reshape(-1)
            if given and len(set(self.split.sample_ids.tolist())) < everyone.size:
                twice = [rank for rank in range(1, self.comm.size) if np.isin(everyone[rank], everyone[:rank]).any()]
                raise RankError(f"rank {twice[0] if twice else 0} disagrees on the order of the images: it was given "
                                "images that another rank has, too; start every rank with the same data and seed")

    def forward(self, x, train: bool = False, *, grad: bool | None = None, keep=(), sample_ids=None,
                epoch: int | None = None):
        if train or grad:
            raise ConfigError("a network of several ranks is trained by loss(...) and backward(); its forward predicts")
        count, size = len(x), self.comm.size
        self.comm.check_equal({"the number of images": count})
        if not self.by_rows:
            self.split.sample_ids = np.arange(count, dtype=np.uint32)
            self._predict(x, self.split.test_ends or [self.output], keep, epoch)
            logits = self.ops.empty((count, self.num_classes), self.dtype) if not self.ranks.is_main else super().logits
            self.comm.broadcast(logits, 0, "logits")
            return logits
        own = -(-count // size)                             # the last images again where they do not come out even
        at = np.minimum(np.arange(self.comm.rank * own, (self.comm.rank + 1) * own), count - 1)
        self.split.sample_ids = np.arange(own * size, dtype=np.uint32)
        self._predict(x[at], [self.output], keep, epoch)
        part = super().logits
        logits = self.ops.empty((size, *part.shape), self.dtype)
        self.comm.all_gather(part, logits, "logits")
        return logits.reshape(own * size, -1)[:count]

    def _predict(self, x, outputs, keep, epoch) -> None:
        given = check_inputs(self, x, None)
        self._forward(given, outputs, False, False, tuple(keep), *self.counters(given, False, None, epoch))

    @property
    def logits(self):
        if not self.ranks.has_logits:
            raise ConfigError(f"rank {self.comm.rank} has no logits: with columns, the output layer is on rank 0")
        return super().logits

    def start_loss(self, x, labels, *, sample_ids, epoch) -> None:
        raise ConfigError("a step of a network of several ranks cannot be recorded; use loss(...)")

    def backward(self, dy=None, **options):
        if dy is not None or any(value for value in options.values()):
            raise ConfigError("backward of a network of several ranks follows loss(...), without dy and other options; "
                              "use the unsplit network for those")
        super().backward()
        self._send_bucket()
        if self._shared:
            pending, self._pending = self._pending, []
            self.comm.finish(pending, "gradients")
        self.comm.ledger.step_done()
        self.comm.steady = True

    def _gradients_done(self, node: Node) -> None:
        """Gradients of whole weights are summed over the ranks in the background, a bucket at a time."""
        grads = [param.grad for param in node.layer.params.values() if param.name in self._shared]
        self._bucket += grads
        if sum(grad.size for grad in self._bucket) >= BUCKET:
            self._send_bucket()

    def _send_bucket(self) -> None:
        if self._bucket:
            self._pending.append(self.comm.start_all_reduce(self._bucket, "gradients"))
            self._bucket = []

    def load_arrays(self, tensors: dict[str, np.ndarray], source: str = "the given arrays") -> None:
        """Take the rank's part of unsplit arrays. Nothing is changed unless all of them fit."""
        check(self.whole_shapes, tensors, source)
        super().load_arrays(self.ranks.scatter(tensors), source)
        self.comm.check_equal({"the checkpoint": checksum([tensors[name] for name in self.whole_shapes])})

    def trace(self, *args, **options):
        raise ConfigError("a network of several ranks cannot be looked into; use the unsplit network")

    def copy(self, **options):
        raise ConfigError("a network of several ranks cannot be copied; copy the unsplit network")

    replace = copy

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, rank {self.comm.rank} of {self.comm.size})"


def _words(net: Net) -> str:
    """What the network is."""
    layers = [(node.name, type(node.layer).__name__, node.layer.describe(), node.inputs) for node in net.nodes]
    return f"{net.name}, {net.dtype}, seed {net.seed}, {net.inputs}, {layers}"


def _weights(net: Net) -> int:
    return checksum([net.ops.to_host(array) for array in net.arrays().values()])
