"""A network trained on several ranks. Three schemes of parallelism, here for AlexNet:

    columns   the paper's Figure 2 (model parallel): each rank has half of the kernels of every layer, both process all
              images, and activations are exchanged before conv3, fc6, fc7 and fc8; fc8 and the loss are on rank 0
    data      data parallel: each rank has the full network and a part of the images; gradients are all-reduced,
              overlapping with the backward pass
    hybrid    "One weird trick" (Krizhevsky, arXiv 1404.5997): convolutions, which have few weights and most of the
              computation, are data parallel; fully connected layers, which have many weights, are split by units; fc8
              and the loss are data parallel again

On every rank the result is a Net and is trained by the same Trainer. Its parameters have the names of the unsharded
network's, and hold the rank's channels; checkpoints hold unsharded arrays. The batch size is that of all ranks
together, so the learning rate has the same meaning for any number of ranks: loss and gradients are means over that
batch.

State, such as running statistics: where every rank holds a whole layer and processes its own images (data, and the
convolutions of hybrid), each rank updates the state from these, and after every step it is averaged over the ranks, so
that all hold the same. A layer split by channels holds the state of its channels, and a layer on rank 0 has it there,
as in a single process.
"""

from __future__ import annotations

from collections import Counter
from math import prod

import numpy as np

from minicnn.checks import check_inputs
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.layers.linear import Linear
from minicnn.parallel.comm import Comm, RankError
from minicnn.parallel.net_ranks import NetRanks, checksum
from minicnn.parallel.partition import Partitioner, heads
from minicnn.parallel.transfer import Transfer
from minicnn.param import layer_of
from minicnn.plan import Node
from minicnn.weights import STATE, check

BUCKET = 2 << 20        # elements of gradients per all-reduce


def columns(net: Net, comm: Comm) -> ParallelNet:
    """Each rank computes 1 / size of the channels of every layer: for AlexNet, the paper's columns.

    Rank 0 has the last layers: from the last layer with weights to each loss.
    """
    ending = heads(net)
    return ParallelNet(net, comm, lambda node: "root" if node.name in ending else "channels", by_rows=False)


shard_channels = columns    # the general name, for networks other than the paper's


def data(net: Net, comm: Comm) -> ParallelNet:
    """Data parallel: each rank computes all layers for 1 / size of the images."""
    return ParallelNet(net, comm, lambda node: "rows", by_rows=True)


def hybrid(net: Net, comm: Comm) -> ParallelNet:
    """Hidden fully connected layers are split by units; all other layers are data parallel."""
    ending = heads(net)

    def place(node: Node) -> str:
        return "channels" if isinstance(node.layer, Linear) and node.name not in ending else "rows"

    return ParallelNet(net, comm, place, by_rows=True)


SCHEMES = {"columns": columns, "data": data, "hybrid": hybrid}


