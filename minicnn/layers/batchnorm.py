"""Batch normalisation (Ioffe and Szegedy, ICML 2015), and the scale and shift of each channel that it ends with.

    BatchNorm2d   y = w * (x - mean) / sqrt(var + eps) + b         Affine   y = w * x + b

In training, mean and var are those of the m = N*H*W values of a channel in the batch, var divided by m. Running ones,
with a variance divided by m - 1, are updated with each batch and used in evaluation, and where the layer is frozen. A
ReLU that follows, and before it the Add of a residual connection, are computed in the same passes over memory.

Gradients are derived in kernels/reference/batchnorm.py. Saved: x and the statistics; of the ReLU's output only what a
residual connection makes necessary.
"""

from __future__ import annotations

from minicnn.errors import ConfigError, ShapeError
from minicnn.layers.base import Layer, LayerPlan
from minicnn.shapes import finite, whole


class _PerChannel(Layer):
    """A scale w and a shift b of each channel of (N, H, W, C) or (N, C)."""

    absorbs_relu = True
    capturable = True
    channelwise = True
    computes_again = True

    def plan(self, in_shapes, dtype, ops):
        shape = tuple(in_shapes[0])
        if len(shape) not in (2, 4) or shape[-1] != self.channels:
            raise ShapeError(f"{type(self).__name__} expects (N, H, W, C) or (N, C) with {self.channels} channels, got "
                             f"shape {shape}")
        return LayerPlan(shape, saves=("x",), reuses_dy=len(in_shapes) - 1)

    def _weights(self):
        """w, and b or None."""
        return self.params["w"].data, self.params["b"].data if "b" in self.params else None

    def _gradients(self):
        """(dw, db or None), and for each whether to add to it."""
        (dw, add_w), (db, add_b) = (self.params[name].grad_to_fill() if name in self.params else (None, True)
                                    for name in ("w", "b"))
        return (dw, db), (add_w, add_b)

    def describe(self):
        return f"{self.channels} channels"


class Affine(_PerChannel):
    """(N, H, W, C) or (N, C) -> the same shape: y = w * x + b, for each channel.

    init, bias_init: of w and b, numbers or initialisers; bias: whether there is a b.
    """

    def __init__(self, channels: int, *, bias: bool = True, init=1.0, bias_init=0.0):
        super().__init__()
        channels = whole(channels, "Affine: channels", 1)
        self.channels, self.bias, self.init, self.bias_init = channels, bias, init, bias_init

    def initial_values(self):
        values = {"w": (self.init, (self.channels,))}
        return values | ({"b": (self.bias_init, (self.channels,))} if self.bias else {})

    def forward(self, ctx, xs, y, saved):
        ctx.ops.affine_forward(xs[0], *self._weights(), y, relu=ctx.relu)

    def compute_again(self, ctx, saved, y):
        self.forward(ctx, [saved["x"]], y, saved)

    def backward(self, ctx, dy, saved, dxs):
        gradients, add = self._gradients()
        ctx.ops.affine_backward_weights(saved["x"], dy, *self._weights(), *gradients, None, None, relu=ctx.relu,
                                        add=add)
        if dxs[0] is not None:
            ctx.ops.affine_backward_data(saved["x"], dy, *self._weights(), dxs[0], relu=ctx.relu)


