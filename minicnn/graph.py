"""A network: a directed acyclic graph of named layers, planned once, then run without memory allocation.

    loader -> augment -> net.forward -> layer.forward -> ops.conv_forward -> kernel; backward in reverse order.

Shapes are static: the first call plans for its batch size (minicnn/plan.py), and smaller batches use the first rows of
the same arrays. The network holds the activations; the layers hold their parameters and state. A network owns its
layers: it copies the layers it is given, so that no two networks share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from minicnn import description, weights
from minicnn.backend.select import get_ops
from minicnn.backprop import BackwardPass
from minicnn.checks import check_ids, check_inputs, check_names, check_output, check_values, no_attribute, unknown_layer
from minicnn.errors import ConfigError, MinicnnError
from minicnn.layers.base import Context, Layer, stored_dtype
from minicnn.param import Named, Param, layer_of
from minicnn.plan import LABELS, Node, Plan, copied
from minicnn.ranks import SingleProcess
from minicnn.rng import purpose_id
from minicnn.trace import names_of, trace


class Net:
    """A network of layers.

    nodes: in topological order; the input "labels" is the (N,) integers given to `loss`. Layers are copied; nodes that
    share a layer share its copy, so tied layers stay tied.
    inputs: name -> shape of one image (H, W, C); the first is the input of `forward`.
    output: the node whose value `forward` returns; by default the last node that is not a loss.
    dtype: "float32", or "float64" for gradient checks.   device: see backend.select.get_ops.
    fuse: False runs every layer separately.
    values: name -> array, initial parameters and state ("state/bn.mean") to use instead of drawing; see `arrays`.
    """

    def __init__(self, nodes: Sequence[Node], inputs: dict[str, tuple[int, ...]], *, output: str | None = None,
                 seed: int = 0, dtype: str = "float32", device: str = "auto", fuse: bool = True, name: str = "net",
                 values: Mapping[str, np.ndarray] | None = None):
        if dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype must be float32 or float64, got {dtype!r}")
        self.name, self.seed, self.dtype, self.fuse = name, seed, dtype, fuse
        self.ops = get_ops(device)
        self.ranks = SingleProcess(self.ops)
        check_names(nodes, inputs)
        self.nodes, self.inputs = copied(nodes), {key: tuple(shape) for key, shape in inputs.items()}
        self.losses = [node.name for node in self.nodes if node.layer.is_loss]
        self.output = check_output(output, self.nodes)
        self.params: dict[str, Param] = Named("parameter")
        self.state: dict[str, object] = Named("state")
        self._init_params(values)
        check_values(values, self.arrays())
        self._frozen: set[str] = set()
        self._plans: dict[tuple, tuple[int, Plan]] = {}
        self._arena = None
        self._run: tuple | None = None                      # saved by the last forward pass for backward
        self.memory_version = 0                             # incremented when arrays may have been reallocated
        self._calls = 0
        self.plan_for(1, [self.output], (), grad=False)        # raises shape errors here, not at the first batch
        self._plans.clear()

    def _init_params(self, values) -> None:
        first = {id(node.layer): node for node in reversed(self.nodes)}
        with ThreadPoolExecutor() as pool:                  # seeded by name, and NumPy releases the GIL
            list(pool.map(lambda node: node.layer.init_params(node.name, self.seed, self.dtype, values),
                          first.values()))
        for node in self.nodes:
            if first[id(node.layer)] is not node:
                continue
            for param in node.layer.params.values():
                param.data = self.ops.from_host(param.data)
                self.params[param.name] = param
            for local, array in node.layer.state.items():
                self.state[f"{node.name}.{local}"] = node.layer.state[local] = self.ops.from_host(array)

    # ---- properties
    @property
    def num_params(self) -> int:
        """Number of trainable parameters."""
        return sum(param.data.size for param in self.params.values())

    @property
    def output_params(self) -> list[str]:
        """Names of the parameters of the output layer: of the last one before the output that has any."""
        nodes, name = {node.name: node for node in self.nodes}, self.output
        while name in nodes and not nodes[name].layer.params:
            name = nodes[name].inputs[0]
        return [param.name for param in nodes[name].layer.params.values()] if name in nodes else []

    @property
    def layers_with_weights(self) -> list[str]:
        """Names of the layers that have parameters, over all ranks."""
        return list(dict.fromkeys(layer_of(name) for name in self.params))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return next(iter(self.inputs.values()))

    @property
    def num_classes(self) -> int:
        """Number of outputs per image."""
        plan = self.plan_for(1, [self.output], (), grad=False)
        return plan.shapes[self.output][-1]

    def __getattr__(self, name: str):
        raise AttributeError(no_attribute(name, vars(self).get("nodes", ())))

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name; net["conv1"].params["w"] is net.params["conv1.w"]."""
        for node in self.nodes:
            if node.name == name:
                return node.layer
        raise unknown_layer(name, self.nodes)

    def summary(self, batch: int = 1) -> str:
        """A table of the layers: output shape, parameters, multiply-adds, backend; memory below."""
        from minicnn.summary import summarize
        return summarize(self, batch)

    def description(self) -> dict:
        """The network as JSON-serialisable data, without weights: see minicnn/description.py."""
        return description.describe(self)

    @classmethod
    def from_description(cls, data: dict, **options) -> Net:
        """A network built from a `description`.   options: device, seed, dtype, fuse, values, as for Net."""
        return cls(**description.parts_of(data), **options)

    def memory(self, batch: int, train: bool = True) -> int:
        """Bytes for one step: activations, gradients and, for training, the weights three times (w, dw, velocity)."""
        from minicnn.summary import memory
        return memory(self, batch, train)

    # ---- derived networks
    def copy(self, *, device: str | None = None, seed: int | None = None, dtype: str | None = None,
             fuse: bool | None = None) -> Net:
        """An independent copy with the same weights and state; with `seed`, newly initialised ones."""
        return description.rebuilt(self, self.nodes, device=device, seed=seed, dtype=dtype, fuse=fuse)

    def __deepcopy__(self, memo) -> Net:
        """copy(): the arrays of its runs cannot be copied one by one, since they share memory."""
        return self.copy()

    def replace(self, name: str, layer: Layer) -> Net:
        """A copy with another layer under this name; all other layers keep their weights and state.

        The new layer keeps its weights if it has any, as a layer of a network does; else this net's seed is used.
        """
        self[name]
        nodes = [replace(node, layer=layer) if node.name == name else node for node in self.nodes]
        return description.rebuilt(self, nodes)

    # ---- running
    def forward(self, x, train: bool = False, *, grad: bool | None = None, keep: str | Iterable[str] = (),
                sample_ids=None, epoch: int | None = None):
        """Logits (N, classes) of the images x (N, H, W, C), as a copy; net(x) is the same.

        x: an array, or a dict of arrays for several inputs.   train: training mode, with dropout and updates of state.
        grad: keep what `backward(dy)` needs (default: `train`).   keep: layers whose output `activation(name)` returns.
        sample_ids (N,), epoch: counter of the random numbers; by default 0..N-1 and the number of training calls.
        """
        given = check_inputs(self, x, None)
        self._forward(given, [self.output], train, train if grad is None else grad, names_of(keep),
                      *self.counters(given, train, sample_ids, epoch))
        return self.logits

    def __call__(self, *args, **options):
        return self.forward(*args, **options)

    def loss(self, x, labels, train: bool = True, *, grad: bool | None = None, keep: str | Iterable[str] = (),
             sample_ids=None, epoch: int | None = None, stored: bool = False) -> float:
        """Sum over the loss nodes of weight * mean loss, for labels (N,); `backward()` may follow. See `forward`.

        stored: x has the dtype in which activations are stored, in place of the network's.
        """
        given = check_inputs(self, x, labels, stored_dtype(self.nodes, self.dtype, self.ops) if stored else None)
        self._forward(given, self.loss_outputs(train), train, train if grad is None else grad, names_of(keep),
                      *self.counters(given, train, sample_ids, epoch))
        return self.mean_loss(self.last_losses())

    def trace(self, x, keep: str | Iterable[str] | None = None, saved: str | Iterable[str] = (), *, labels=None,
              train: bool = False, sample_ids=None, epoch: int | None = None) -> dict:
        """Outputs of layers for the input x, as a dict of backend arrays that the caller owns.

        keep: layers whose outputs are returned; all of them by default.   saved: layers whose arrays saved for backward
        are returned, or single arrays such as "pool1.argmax", the switches of a max-pool (for each output, the position
        of its maximum in the window, r * S + s).   labels: also run the losses.   State is not updated. `backward` may
        follow, with `start`, or with dy of the output. ConfigError for a layer that does not exist.
        """
        return trace(self, x, keep, saved, labels=labels, train=train, sample_ids=sample_ids, epoch=epoch)

    def start_loss(self, x, labels, *, sample_ids, epoch) -> None:
        """`loss` in training mode, without waiting for its value; can be captured as a CUDA graph.

        x, labels (int32), sample_ids (uint32): backend arrays, not checked. `count` and `backward` may follow.
        """
        self._forward({next(iter(self.inputs)): x, LABELS: labels}, self.loss_outputs(True), True, True, (), sample_ids,
                      epoch)

    def count(self, counts) -> None:
        """Add images, losses and correct predictions of the last `loss` to `counts`, a state of running_metrics."""
        plan, arrays = self._last
        for weight, losses in self.last_losses():
            self.ops.count_losses(losses, counts, weight=weight)
        self.ops.count_correct(arrays[plan.where[self.output]], arrays[plan.where[LABELS]], counts)

    def loss_outputs(self, train: bool) -> list[str]:
        """The loss nodes and the logits node."""
        losses = [node.name for node in self.nodes if node.layer.is_loss and (train or not node.layer.train_only)]
        if not losses:
            raise ConfigError(f"network {self.name!r} has no loss; end it with SoftmaxCrossEntropy, or use forward")
        return [*losses, self.output]

    def last_losses(self) -> list[tuple[float, object]]:
        """Weight and losses (N,) of each loss node of the last run; overwritten by the next."""
        plan, arrays = self._last
        return [(step.node.layer.weight, arrays[step.y]) for step in plan.steps if step.node.layer.is_loss]

    def mean_loss(self, losses: list[tuple[float, object]]) -> float:
        """The weighted mean loss of `last_losses`."""
        return float(sum(weight * self.ops.to_host(array).mean(dtype=np.float64) for weight, array in losses))

    def backward(self, dy=None, *, start: str | None = None, rules: Mapping | None = None, input_grad: bool = False,
                 wrt: str | Iterable[str] = (), accumulate: bool = False, loss_scale=None, updates=None):
        """Gradients of the last `loss`, or of sum(output * dy) after `forward` or `trace`, into `params[...].grad`.

        They are zeroed first unless `accumulate`. With `input_grad`, returns the gradient with respect to the images.
        start: dy is the gradient of this layer's output, and only the layers before it run.   wrt: also return the
        gradients of these layers' outputs, as a dict by name, including the inputs' if `input_grad`.
        rules: kind of layer (a class or its name) -> rule(layer, dy, saved), which returns dx in place of the layer's
        backward, as for deconvnet and guided backprop; parameters of such a layer get no gradient.
        loss_scale: the state of kernels/reference/loss_scale.py: all gradients are multiplied by its power of two.
        updates: from Optimiser.updates_within; parameters in it may be updated at once, and then have no gradient.
        """
        if self._run is None:
            raise ConfigError("backward needs a preceding forward pass: call loss(...), forward(x, train=True) or "
                              "trace(x)")
        plan, arrays, context = self._run
        context.loss_scale, wrt = loss_scale, names_of(wrt)
        if updates:
            context.updates, context.updated = updates.functions, updates.done
        has_loss = any(step.node.layer.is_loss for step in plan.steps)
        if start is None and has_loss != (dy is None) or start is not None and dy is None:
            raise ConfigError(f"backward from {start!r} needs dy, the gradient of its output" if start else
                              "backward takes dy after forward, and no dy after loss" if has_loss else
                              f"backward after forward needs dy, the gradient of the {self.output!r} output")
        if unknown := [name for name in wrt if name not in plan.where]:
            raise ConfigError(f"wrt names {unknown[0]!r}, which the last forward pass did not compute")
        backprop = BackwardPass(plan, arrays, context, rules=rules, input_grad=input_grad, wrt=wrt,
                                start=start or (None if has_loss else self.output))
        if dy is not None:
            backprop.begin(dy)
        self._run = None                                    # its arrays are about to be overwritten
        if not accumulate:
            for param in self.params.values():
                param.zero_grad()
        backprop.run(self._gradients_done)
        return backprop.result()

    def freeze(self, layers: str | Iterable[str]) -> None:
        """Train without these layers: their gradients, and those that only they need, are not computed; state is kept.

        (Those of batch normalisation are, in a pass that is needed anyway.) Replaces the effect of earlier calls.
        """
        layers = set(names_of(layers))
        if unknown := sorted(layers - set(self.layers_with_arrays)):
            raise ConfigError(f"network {self.name!r} has no layer with weights called {unknown[0]!r} to freeze")
        self._frozen = layers
        self._plans.clear()
        self.memory_version += 1

    @property
    def frozen_params(self) -> set[str]:
        """Names of the parameters of frozen layers."""
        return {param.name for node in self.nodes if node.name in self._frozen for param in node.layer.params.values()}

    @property
    def layers_with_arrays(self) -> list[str]:
        """Names of the layers that have parameters or state, over all ranks."""
        return list(dict.fromkeys([*self.layers_with_weights, *map(layer_of, self.state)]))

    def _gradients_done(self, node: Node) -> None:
        """Called by `backward` when the gradients of this layer's parameters are complete."""

    @property
    def logits(self):
        """The output of the last run, as a copy."""
        plan, arrays = self._last
        return self.ops.widened(arrays[plan.where[self.output]]).copy()

    def activation(self, name: str):
        """Output of a layer in the last run; it must have been in `keep`. Overwritten by the next run."""
        plan, arrays = self._last
        if name not in plan.pinned:
            raise ConfigError(f"the activation of {name!r} was not kept; pass keep={name!r} to forward or loss")
        return self.ops.widened(arrays[plan.where[name]])

    def forget(self, keep: str | Iterable[str]) -> None:
        """Free the memory of forward passes with this `keep`; the next such pass is planned again."""
        for key in [key for key in self._plans if key[1] == names_of(keep)]:
            del self._plans[key]

    def _forward(self, given, outputs, train, grad, keep, sample_ids, epoch):
        plan = self.plan_for(len(next(iter(given.values()))), outputs, keep, grad)
        return self.run_plan(plan, given, train, grad, sample_ids, epoch)

    def run_plan(self, plan: Plan, given: dict, train: bool, grad: bool, sample_ids, epoch, *,
                 update_state: bool | None = None, on_layer=None) -> list:
        """The forward pass: an array for each value of the plan.

        given: input -> array on the device.   sample_ids, epoch: as in Context.   update_state: default `train`.
        on_layer: called with (step, y, saved) after each layer, before a later one can overwrite them.
        """
        batch = len(next(iter(given.values())))
        if self._arena is None or self._arena.size < plan.arena_bytes:
            self._arena = None                              # free the old arena before the new one is allocated
            for _, other in self._plans.values():
                other.forget_arrays()
            self._arena = self.ops.empty((plan.arena_bytes,), "uint8")
            self.memory_version += 1
        arrays = plan.arrays(batch, self._arena)
        for name, value in plan.input_values.items():
            arrays[value] = plan.input(value, given[name], self._arena)
        context = Context(self.ops, train, self.seed, epoch, sample_ids)
        update_state = train if update_state is None else update_state
        self._run = None
        for step in plan.steps:
            xs = [arrays[value] for value in step.xs]
            if step.node.layer.is_view:
                arrays[step.y] = xs[0].reshape(len(xs[0]), *plan.values[step.y].shape[1:])
                continue
            context.relu, context.purpose = step.relu, purpose_id(step.node.name)
            context.pool = step.pool and step.pool.layer
            context.work = None if step.work is None else arrays[step.work]
            context.update_state, context.frozen = update_state and not step.frozen, step.frozen
            saved = step.saved(arrays)
            step.node.layer.forward(context, xs, arrays[step.y], saved)
            if on_layer is not None:
                on_layer(step, arrays[step.y], saved)
        self._last = (plan, arrays)
        if grad:
            self._run = (plan, arrays, context)
        return arrays

    def counters(self, given: dict, train: bool, sample_ids, epoch) -> tuple:
        """sample_ids (on the device) and epoch, with defaults where they are None."""
        if epoch is None:
            epoch = self._calls
            self._calls += train
        return self.ops.from_host(check_ids(sample_ids, len(next(iter(given.values()))))), epoch

    def plan_for(self, batch: int, outputs: Sequence[str], keep: Sequence[str], grad: bool) -> Plan:
        """The plan for at least this batch size, compiled at the first call."""
        key = (tuple(outputs), tuple(keep), grad)
        if key not in self._plans or self._plans[key][0] < batch:
            self._plans[key] = (batch, self.compile_plan(batch, outputs, keep, grad))
            self.memory_version += 1
        return self._plans[key][1]

    def compile_plan(self, batch: int, outputs: Sequence[str], keep: Sequence[str], grad: bool, **options) -> Plan:
        """A new plan for this (largest) batch size; see Plan, also for the options."""
        for name in keep:
            self[name]
        inputs = {name: ((batch, *shape), self.dtype) for name, shape in self.inputs.items()}
        inputs[LABELS] = ((batch,), "int32")
        try:
            return Plan(self.nodes, inputs, outputs, ops=self.ops, dtype=self.dtype, grad=grad, fuse=self.fuse,
                        keep=keep, frozen=self._frozen, **options)
        except MinicnnError as error:
            raise type(error)(f"network {self.name!r}, {error}") from None

    # ---- weights
    def arrays(self) -> dict:
        """Name -> array on the device, as saved in files: parameters, and state as "state/<name>"."""
        return weights.arrays_of(self)

    def save(self, path, metadata: dict[str, str] | None = None) -> None:
        """Write parameters and state as safetensors, atomically."""
        weights.save(self, path, metadata)

    def load(self, path) -> None:
        """Load a file written by `save`, or a checkpoint of a run. Nothing is changed if anything does not match."""
        weights.load(self, path)

    def load_arrays(self, tensors: Mapping[str, np.ndarray], source: str = "the given arrays") -> None:
        """Set parameters and state by name, as in `arrays`. Nothing is changed if anything does not match."""
        own = self.arrays()
        weights.check({name: array.shape for name, array in own.items()}, tensors, source)
        for name, array in own.items():
            array[...] = self.ops.from_host(tensors[name].astype(self.dtype, copy=False))

    def __repr__(self) -> str:
        return f"Net({self.name!r}, {len(self.nodes)} layers, {self.num_params:,} parameters, {self.ops.spec})"