class ParallelNet(Net):
    """The part of `net` that this rank runs. Differences from Net:

    loss(x, labels)   takes all images for columns, and the rank's images (`ranks.local_rows`) for data and hybrid;
                      returns the loss over all images, on every rank.
    forward(x)        takes all images and returns all logits, on every rank.
    logits            after `loss`: of the images passed in; only if `ranks.has_logits` (columns: on rank 0).
    backward()        after `loss` only.
    has_branches      whether several layers read one value: `drawing` is of a chain.
    """

    def __init__(self, net: Net, comm: Comm, place, by_rows: bool):
        self.comm, self.by_rows = comm, by_rows
        comm.check_equal({"the network": _fingerprint(net), "its weights": _weights_checksum(net)})
        self.partition = Partitioner(net, comm, place).run(by_rows)
        self.full_shapes = {name: tuple(array.shape) for name, array in net.arrays().items()}
        self._description = net.description
        self._num_classes, self._output_params = net.num_classes, net.output_params
        read = Counter(name for node in net.nodes if not node.layer.is_loss for name in node.inputs)
        self.has_branches = max(read.values()) > 1
        if not self.partition.output:
            raise ConfigError(f"network {net.name!r} has no layer with parameters between its images and its output: "
                              "there is nothing to partition")
        only_gradients = by_rows and not self.partition.exchanges                  # nothing is exchanged within a pass
        comm.use_interconnect(net.ops.interconnect(comm.local_rank), only_gradients)   # selects the rank's GPU
        super().__init__(self.partition.nodes, net.inputs, output=self.partition.output, seed=net.seed, dtype=net.dtype,
                         device=net.ops.spec, fuse=net.fuse, name=net.name, values=self.partition.values)
        # replicated weights: their gradients are summed over the ranks
        self._replicated = {name for name, own in self.partition.channels.items() if own is None and by_rows}
        # state that every rank updates from its own images: averaged over the ranks after every step
        self._averaged = [name.removeprefix(STATE) for name in sorted(self._replicated) if name.startswith(STATE)]
        self.ranks = NetRanks(self)
        self._bucket: list = []
        self._pending: list = []

    # ---- properties
    @property
    def num_params(self) -> int:
        """Number of trainable parameters of the unsharded network."""
        return sum(prod(shape) for name, shape in self.full_shapes.items() if not name.startswith(STATE))

    @property
    def layers_with_weights(self) -> list[str]:
        return list(dict.fromkeys(layer_of(name) for name in self.full_shapes if not name.startswith(STATE)))

    @property
    def layers_with_arrays(self) -> list[str]:
        return list(dict.fromkeys(layer_of(name.removeprefix(STATE)) for name in self.full_shapes))

    def description(self) -> dict:
        """The description of the unsharded network."""
        return self._description()

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def output_params(self) -> list[str]:
        return [name for name in self._output_params if name in self.params]

    @property
    def transfers(self) -> list[Node]:
        """The nodes that exchange activations between ranks."""
        return [node for node in self.nodes if isinstance(node.layer, Transfer)]

    def drawing(self, batch: int) -> tuple[list[dict], dict[str, dict]]:
        """The layers with parameters and the exchanges before them: the arguments of visualize.columns.draw_columns.

        Complete on rank 0 only. Milliseconds are those of the ledger, without waiting time.
        """
        plan = self.compile_plan(batch, [*self.losses, self.output], (), grad=True)
        steps = {step.node.name: step for step in plan.steps}
        layers = [{"name": "image", "shape": self.input_shape, "ranks": tuple(range(self.comm.size)), "shared": True}]
        for node in self.nodes:
            if node.layer.params:
                both = self.partition.channels[next(iter(node.layer.params.values())).name] is not None
                layers.append({"name": node.name, "shape": plan.values[steps[node.name].y].shape[1:],
                               "ranks": tuple(range(self.comm.size)) if both else (0,), "shared": False})
        times = {(row["point"], row["direction"]): row["moving_ms"] for row in self.comm.ledger.rows()}
        exchanges = {}
        for node in self.transfers:
            point, shape = node.layer.point, plan.values[steps[node.name].xs[0]].shape
            ms = tuple(times.get((point, direction)) for direction in ("forward", "backward"))
            exchanges[point] = {"bytes": node.layer.traffic(shape, np.dtype(self.dtype).itemsize),
                               "ms": None if None in ms else ms}
        return layers, exchanges

    def memory(self, batch: int, train: bool = True) -> int:
        """Bytes for one step, of all ranks on this machine."""
        outputs = [self.output, *self.losses] if train else [self.output]
        plan = self.compile_plan(self.ranks.local_batch(batch), outputs, (), train)
        outside = sum(storage.nbytes for storage in plan.storages if storage.outside)
        weights = sum(param.data.nbytes for param in self.params.values())
        return self.comm.local_size * (plan.arena_bytes + outside + weights * (3 if train else 1))

    # ---- running
    def loss(self, x, labels, train: bool = True, *, grad: bool | None = None, keep=(), sample_ids=None,
             epoch: int | None = None, stored: bool = False) -> float:
        given = sample_ids is not None
        if not given:
            sample_ids = np.arange(len(labels), dtype=np.uint32) + (self.comm.rank * len(labels) if self.by_rows else 0)
        if train:
            self.comm.ledger.begin_step()
        self._begin(len(labels), np.asarray(sample_ids, np.uint32), labels, train, epoch, given)
        own = super().loss(x, labels, train, grad=grad, keep=keep, sample_ids=sample_ids, epoch=epoch, stored=stored)
        if train:
            self._average_state()
        total = 0.0
        for part in self.comm.all_gather_values([own], "loss")[:, 0]:
            total += part
        return float(total)

    def _average_state(self) -> None:
        """Average running statistics over the ranks: the mean over all images."""
        arrays = [self.state[name] for name in self._averaged]
        if arrays:
            self.comm.all_reduce(arrays, "state", "forward")
            for array in arrays:
                array /= self.comm.size

    def _begin(self, count: int, ids: np.ndarray, labels, train: bool, epoch, given: bool) -> None:
        """Check that all ranks run the same step on consistent images, and set the sample ids of the full batch."""
        same = {"the number of images": count, "whether this is training": train, "the epoch": epoch}
        if not self.by_rows:
            same |= {"the order of the images": ids, "their labels": np.asarray(labels, np.int64)}
        self.comm.check_equal(same)
        self.partition.sample_ids = ids
        if self.by_rows:
            everyone = np.empty((self.comm.size, count), np.uint32)
            self.comm.all_gather(ids, everyone, "agreement")
            self.partition.sample_ids = everyone.reshape(-1)
            if given and len(set(self.partition.sample_ids.tolist())) < everyone.size:
                twice = [rank for rank in range(1, self.comm.size) if np.isin(everyone[rank], everyone[:rank]).any()]
                raise RankError(f"rank {twice[0] if twice else 0} disagrees on the order of the images: it received "
                                "images that another rank also has; start every rank with the same data and seed")

    def forward(self, x, train: bool = False, *, grad: bool | None = None, keep=(), sample_ids=None,
                epoch: int | None = None):
        if train or grad:
            raise ConfigError("forward of a network on several ranks is for inference only; to train, use "
                              "loss(...) and backward()")
        count, size = len(x), self.comm.size
        self.comm.check_equal({"the number of images": count})
        if not self.by_rows:
            self.partition.sample_ids = np.arange(count, dtype=np.uint32)
            self._predict(x, self.partition.inference_ends or [self.output], keep, epoch)
            logits = self.ops.empty((count, self.num_classes), self.dtype) if not self.ranks.is_main else super().logits
            self.comm.broadcast(logits, 0, "logits")
            return logits
        own = -(-count // size)                             # if not divisible, the last image is repeated
        at = np.minimum(np.arange(self.comm.rank * own, (self.comm.rank + 1) * own), count - 1)
        self.partition.sample_ids = np.arange(own * size, dtype=np.uint32)
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
            raise ConfigError(f"rank {self.comm.rank} has no logits: for columns, the output layer is on rank 0")
        return super().logits

    def start_loss(self, x, labels, *, sample_ids, epoch) -> None:
        raise ConfigError("a step of a network on several ranks cannot be captured as a CUDA graph; use loss(...)")

    def backward(self, dy=None, **options):
        if dy is not None or any(value for value in options.values()):
            raise ConfigError("backward of a network on several ranks follows loss(...), without dy and other options; "
                              "use the unsharded network for those")
        super().backward()
        self._reduce_bucket()
        if self._replicated:
            pending, self._pending = self._pending, []
            self.comm.finish(pending, "gradients")
        self.comm.ledger.end_step()
        self.comm.warmed_up = True

    def _gradients_done(self, node: Node) -> None:
        """All-reduce gradients of replicated weights in the background, a bucket at a time."""
        grads = [param.grad for param in node.layer.params.values() if param.name in self._replicated]
        self._bucket += grads
        if sum(grad.size for grad in self._bucket) >= BUCKET:
            self._reduce_bucket()

    def _reduce_bucket(self) -> None:
        if self._bucket:
            self._pending.append(self.comm.start_all_reduce(self._bucket, "gradients"))
            self._bucket = []

    def load_arrays(self, tensors: dict[str, np.ndarray], source: str = "the given arrays") -> None:
        """Load the rank's shards of unsharded arrays. Nothing is changed if anything does not match."""
        check(self.full_shapes, tensors, source)
        super().load_arrays(self.ranks.scatter(tensors), source)
        self.comm.check_equal({"the checkpoint": checksum([tensors[name] for name in self.full_shapes])})

    def trace(self, *args, **options):
        raise ConfigError("trace is not available on several ranks; use the unsharded network")

    def copy(self, **options):
        raise ConfigError("a network on several ranks cannot be copied; copy the unsharded network")

    replace = copy

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, rank {self.comm.rank} of {self.comm.size})"


def _fingerprint(net: Net) -> str:
    """The configuration of the network, to compare between ranks."""
    layers = [(node.name, type(node.layer).__name__, node.layer.describe(), node.inputs) for node in net.nodes]
    return f"{net.name}, {net.dtype}, seed {net.seed}, {net.inputs}, {layers}"


def _weights_checksum(net: Net) -> int:
    return checksum([net.ops.to_host(array) for array in net.arrays().values()])