class BatchNorm2d(_PerChannel):
    """(N, H, W, C) or (N, C) -> the same shape. Defaults and statistics are PyTorch's.

    eps: added to the variance.   momentum: running = (1 - momentum) * running + momentum * batch.   sync: in data
    parallel training, normalise with the statistics of all ranks' batches instead of the rank's own.   scale: whether
    there is a w (gamma); without, it is 1.   init, bias_init: of w and b (beta), numbers or initialisers; init 0 in the
    last one of a residual block makes the block begin as its shortcut.
    """

    absorbs_add = True

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, sync: bool = False,
                 scale: bool = True, init=1.0, bias_init=0.0):
        super().__init__()
        channels = whole(channels, "BatchNorm2d: channels", 1)
        finite(eps, "BatchNorm2d: eps"), finite(momentum, "BatchNorm2d: momentum")
        if not eps > 0:
            raise ConfigError(f"BatchNorm2d: eps = {eps} must be positive, since a channel's variance may be 0")
        if not 0 <= momentum <= 1:
            raise ConfigError(f"BatchNorm2d: momentum = {momentum} must be between 0 and 1, the batch's weight in the "
                              "running statistics")
        self.channels, self.eps, self.momentum, self.sync = channels, eps, momentum, sync
        self.scale, self.init, self.bias_init = scale, init, bias_init

    def initial_values(self):
        values = {"b": (self.bias_init, (self.channels,))}
        return ({"w": (self.init, (self.channels,))} if self.scale else {}) | values

    def initial_state(self):
        return {"mean": (0.0, (self.channels,)), "var": (1.0, (self.channels,))}

    def plan(self, in_shapes, dtype, ops):
        plan = super().plan(in_shapes, dtype, ops)
        if len({tuple(shape) for shape in in_shapes}) > 1:
            raise ShapeError("BatchNorm2d expects a residual of the shape of x, got "
                             f"{' and '.join(str(tuple(shape)) for shape in in_shapes)}")
        plan.unbatched = {name: ((self.channels,), "float64") for name in ("mean", "var")}
        plan.unbatched["sums"] = (2, self.channels), "float64"
        if not self.scale:
            plan.unbatched |= {name: ((self.channels,), dtype) for name in ("ones", "unused")}
        return plan

    def forward(self, ctx, xs, y, saved):
        if not self.scale:
            saved["ones"][...] = 1
        self._statistics(ctx, xs[0], saved["mean"], saved["var"])
        residual = xs[1] if len(xs) > 1 else None
        ctx.ops.affine_forward(xs[0], *self._factors(saved), y, **self._saved(saved), residual=residual, relu=ctx.relu)

    def compute_again(self, ctx, saved, y):
        ctx.ops.affine_forward(saved["x"], *self._factors(saved), y, **self._saved(saved), relu=ctx.relu)

    def backward(self, ctx, dy, saved, dxs):
        ops, x, options, relu = ctx.ops, saved["x"], self._saved(saved), ctx.relu
        (dx, dz), y = (*dxs, None)[:2], None
        if relu and len(dxs) > 1:
            dz, y = dy if dz is None else dz, saved["y"]
        (dw, db), add = self._gradients()
        dw = dw if self.scale else saved["unused"]
        ops.affine_backward_weights(x, dy, *self._factors(saved), dw, db, dz, saved["sums"], **options, y=y, relu=relu,
                                    add=add)
        if dx is None:
            return
        if self._by_batch(ctx):
            count = self._combined_sums(ctx, saved["sums"], x.size // self.channels)
            options |= {"sums": saved["sums"], "count": count}
        ops.affine_backward_data(x, dy if dz is None else dz, *self._factors(saved), dx, **options,
                                 relu=relu and y is None)

    def _factors(self, saved):
        """w, or ones where there is none, and b."""
        return self._weights() if self.scale else (saved["ones"], self.params["b"].data)

    # ---- statistics
    def _by_batch(self, ctx) -> bool:
        """Whether the statistics are those of the batch."""
        return ctx.train and not ctx.frozen

    def _saved(self, saved) -> dict:
        """What forward normalised with."""
        return {"mean": saved["mean"], "var": saved["var"], "eps": self.eps}

    def _statistics(self, ctx, x, mean, var) -> None:
        """Write mean and var, with which x is normalised; update the running ones."""
        ops, running = ctx.ops, (self.state["mean"], self.state["var"])
        if not self._by_batch(ctx):
            ops.batchnorm_fixed_statistics(*running, mean, var)
            return
        ops.batchnorm_statistics(x, mean, var)
        count = self._combined_statistics(ctx, mean, var, x.size // self.channels)
        if count < 2:
            raise ShapeError("BatchNorm2d needs more than one value per channel in training, got an input of shape "
                             f"{tuple(x.shape)}; use a larger batch, or freeze the layer")
        if ctx.update_state:
            ops.batchnorm_update_statistics(mean, var, *running, momentum=self.momentum, count=count)

    # ---- for subclasses that normalise over several ranks
    def _combined_statistics(self, ctx, mean, var, count: int) -> int:
        """Make mean and var (float64, (C,)), of `count` values each, those of all ranks; returns their count."""
        return count

    def _combined_sums(self, ctx, sums, count: int) -> int:
        """The same for sums (float64, (2, C)): of dz and of dz * (x - mean). The parameters' gradients stay local."""
        return count

    def describe(self):
        return f"{super().describe()}, eps {self.eps:g}, momentum {self.momentum:g}{', sync' if self.sync else ''}" \
            + ", no scale" * (not self.scale)
