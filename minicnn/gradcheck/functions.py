"""A layer or a network as a scalar function of its tensors, for gradient checks.

LayerFunction and NetFunction have the same interface: `tensors` (name -> array that may be changed in place),
`evaluate()` (the terms whose sum is f, and the masks of this forward pass), `gradients()` (from the hand-written
backward) and `ops`. The masks come from `Layer.kinks`: the signs of a ReLU's outputs, the positions of a max-pool's
maxima. State is never updated, since the function would change with every call.
"""

from __future__ import annotations

import numpy as np

from minicnn.backend.ops import Ops
from minicnn.checks import check_inputs
from minicnn.layers.base import Context, Layer
from minicnn.rng import purpose_id


def _nan_filled(ops: Ops, shape, dtype):
    """An array filled with NaN (255 for integers), so that unwritten elements are detected."""
    return ops.from_host(np.full(shape, 255 if np.dtype(dtype).kind in "biu" else np.nan, dtype))


def _masks(ops: Ops, layer: Layer, y, saved: dict, relu: bool) -> list[bytes]:
    """The differentiable piece of a forward pass (Layer.kinks); relu: a ReLU is fused into the layer."""
    kinks = (*layer.kinks(y, saved), *((y > 0,) if relu else ()))
    return [np.ascontiguousarray(ops.to_host(kink)).tobytes() for kink in kinks]


class LayerFunction:
    """f = sum(dy * layer(xs)) of every input and parameter; for a loss layer f = weight * mean, as in a network."""

    def __init__(self, layer: Layer, in_shapes, ops: Ops, generator, train: bool, relu: bool, xs, labels):
        self.layer, self.ops = layer.copy(), ops
        layer = self.layer
        if xs is None:
            xs = [generator.standard_normal(shape) for shape in in_shapes]
        xs = [ops.from_host(np.array(x, np.float64)) for x in xs]
        self.inputs = dict(zip(["x"] if len(xs) == 1 else [f"x{i}" for i in range(len(xs))], xs, strict=True))
        layer.init_params("layer", 0, "float64")
        for param in layer.params.values():
            param.data = ops.from_host(generator.standard_normal(param.data.shape))
        layer.state = {local: ops.from_host(array + generator.random(array.shape))      # a variance stays positive
                       for local, array in layer.state.items()}
        self.tensors = self.inputs | {name: param.data for name, param in layer.params.items()}
        self.xs, N = xs, xs[0].shape[0]
        if layer.is_loss:
            labels = generator.integers(0, xs[0].shape[1], N) if labels is None else labels
            self.xs = [*xs, ops.from_host(np.asarray(labels, np.int32))]
        self.plan = layer.plan([x.shape for x in self.xs], "float64", ops)
        # ids neither sorted nor contiguous: a dropout mask depends on the image, not on its row
        ids = generator.permutation(3 * N)[:N].astype(np.uint32)
        self.ctx = Context(ops, train, 11, 3, ids, purpose_id("layer"), relu=relu)
        if layer.is_loss:
            self.dy = np.full(self.plan.out_shape, layer.weight / N)
        else:
            self.dy = generator.standard_normal(self.plan.out_shape)

    def forward(self):
        """(y, saved)."""
        if self.layer.is_view:
            return self.xs[0].reshape(self.plan.out_shape), {}
        y = _nan_filled(self.ops, self.plan.out_shape, "float64")
        saved = self.layer.saved_for(self.plan, self.ops, self.xs, y) | ({"y": y} if self.ctx.relu else {})
        for name, (shape, dtype) in (self.plan.buffers | self.plan.unbatched).items():
            saved[name] = _nan_filled(self.ops, shape, dtype)
        self.ctx.work = _nan_filled(self.ops, (self.plan.work,), "uint8") if self.plan.work else None
        self.layer.forward(self.ctx, self.xs, y, saved)
        return y, saved

    def evaluate(self):
        y, saved = self.forward()
        masks = [] if self.layer.is_view else _masks(self.ops, self.layer, y, saved, self.ctx.relu)
        return self.dy * self.ops.to_host(y), masks

    def gradients(self, generator, faults: list[str]) -> dict[str, np.ndarray]:
        """Name -> gradient on the host. Violations of the layer interface are added to `faults`."""
        to_host, params = self.ops.to_host, self.layer.params
        read_only = self.tensors | {f"its state {name!r}": array for name, array in self.layer.state.items()}
        before = {name: to_host(array).copy() for name, array in read_only.items()}
        y, saved = self.forward()
        if not np.isfinite(to_host(y)).all():
            faults.append("forward did not write all of y, or wrote NaN")
        offsets = {name: generator.standard_normal(param.data.shape) for name, param in params.items()}
        for name, param in params.items():
            param.grad[...] = self.ops.from_host(offsets[name])
        dxs = [_nan_filled(self.ops, x.shape, "float64") for x in self.inputs.values()]
        if self.layer.is_view:
            dxs = [self.dy.reshape(dxs[0].shape)]
        else:
            self.ctx.work = _nan_filled(self.ops, (self.plan.work,), "uint8") if self.plan.work else None
            no_gradient = [None] * (len(self.xs) - len(dxs))                # labels
            self.layer.backward(self.ctx, self.ops.from_host(self.dy.copy()), saved, [*dxs, *no_gradient])
        for name, array in read_only.items():
            if not np.array_equal(before[name], to_host(array)):
                faults.append(f"forward or backward changed {name}, which is read-only")
        gradients = {name: to_host(dx) for name, dx in zip(self.inputs, dxs, strict=True)}
        gradients |= {name: to_host(param.grad) - offsets[name] for name, param in params.items()}
        faults += [f"backward did not write all of d{name}, or wrote NaN" for name, gradient in gradients.items()
                   if not np.isfinite(gradient).all()]
        return gradients


