"""What a layer is.

A layer holds its configuration and its parameters and nothing else. It says in `plan` what it will need; the network
then hands it every array: `forward` writes y, `backward` writes dxs and adds to the gradients of the parameters. What
backward needs from forward lies in `saved`: the arrays named in LayerPlan.saves, the buffers the plan asked for, and
always saved["in_shapes"].

    plan(in_shapes, dtype, ops)          -> LayerPlan: output shape, what is saved, bytes of work space
    forward(ctx, xs, y, saved)           y = f(xs)
    backward(ctx, dy, saved, dxs)        dxs[i] = dL/dx_i (None where nobody needs it);  param.grad += dL/dparam
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from minicnn.errors import ShapeError
from minicnn.param import Param
from minicnn.rng import normal_init, purpose_id, uniform_init

if TYPE_CHECKING:
    from minicnn.backend.ops import DeviceNumber, Ops


@dataclass(frozen=True)
class Normal:
    """Weights from N(0, std); the paper uses std = 0.01 in every layer (section 5)."""

    std: float = 0.01

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        return normal_init(seed, name, shape, self.std, dtype)


@dataclass(frozen=True)
class Uniform:
    """Values from U(-bound, bound)."""

    bound: float

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        return uniform_init(seed, name, shape, self.bound, dtype)


@dataclass
class LayerPlan:
    """What one layer asks of the network for given input shapes.

    out_shape: shape of y, batch axis included.
    saves: which of "x" (the first input), "xs" (all inputs) and "y" backward reads.
    buffers: arrays that forward fills for backward, as name -> (shape with the batch axis first, dtype).
    work: bytes of scratch space, alive during one call only.   macs: multiply-adds of forward.
    algorithm: in words, where the backend has a choice.
    """

    out_shape: tuple[int, ...]
    saves: tuple[str, ...] = ()
    buffers: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    work: int = 0
    macs: int = 0
    algorithm: str = ""


@dataclass
class Context:
    """What surrounds one call of a layer.

    ops: the backend.   train: dropout drops.   work: scratch space (uint8) or None.
    seed, epoch, sample_ids (uint32, one per image), purpose (the layer's own number): the counter of random numbers.
    relu: the network fused the ReLU that follows into this layer.   comm: the other ranks, where the network is split.
    loss_scale: what losses multiply their gradient with (kernels/reference/loss_scale.py), where they are to.

    sample_ids may be an array of the backend's; epoch a DeviceNumber, where a step is being recorded.
    """

    ops: Ops
    train: bool = False
    seed: int = 0
    epoch: int | DeviceNumber = 0
    sample_ids: np.ndarray | None = None
    purpose: int = 0
    work: object = None
    relu: bool = False
    comm: object = None
    loss_scale: object = None


class Layer:
    """Base of every layer. One of your own needs plan, forward and backward: see examples/own_net_and_layer.py."""

    absorbs_relu = False    # forward can end with max(0, .) and backward begin with its mask (ctx.relu)
    in_place = False        # y may be the same array as x, and dx the same as dy
    is_view = False         # y is x under another shape: nothing runs
    is_loss = False         # y holds one loss per image; the network sums weight * mean
    capturable = False      # both passes call ctx.ops and nothing else, so that a GPU can replay them (train/step.py)

    def __init__(self):
        self.params: dict[str, Param] = {}

    # ---- to be written by each kind
    def plan(self, in_shapes: list[tuple[int, ...]], dtype: str, ops: Ops) -> LayerPlan:
        """Output shape and needs for these input shapes; raises ShapeError with expected and got."""
        raise TypeError(f"{type(self).__name__} does not define plan(in_shapes, dtype, ops)")

    def forward(self, ctx: Context, xs: list, y, saved: dict) -> None:
        """Write y."""
        raise TypeError(f"{type(self).__name__} does not define forward(ctx, xs, y, saved)")

    def backward(self, ctx: Context, dy, saved: dict, dxs: list) -> None:
        """Write each dxs[i] that is not None; add to the parameters' gradients."""
        raise TypeError(f"{type(self).__name__} does not define backward(ctx, dy, saved, dxs)")

    def initial_values(self) -> dict[str, tuple]:
        """Local parameter name -> (init, shape), for layers that have any."""
        return {}

    def describe(self) -> str:
        """The configuration in a few words, for `summary`."""
        return ""

    # ---- the same for all
    def init_params(self, name: str, seed: int = 0, dtype: str = "float32") -> None:
        """Make the parameters, named "<name>.w" and so on. Each depends on the seed and its name alone."""
        for local, (init, shape) in self.initial_values().items():
            full = f"{name}.{local}"
            previous = self.params.get(local)
            mults = (previous.lr_mult, previous.decay_mult) if previous else self.multipliers.get(local, (1.0, 1.0))
            data = init(seed, full, shape, dtype) if callable(init) else np.full(shape, init, dtype)
            self.params[local] = Param(full, data, *mults)

    @property
    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Local parameter name -> (factor on the learning rate, factor on the weight decay)."""
        return getattr(self, "_multipliers", {})

    @multipliers.setter
    def multipliers(self, value: dict[str, tuple[float, float]]) -> None:
        self._multipliers = dict(value)

    def __call__(self, *xs, ops: Ops | None = None, train: bool = False, seed: int = 0, epoch: int = 0,
                 sample_ids=None):
        """y = layer(x), for notebooks and checks: allocates by itself; on the reference backend by default."""
        if ops is None:
            from minicnn.backend.select import get_ops
            ops = get_ops("reference")
        xs = [ops.from_host(x) if isinstance(x, np.ndarray) else x for x in xs]
        dtype = str(xs[0].dtype)
        if self.initial_values() and not self.params:
            self.init_params(type(self).__name__.lower(), seed, dtype)
        plan = self.plan([x.shape for x in xs], dtype, ops)
        if sample_ids is None:
            sample_ids = np.arange(xs[0].shape[0], dtype=np.uint32)
        ctx = Context(ops, train, seed, epoch, sample_ids, purpose_id(type(self).__name__.lower()))
        if self.is_view:
            return xs[0].reshape(plan.out_shape)
        y = ops.empty(plan.out_shape, dtype)
        self.forward(ctx, xs, y, self.saved_for(plan, ops, xs, y))
        return y

    def saved_for(self, plan: LayerPlan, ops: Ops, xs: list, y) -> dict:
        """The `saved` of one call outside a network: declared arrays, and freshly allocated buffers."""
        saved = {key: value for key, value in {"x": xs[0], "xs": xs, "y": y}.items() if key in plan.saves}
        saved["in_shapes"] = [tuple(x.shape) for x in xs]
        saved.update({key: ops.empty(shape, dtype) for key, (shape, dtype) in plan.buffers.items()})
        return saved

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


def need_axes(layer: Layer, shape: tuple[int, ...], axes: str) -> None:
    """Check the number of axes at the door: `axes` spells them, such as "NHWC"."""
    if len(shape) != len(axes):
        raise ShapeError(f"{type(layer).__name__} expects an array ({', '.join(axes)}), got shape {tuple(shape)}")
