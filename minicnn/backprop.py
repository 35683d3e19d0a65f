"""One backward pass through a planned network: from the losses, from the output, or from any layer.

The plan assigns memory to each gradient, and the step that writes it first (minicnn/plan.py). A pass that starts at an
inner layer skips the layers after it, so written gradients are tracked: a step runs once its dy has been written, and
the first write to a gradient overwrites instead of accumulating.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from minicnn.errors import ConfigError, ShapeError, expected
from minicnn.layers.activation import ReLU
from minicnn.layers.base import Context, Layer
from minicnn.layers.combine import Add
from minicnn.layers.pool import MaxPool2d
from minicnn.plan import Node, Plan, Step
from minicnn.rng import purpose_id

# A rule replaces a layer's backward: rule(layer, dy, saved) -> dx, or a list with one dx per input. saved is what the
# layer's own backward receives, plus "y" where the following ReLU is fused.
Rule = Callable[[Layer, object, dict], object]


class BackwardPass:
    """A backward pass through `plan`, whose forward pass has filled `arrays`.

    rules: kind of layer -> replacement for its backward.   input_grad: also compute gradients of the network's inputs.
    wrt: nodes whose gradients are returned.   start: the node at which the pass starts, None for the losses.
    """

    def __init__(self, plan: Plan, arrays: list, context: Context, *, rules: Mapping | None = None,
                 input_grad: bool = False, wrt: tuple[str, ...] = (), start: str | None = None):
        self.plan, self.arrays, self.context, self.ops = plan, arrays, context, plan.ops
        self.rules = rules_by_kind(rules or {})
        if self.rules and plan.stored != plan.dtype:
            raise ConfigError(f"rules compute with arrays of {plan.dtype}, and this forward pass stored activations in "
                              f"bf16; run trace instead, which stores {plan.dtype}, or use device {plan.ops.name!r}")
        self.input_grad, self.wrt, self.start = input_grad, wrt, start
        self.everything = input_grad or bool(wrt)           # not only gradients needed for trained parameters
        self.input_grads: dict[str, object] = {}            # network input -> its gradient
        self.grads: dict[str, object] = {}                  # node of `wrt` -> a copy of its gradient
        self._written: set[int] = set()                     # gradients computed so far, indices into plan.values
        self._again: set[int] = set()                       # values of forward that have been computed again
        self._ended: set[str] = set()                       # nodes whose epilogue the step behind them has ended with

    def begin(self, dy) -> None:
        """Set the gradient of the start node to dy."""
        plan = self.plan
        if self.start not in plan.where or plan.where[self.start] not in plan.gradient:
            raise ConfigError(f"backward cannot start at {self.start!r}: the last forward pass did not compute it with "
                              "gradients; expected one of " + ", ".join(
                                  name for name, value in plan.where.items() if value in plan.gradient))
        value = plan.gradient[plan.where[self.start]]
        target = self.arrays[value]
        if shape_of(dy) != tuple(target.shape):
            raise ShapeError(f"dy must have the shape of the output of {self.start!r}, {tuple(target.shape)}, got "
                             f"{shape_of(dy)}")
        self.ops.write(target, dy)
        self._written.add(value)

    def run(self, done: Callable[[Node], None]) -> None:
        """done(node) is called when the gradients of its parameters are complete."""
        for step in reversed(self.plan.steps):
            ready = self.start is None if step.node.layer.is_loss else step.dy in self._written
            if ready and (step.trains or self.everything):
                self._step(step)
                done(step.node)

    def result(self):
        """What `Net.backward` returns: gradients by name where `wrt` asks for them, those of the inputs, or None."""
        if missing := [name for name in self.wrt if name not in self.grads]:
            raise ConfigError(f"wrt names {missing[0]!r}, which the gradient does not reach")
        inputs = {name: self.ops.widened(array) for name, array in self.input_grads.items()}
        if self.wrt:
            return self.grads | inputs
        if self.input_grad:
            return next(iter(inputs.values())) if len(inputs) == 1 else inputs
        return None

    def _step(self, step: Step) -> None:
        arrays, plan = self.arrays, self.plan
        wanted = [value is not None and (self.everything or value in plan.trained) for value in step.dxs]
        # A pass that starts before the fused Add does not reach its other value.
        skipped = len(step.xs) - 1 if step.add and step.node.name == self.start else None
        if skipped is not None:
            wanted[skipped] = False
        dxs = [arrays[value] if want else None for value, want in zip(step.dxs, wanted, strict=True)]
        sums = [(part, whole) for part, whole in step.sums if (self.everything or part in plan.trained)
                and (skipped is None or part != step.dxs[skipped])]
        more = self._input_targets(step, dxs, skipped)
        dy = None if step.dy is None else arrays[step.dy]
        if step.node.layer.is_view:
            self._keep(dy, step.node.name)
            if step.input_dxs and self.input_grad:
                dxs[0][...] = dy.reshape(dxs[0].shape)
        else:
            self._layer(step, dy, dxs)
        parts = {part for part, _ in sums}
        self._written.update(value for value, want in zip(step.dxs, wanted, strict=True) if want and value not in parts)
        for part, whole in sums:
            if whole in self._written:
                self.ops.accumulate(arrays[part], arrays[whole])
            else:                                           # the step that writes it first was skipped
                arrays[whole][...] = arrays[part]
                self._written.add(whole)
        for part, whole in more:
            self.ops.accumulate(part, whole)

    def _input_targets(self, step: Step, dxs: list, skipped: int | None) -> list[tuple]:
        """Allocate gradients of network inputs in dxs; returns the (part, whole) pairs to accumulate."""
        more = []
        for position, name in step.input_dxs.items() if self.input_grad else ():
            if position == skipped:
                continue
            dxs[position] = self.ops.empty(self.arrays[step.xs[position]].shape, self.plan.stored)
            if name in self.input_grads:
                more.append((dxs[position], self.input_grads[name]))
            self.input_grads.setdefault(name, dxs[position])
        return more

    def _layer(self, step: Step, dy, dxs: list) -> None:
        """The backward passes of a step's nodes; fused ones run separately where a gradient or rule is requested."""
        layer, saved, context = step.node.layer, step.saved(self.arrays), self.context
        if step.source and step.again not in self._again:
            self._compute_again(step.source, saved["x"])
            self._again.add(step.again)
        names = [step.node.name, *(node.name for node in step.fused)]
        names = names[:names.index(self.start) + 1] if self.start in names else names       # those that run
        rule, relu = self.rules.get(type(layer)), step.relu and step.fused[-1].name in names
        inner = names[:-1] if relu else names               # those before the ReLU
        if step.gone and relu and (self.rules or self.wrt):         # what follows may read it
            self._compute_again(step, made := self.ops.empty(dy.shape, self.plan.stored))
            saved["y"] = made
        if relu:
            self._keep(dy, names[-1])
            if rule or not self.rules.keys().isdisjoint((ReLU, Add)) or {*inner}.intersection(self.wrt):
                self._relu(step, dy, saved)
                relu = False
        if step.add and step.add.name in names:
            self._keep(dy, step.add.name)
            if rule or Add in self.rules:
                dy, dxs = self._add(step, dy, dxs), [*dxs[:-1], None]
        if step.pool:
            self._keep(dy, step.pool.name)
            if rule or MaxPool2d in self.rules:
                dy = self._pool(step, dy, saved)
        self._keep(dy, step.node.name)
        if rule and not layer.is_loss:
            found = rule(layer, dy, saved)
            _write(layer, found if isinstance(found, (list, tuple)) else [found], dxs[:-1] if step.add else dxs)
            return
        context.relu, context.purpose, context.frozen = relu, purpose_id(step.node.name), step.frozen
        context.work = None if step.work_back is None else self.arrays[step.work_back]
        context.pool = step.pool.layer if step.pool and not self.rules.keys() & {MaxPool2d} else None
        context.epilogue_done = step.node.name in self._ended
        context.before = self._before(step, dxs)
        layer.backward(context, dy, saved, dxs)

    def _compute_again(self, step: Step, y) -> None:
        """Write the output of a step once more."""
        context = self.context
        context.relu, context.purpose, context.frozen = step.relu, purpose_id(step.node.name), step.frozen
        context.work = None
        step.node.layer.compute_again(context, step.saved(self.arrays), y)

    def _before(self, step: Step, dxs: list) -> dict:
        """Context.before: nothing where the gradient of a node of that step is requested, or a rule changes it."""
        before = step.before
        if before is None or dxs[0] is None:
            return {}
        names = [before.node.name, *(node.name for node in before.fused)]
        if {*names}.intersection(self.wrt) or self.start in names or not self.rules.keys().isdisjoint(
                (type(before.node.layer), ReLU)):
            return {}
        self._ended.add(before.node.name)
        bias = None if before.frozen else before.node.layer.params.get("b")
        db, add = (None, True) if bias is None else bias.grad_to_fill()
        return {"db": db, "relu": before.relu, "add": add}

    def _pool(self, step: Step, dy, saved: dict):
        """The gradient in front of a fused MaxPool2d, which runs separately."""
        layer, dx = step.pool.layer, self.ops.empty((len(dy), *step.own_shape[1:]), self.plan.stored)
        of_pool = {**saved, "in_shapes": [tuple(dx.shape)]}
        if rule := self.rules.get(MaxPool2d):
            _write(layer, [rule(layer, dy, of_pool)], [dx])
        else:
            layer.backward(self.context, dy, of_pool, [dx])
        return dx

    def _relu(self, step: Step, dy, saved: dict) -> None:
        """The backward pass of a fused ReLU alone, in place."""
        layer = step.fused[-1].layer
        if rule := self.rules.get(ReLU):
            _write(layer, [rule(layer, dy, {"y": saved["y"], "in_shapes": [tuple(dy.shape)]})], [dy])
        else:
            self.ops.relu_backward(saved["y"], dy, dy)

    def _add(self, step: Step, dy, dxs: list):
        """The backward pass of a fused Add alone: writes the gradient of its other value, dxs[-1], and returns that of
        this step's."""
        own, other = dy.copy(), None if dxs[-1] is None else dy.copy()
        if rule := self.rules.get(Add):
            parts = [own, other] if step.add.inputs[0] == step.node.name else [other, own]
            _write(step.add.layer, rule(step.add.layer, dy, {"in_shapes": [tuple(dy.shape)] * 2}), parts)
        if other is not None:
            dxs[-1][...] = other
        return own

    def _keep(self, dy, name: str) -> None:
        if name in self.wrt:
            self.grads[name] = self.ops.widened(dy).copy()