class NetFunction:
    """f = the training loss (labels given), or sum(dy * output), of every input and parameter."""

    def __init__(self, net, x, labels, generator, train: bool):
        self.net, self.ops, self.train, self.labels = net, net.ops, train, labels
        several = isinstance(x, dict)
        self.inputs = {name: net.ops.from_host(np.array(array, np.float64))
                       for name, array in (x.items() if several else [("x", x)])}
        self.x = self.inputs if several else self.inputs["x"]
        self.tensors = self.inputs | {name: param.data for name, param in net.params.items()}
        batch = len(next(iter(self.inputs.values())))
        self.ids, self.dy = generator.permutation(3 * batch)[:batch], None
        if labels is None:
            self.dy = generator.standard_normal(self.run(False).shape)

    def run(self, grad: bool, on_layer=None) -> np.ndarray:
        """The terms of f."""
        net, labels = self.net, self.labels
        given = check_inputs(net, self.x, labels)
        outputs = [net.output] if labels is None else net.loss_outputs(self.train)
        ids, epoch = net.counters(given, self.train, self.ids, 3)
        plan = net.plan_for(len(ids), outputs, (), grad)
        net.run_plan(plan, given, self.train, grad, ids, epoch, update_state=False, on_layer=on_layer)
        if labels is None:
            return self.ops.to_host(net.logits) if self.dy is None else self.dy * self.ops.to_host(net.logits)
        return np.array([net.mean_loss(net.last_losses())])

    def evaluate(self):
        masks: list[bytes] = []

        def collect(step, y, saved) -> None:
            masks.extend(_masks(self.ops, step.node.layer, y, saved, step.relu))
            if step.pool:
                masks.extend(_masks(self.ops, step.pool.layer, y, saved, False))

        return self.run(False, collect), masks

    def gradients(self, generator, faults: list[str]) -> dict[str, np.ndarray]:
        """Name -> gradient on the host."""
        if not np.isfinite(self.run(grad=True)).all():
            faults.append("the forward pass produced NaN or infinity")
        dx = self.net.backward(None if self.dy is None else self.ops.from_host(self.dy), input_grad=True)
        gradients = (dx if isinstance(dx, dict) else {"x": dx}) \
            | {name: param.grad for name, param in self.net.params.items()}
        gradients = {name: np.array(self.ops.to_host(gradient)) for name, gradient in gradients.items()}
        faults += [f"the gradient of {name} contains NaN or infinity" for name, gradient in gradients.items()
                   if not np.isfinite(gradient).all()]
        return gradients
