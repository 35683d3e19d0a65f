"""A network: a directed acyclic graph of named layers, planned once, then run without allocating.

    loader -> augment -> net.forward -> layer.forward -> ops.conv_forward -> kernel, and back the same way.

Shapes are static: the first call with a batch plans for it (minicnn/plan.py), smaller batches use the leading part of
the same arrays. The network holds what passes between layers; the layers hold their parameters and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from minicnn.backend.select import get_ops
from minicnn.errors import CheckpointError, ConfigError, MinicnnError, ShapeError
from minicnn.layers.base import Context
from minicnn.param import Param, layer_of
from minicnn.plan import Node, Plan
from minicnn.ranks import SingleProcess
from minicnn.rng import purpose_id

LABELS = "labels"


class Net:
    """A network of layers.

    nodes: in an order in which every node comes after what it reads; "labels" are the (N,) integers given to `loss`.
    inputs: name -> shape of one image (H, W, C), the first being the one that `forward` takes.
    output: the node whose value `forward` returns; by default the last that is no loss.
    dtype: "float32", or "float64" for gradient checks.   device: see backend.ops.get_ops.
    fuse: False runs every layer on its own.
    """

    def __init__(self, nodes: Sequence[Node], inputs: dict[str, tuple[int, ...]], *, output: str | None = None,
                 seed: int = 0, dtype: str = "float32", device: str = "auto", fuse: bool = True, name: str = "net"):
        if dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype must be float32 or float64, got {dtype!r}")
        self.name, self.seed, self.dtype, self.fuse = name, seed, dtype, fuse
        self.ops = get_ops(device)
        self.ranks = SingleProcess(self.ops)
        self.nodes, self.inputs = list(nodes), {key: tuple(shape) for key, shape in inputs.items()}
        self._check_names()
        self.losses = [node.name for node in self.nodes if node.layer.is_loss]
        self.output = output or next(node.name for node in reversed(self.nodes) if not node.layer.is_loss)
        self.params: dict[str, Param] = {}
        with ThreadPoolExecutor() as pool:                  # each draws by its own name, and lets go of Python's lock
            once = {id(node.layer): node for node in self.nodes}.values()
            list(pool.map(lambda node: node.layer.init_params(node.name, seed, dtype), once))
        for node in self.nodes:
            for param in node.layer.params.values():
                param.data = self.ops.from_host(param.data)
                self.params[param.name] = param
        self._frozen: set[str] = set()
        self._plans: dict[tuple, tuple[int, Plan]] = {}
        self._arena = None
        self._run: tuple | None = None                      # what the last forward left for backward
        self.moves = 0                                      # how often arrays may have come to lie elsewhere
        self._calls = 0
        self._plan(1, [self.output], (), grad=False)        # finds shape errors now, not at the first batch
        self._plans.clear()

    def _check_names(self) -> None:
        known = {*self.inputs, LABELS}
        for node in self.nodes:
            if node.name in known:
                raise ConfigError(f"layer {node.name!r}: the name is taken; every layer needs its own")
            for source in node.inputs:
                if source not in known:
                    raise ConfigError(f"layer {node.name!r} reads {source!r}, which no layer before it is called")
            known.add(node.name)

    # ---- what it is
    @property
    def num_params(self) -> int:
        """Number of trained values."""
        return sum(param.data.size for param in self.params.values())

    @property
    def output_params(self) -> list[str]:
        """Names of the parameters of the output layer."""
        node = next(node for node in self.nodes if node.name == self.output)
        return [param.name for param in node.layer.params.values()]

    @property
    def layers_with_weights(self) -> list[str]:
        """Names of the layers that have parameters, those of all ranks together."""
        return list(dict.fromkeys(layer_of(name) for name in self.params))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return next(iter(self.inputs.values()))

    @property
    def num_classes(self) -> int:
        """Width of the output."""
        plan = self._plan(1, [self.output], (), grad=False)
        return plan.values[plan.where[self.output]].shape[-1]

    def summary(self, batch: int = 1) -> str:
        """A table of the layers: output shape, parameters, multiply-adds, bytes, and what runs them."""
        from minicnn.summary import summarize
        return summarize(self, batch)

    def memory(self, batch: int, train: bool = True) -> int:
        """Bytes that a step needs: activations, gradients and, for training, weights three times (w, dw, velocity)."""
        outputs = self.losses + [self.output] if train else [self.output]
        plan = self._compile(batch, outputs, (), grad=train)
        outside = sum(storage.nbytes for storage in plan.storages if storage.outside)
        weights = self.num_params * np.dtype(self.dtype).itemsize
        return plan.arena_bytes + outside + weights * (3 if train else 1)

    # ---- running
    def forward(self, x, train: bool = False, *, grad: bool | None = None, keep: Iterable[str] = (),
                sample_ids=None, epoch: int | None = None):
        """Logits (N, classes) of the images x (N, H, W, C), as a copy.

        x: an array, or a dict of arrays for a network of several inputs.   train: dropout drops.   grad: keep what
        `backward(dy)` needs (default: as `train`).   keep: layers whose output `activation(name)` is to give back.
        sample_ids (N,), epoch: the counter of the random numbers; by default 0..N-1, and a count of the calls.
        """
        given = self._check_inputs(x, None)
        self._forward(given, [self.output], train, train if grad is None else grad, tuple(keep),
                      *self._counters(given, train, sample_ids, epoch))
        return self.logits

    def loss(self, x, labels, train: bool = True, *, grad: bool | None = None, keep: Iterable[str] = (),
             sample_ids=None, epoch: int | None = None) -> float:
        """Sum over the loss nodes of weight * mean loss, for labels (N,); `backward()` may follow. See `forward`."""
        given = self._check_inputs(x, labels)
        self._forward(given, self._outputs(train), train, train if grad is None else grad, tuple(keep),
                      *self._counters(given, train, sample_ids, epoch))
        return self.mean_loss(self.last_losses())

    def start_loss(self, x, labels, *, sample_ids, epoch) -> None:
        """`loss` in training, without waiting for its value: what can be recorded. `tally` and `backward` may follow.

        x, labels (int32) and sample_ids (uint32) must be arrays of the backend's, and are not checked.
        """
        self._forward({next(iter(self.inputs)): x, LABELS: labels}, self._outputs(True), True, True, (), sample_ids,
                      epoch)

    def tally(self, tally) -> None:
        """Add images, losses and hits of the last loss to `tally`; see kernels/reference/running_metrics.py."""
        plan, arrays = self._last
        for weight, losses in self.last_losses():
            self.ops.count_losses(losses, tally, weight=weight)
        self.ops.count_correct(arrays[plan.where[self.output]], arrays[plan.where[LABELS]], tally)

    def _outputs(self, train: bool) -> list[str]:
        """The nodes that a loss is made of, and the one that it judges."""
        losses = [node.name for node in self.nodes if node.layer.is_loss and (train or not node.layer.train_only)]
        if not losses:
            raise ConfigError(f"network {self.name!r} has no loss; end it with SoftmaxCrossEntropy, or use forward")
        return [*losses, self.output]

    def last_losses(self) -> list[tuple[float, object]]:
        """Weight and losses (N,) of each loss node of the last run; overwritten by the next."""
        plan, arrays = self._last
        return [(step.node.layer.weight, arrays[step.y]) for step in plan.steps if step.node.layer.is_loss]

    def mean_loss(self, losses: list[tuple[float, object]]) -> float:
        """The loss that `last_losses` make up."""
        return float(sum(weight * self.ops.to_host(array).mean(dtype=np.float64) for weight, array in losses))

    def backward(self, dy=None, *, input_grad: bool = False, accumulate: bool = False, loss_scale=None):
        """Gradients of the last `loss`, or of sum(logits * dy) after the last `forward`, into `params[...].grad`.

        They are zeroed first unless `accumulate`. With `input_grad`, returns the gradient by the images.
        loss_scale: the state of kernels/reference/loss_scale.py, whose power of two all gradients are multiplied with.
        """
        if self._run is None:
            raise ConfigError("backward needs a forward pass before it: call loss(...), or forward(x, train=True)")
        (plan, arrays, context), self._run = self._run, None
        context.loss_scale = loss_scale
        has_loss = any(step.node.layer.is_loss for step in plan.steps)
        if has_loss != (dy is None):
            raise ConfigError("backward takes dy after forward, and nothing after loss" if has_loss else
                              f"backward after forward needs dy, the gradient by the {self.output!r} output")
        if not accumulate:
            for param in self.params.values():
                param.zero_grad()
        if dy is not None:
            target = arrays[next(step.dy for step in plan.steps if step.y == plan.where[self.output])]
            if tuple(dy.shape) != tuple(target.shape):
                raise ShapeError(f"dy must have the shape of the output, {tuple(target.shape)}, got {tuple(dy.shape)}")
            target[...] = dy
        input_grads: dict[str, object] = {}
        for step in reversed(plan.steps):
            if (step.dy is None and not step.node.layer.is_loss) or not (step.trains or input_grad):
                continue
            wanted = [value is not None and (input_grad or value in plan.trained) for value in step.dxs]
            dxs = [arrays[value] if want else None for value, want in zip(step.dxs, wanted, strict=True)]
            sums = [(arrays[part], arrays[whole]) for part, whole in step.sums if input_grad or part in plan.trained]
            for position, name in step.input_dxs.items() if input_grad else ():
                dxs[position] = self.ops.empty(arrays[step.xs[position]].shape, self.dtype)
                if name in input_grads:
                    sums.append((dxs[position], input_grads[name]))
                input_grads.setdefault(name, dxs[position])
            dy_array = None if step.dy is None else arrays[step.dy]
            if not step.node.layer.is_view:
                context.relu, context.purpose = step.relu, purpose_id(step.node.name)
                context.work = None if step.work_back is None else arrays[step.work_back]
                step.node.layer.backward(context, dy_array, self._saved(step, plan, arrays), dxs)
            elif step.input_dxs and input_grad:
                dxs[0][...] = dy_array.reshape(dxs[0].shape)
            self._gradients_done(step.node)
            for part, whole in sums:
                self.ops.accumulate(part, whole)
        if input_grad:
            return input_grads[next(iter(self.inputs))] if len(self.inputs) == 1 else input_grads
        return None

    def freeze(self, layers: Iterable[str]) -> None:
        """Backward passes leave out these layers, and all before them that only they need; replaces an earlier call."""
        layers = set(layers)
        if unknown := sorted(layers - set(self.layers_with_weights)):
            raise ConfigError(f"network {self.name!r} has no layer with weights called {unknown[0]!r} to freeze")
        self._frozen = layers
        self._plans.clear()
        self.moves += 1

    def _gradients_done(self, node: Node) -> None:
        """Called by `backward` when the gradients of this layer's parameters are complete."""

    @property
    def logits(self):
        """The output of the last run, as a copy."""
        plan, arrays = self._last
        return arrays[plan.where[self.output]].copy()

    def activation(self, name: str):
        """Output of a layer in the last run, which must have had it in `keep`. Overwritten by the next run."""
        plan, arrays = self._last
        if name not in plan.pinned:
            raise ConfigError(f"the activation of {name!r} was not kept; pass keep=({name!r},) to forward or loss")
        return arrays[plan.where[name]]

    def forget(self, keep: Iterable[str]) -> None:
        """Free what forward passes with this `keep` hold in memory; the next one plans anew."""
        for key in [key for key in self._plans if key[1] == tuple(keep)]:
            del self._plans[key]

    def _forward(self, given, outputs, train, grad, keep, sample_ids, epoch):
        """given: input -> array on the device; sample_ids and epoch as in Context."""
        batch = len(next(iter(given.values())))
        plan = self._plan(batch, outputs, keep, grad)
        if self._arena is None or self._arena.size < plan.arena_bytes:
            self._arena = None                              # free the old one before the new one is taken
            for _, other in self._plans.values():
                other.forget_arrays()
            self._arena = self.ops.empty((plan.arena_bytes,), "uint8")
            self.moves += 1
        arrays = plan.arrays(batch, self._arena)
        for name, value in plan.input_values.items():
            arrays[value] = given[name]
        context = Context(self.ops, train, self.seed, epoch, sample_ids)
        self._run = None
        for step in plan.steps:
            xs = [arrays[value] for value in step.xs]
            if step.node.layer.is_view:
                arrays[step.y] = xs[0].reshape(len(xs[0]), *plan.values[step.y].shape[1:])
                continue
            context.relu, context.purpose = step.relu, purpose_id(step.node.name)
            context.work = None if step.work is None else arrays[step.work]
            step.node.layer.forward(context, xs, arrays[step.y], self._saved(step, plan, arrays))
        self._last = (plan, arrays)
        if grad:
            self._run = (plan, arrays, context)
        return plan, arrays

    @staticmethod
    def _saved(step, plan, arrays) -> dict:
        xs = [arrays[value] for value in step.xs]
        saved = {"in_shapes": [tuple(x.shape) for x in xs]}
        if "x" in step.saves:
            saved["x"] = xs[0]
        if "xs" in step.saves:
            saved["xs"] = xs
        if "y" in step.saves:
            saved["y"] = arrays[step.y]
        saved.update({name: arrays[value] for name, value in step.buffers.items()})
        return saved

    def _check_inputs(self, x, labels) -> dict:
        given = dict(x) if isinstance(x, dict) else {next(iter(self.inputs)): x}
        if set(given) != set(self.inputs):
            raise ShapeError(f"network {self.name!r} has inputs {sorted(self.inputs)}, got {sorted(given)}")
        batch = None
        for name, shape in self.inputs.items():
            array = given[name]
            if getattr(array, "ndim", 0) != len(shape) + 1 or tuple(array.shape[1:]) != shape or array.shape[0] < 1:
                raise ShapeError(f"input {name!r} of network {self.name!r} must be (N, {', '.join(map(str, shape))}) "
                                 f"with N >= 1, got {tuple(getattr(array, 'shape', ()))}")
            if str(array.dtype) != self.dtype:
                raise ShapeError(f"input {name!r} of network {self.name!r} must be {self.dtype}, got {array.dtype}; "
                                 f"convert it with x.astype({self.dtype!r})")
            if batch not in (None, array.shape[0]):
                raise ShapeError(f"the inputs of network {self.name!r} have different batch sizes")
            batch = array.shape[0]
            given[name] = self.ops.from_host(array) if isinstance(array, np.ndarray) else array
        if labels is not None:
            labels = np.asarray(labels)
            self.check_labels(labels, batch)
            given[LABELS] = self.ops.from_host(labels.astype(np.int32))
        return given

    def check_labels(self, labels: np.ndarray, count: int) -> None:
        """ShapeError unless these are `count` classes of this network."""
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise ShapeError(f"labels must be {count} integers, one per image, got {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ShapeError(f"labels must lie in 0..{self.num_classes - 1}, got {labels.min()}..{labels.max()}")

    def _counters(self, given: dict, train: bool, sample_ids, epoch) -> tuple:
        """sample_ids (on the device) and epoch, or what stands for them where they are None."""
        batch = len(next(iter(given.values())))
        if sample_ids is None:
            sample_ids = np.arange(batch, dtype=np.uint32)
        elif len(sample_ids) != batch:
            raise ShapeError(f"sample_ids must have one entry per image, {batch}, got {len(sample_ids)}")
        if epoch is None:
            epoch = self._calls
            self._calls += train
        return self.ops.from_host(np.ascontiguousarray(sample_ids, np.uint32)), epoch

    def _plan(self, batch, outputs, keep, grad) -> Plan:
        key = (tuple(outputs), tuple(keep), grad)
        if key not in self._plans or self._plans[key][0] < batch:
            self._plans[key] = (batch, self._compile(batch, outputs, keep, grad))
            self.moves += 1
        return self._plans[key][1]

    def _compile(self, batch, outputs, keep, grad) -> Plan:
        unknown = set(keep) - {node.name for node in self.nodes}
        if unknown:
            raise ConfigError(f"keep names {sorted(unknown)}, but network {self.name!r} has no such layer")
        inputs = {name: ((batch, *shape), self.dtype) for name, shape in self.inputs.items()}
        inputs[LABELS] = ((batch,), "int32")
        try:
            return Plan(self.nodes, inputs, outputs, ops=self.ops, dtype=self.dtype, grad=grad, fuse=self.fuse,
                        keep=keep, frozen=self._frozen)
        except MinicnnError as error:
            raise type(error)(f"network {self.name!r}, {error}") from None

    # ---- weights
    def save(self, path, metadata: dict[str, str] | None = None) -> None:
        """Write the parameters as safetensors: beside `path` first, then renamed, so that no file is half there."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        whole = self.ranks.gather({name: param.data for name, param in self.params.items()})
        if not self.ranks.is_main:
            return
        tensors = {name: np.ascontiguousarray(array) for name, array in whole.items()}
        try:
            save_file(tensors, beside, {"format": "minicnn", "net": self.name, **(metadata or {})})
            os.replace(beside, path)
        except (OSError, SafetensorError) as error:
            beside.unlink(missing_ok=True)
            raise CheckpointError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}; make room "
                                  "or choose another folder") from error

    def load(self, path) -> None:
        """Read parameters from a file of `save`, or from a checkpoint of a run. Nothing is changed unless all fit."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        if not Path(path).is_file():
            raise CheckpointError(f"no such file: {path}")
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file (cut short?): {error}") from None
        own = {name: array for name, array in tensors.items() if "/" not in name}     # not velocity/..., data/...
        self.load_arrays(own, str(path))

    def load_arrays(self, tensors: dict[str, np.ndarray], source: str = "the given arrays") -> None:
        """Set the parameters from arrays by name. Nothing is changed unless all of them fit."""
        for name, param in self.params.items():
            if name not in tensors:
                raise CheckpointError(f"{source} is of another network: it has no {name!r}")
            if tuple(tensors[name].shape) != tuple(param.data.shape):
                raise CheckpointError(f"{source} is of another network: {name!r} is {tuple(tensors[name].shape)} there "
                                      f"and {tuple(param.data.shape)} here")
        extra = set(tensors) - set(self.params)
        if extra:
            raise CheckpointError(f"{source} is of another network: it also has {sorted(extra)[0]!r}")
        for name, param in self.params.items():
            param.data[...] = self.ops.from_host(tensors[name].astype(self.dtype, copy=False))

    def __repr__(self) -> str:
        return f"Net({self.name!r}, {len(self.nodes)} layers, {self.num_params:,} parameters, {self.ops.spec})"