def _write(layer: Layer, found: list, dxs: list) -> None:
    """Check the gradients that a rule returned and copy them to dxs."""
    if len(found) != len(dxs):
        raise ShapeError(f"the rule for {type(layer).__name__} must return a gradient for each of its {len(dxs)} "
                         f"inputs, got {len(found)}")
    for value, dx in zip(found, dxs, strict=True):
        if dx is not None:
            if shape_of(value) != tuple(dx.shape):
                raise ShapeError(f"the rule for {type(layer).__name__} must return a gradient of shape "
                                 f"{tuple(dx.shape)}, got {shape_of(value)}")
            dx[...] = value


def shape_of(array):
    """The shape of an array; in words, what something else is."""
    return tuple(array.shape) if hasattr(array, "shape") else f"a {type(array).__name__}, which is no array"


def rules_by_kind(rules: Mapping) -> dict[type[Layer], Rule]:
    """Class -> rule, from classes or their names. ConfigError for a kind that does not exist."""
    found = {}
    for kind, rule in rules.items():
        cls = Layer.KINDS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(cls, type) and issubclass(cls, Layer)):
            raise ConfigError(f"rules name {kind!r}, which is not a kind of layer; {expected(str(kind), Layer.KINDS)}")
        found[cls] = rule
    return found
