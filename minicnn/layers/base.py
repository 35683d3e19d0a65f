"""The interface of a layer.

A layer holds its configuration, its parameters and its state, and nothing else. `plan` declares the memory it needs;
the network then passes in all arrays: `forward` writes y, `backward` writes dxs and adds to the gradients of the
parameters. `saved` holds what backward needs from forward: the arrays named in LayerPlan.saves, the buffers that the
plan requested, and always saved["in_shapes"].

    plan(in_shapes, dtype, ops)          -> LayerPlan: output shape, arrays to save, bytes of workspace
    forward(ctx, xs, y, saved)           y = f(xs)
    backward(ctx, dy, saved, dxs)        dxs[i] = dL/dx_i (None if not needed);  param.grad += dL/dparam

Parameters are trained. State, such as running statistics, is saved with them but never trained or differentiated:
forward updates it in place if ctx.update_state is set.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from minicnn.errors import CheckpointError, ShapeError
from minicnn.init import Normal, Uniform  # noqa: F401  (importable from here since 0.1.0)
from minicnn.param import Param
from minicnn.rng import purpose_id

if TYPE_CHECKING:
    from minicnn.backend.ops import DeviceNumber, Ops
    from minicnn.plan import Node


@dataclass
class LayerPlan:
    """The requirements of one layer for given input shapes.

    out_shape: shape of y, batch axis included.
    saves: which of "x" (the first input), "xs" (all inputs) and "y" are read by backward.
    buffers: arrays that forward fills for backward, as name -> (shape with the batch axis first, dtype).
    unbatched: the same for arrays without a batch axis, such as the mean of each channel.
    reuses_dy: the input whose dx may be the same array as dy; its place among the inputs.
    work: bytes of workspace, valid during one call only.   macs: multiply-adds of forward.
    algorithm: a description, if the backend has a choice.
    window: the pixels of x that a pixel of y depends on, (height, width), and their stride: for receptive fields.
    """

    out_shape: tuple[int, ...]
    saves: tuple[str, ...] = ()
    buffers: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    unbatched: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    reuses_dy: int | None = None
    work: int = 0
    macs: int = 0
    algorithm: str = ""
    window: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))


@dataclass
class Context:
    """The context of one call of a layer.

    ops: the backend.   train: training mode, for dropout.   work: workspace (uint8) or None.
    seed, epoch, sample_ids (uint32, one per image), purpose (an id of the layer): key and counter of random numbers.
    relu: the following ReLU is fused into this layer.   update_state: forward may update the layer's state.
    frozen: the layer's parameters and state stay as they are (Net.freeze).
    loss_scale: the state by which losses scale their gradient (kernels/reference/loss_scale.py), or None.
    pool: the following MaxPool2d, where it is fused into this layer; its buffers are in `saved`.
    before: db, relu and add of the layer before, whose epilogue this layer's backward ends with; {} if it does not.
    epilogue_done: the layer behind has done so for this one: dy is masked, and the gradient of the bias is complete.
    updates: weights -> what a backward calls in place of leaving a gradient (train/optimiser.py: Updates); it then adds
    the name to `updated`.

    sample_ids may be a backend array; epoch is a DeviceNumber while a step is being captured.
    """

    ops: Ops
    train: bool = False
    seed: int = 0
    epoch: int | DeviceNumber = 0
    sample_ids: np.ndarray | None = None
    purpose: int = 0
    work: object = None
    relu: bool = False
    update_state: bool = False
    frozen: bool = False
    loss_scale: object = None
    pool: Layer | None = None
    before: dict = field(default_factory=dict)
    epilogue_done: bool = False
    updates: Mapping[str, Callable] = field(default_factory=dict)
    updated: set[str] = field(default_factory=set)


class Layer:
    """Base class of all layers. Custom layers define plan, forward and backward: see examples/own_net_and_layer.py."""

    absorbs_relu = False    # a following ReLU can be fused into forward and backward (ctx.relu)
    absorbs_add = False     # so can an Add before it: its other value is xs[1], and dxs[1] is its gradient
    absorbs_pool = False    # a following MaxPool2d can be fused into forward and backward (ctx.pool)
    ends_epilogue = False   # its backward can end with that of bias and ReLU of the layer before (ctx.before)
    has_epilogue = False    # and this layer's bias and ReLU can be left to it (ctx.epilogue_done)
    computes_again = False  # compute_again(ctx, saved, y) writes y once more, from what backward has in any case
    updates_within = False  # backward takes the update of its weights from ctx.updates, in place of leaving a gradient
    takes_x_again = False   # in backward, saved["x"], if saved, may be an array of that; no other x or y is read
    in_place = False        # y may be the same array as x, and dx the same array as dy
    is_view = False         # y is x reshaped: nothing is computed
    is_loss = False         # y holds one loss per image; the network sums weight * mean
    capturable = False      # both passes only call ctx.ops: a CUDA graph can capture them, and x, y, dy may be bf16
    channelwise = False     # channel c of y depends only on channel c of x. Parameters and state, if any, have the
                            # channels as their last axis, and their number is the attribute `channels`
    # Of these, a class that redefines a pass of the layer it derives from has only what it declares itself.
    PROMISES = ("absorbs_relu", "absorbs_add", "absorbs_pool", "ends_epilogue", "has_epilogue", "in_place",
                "capturable", "channelwise", "computes_again", "takes_x_again", "updates_within")
    KINDS: dict[str, type[Layer]] = {}      # name -> class, of every layer class defined so far

    params: dict[str, Param]                # local name, such as "w" -> parameter
    state: dict[str, np.ndarray]            # local name, such as "mean" -> backend array

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if _redefines_a_pass(cls):
            for name in Layer.PROMISES:
                if name not in vars(cls):
                    setattr(cls, name, False)
        if not cls.__name__.startswith("_"):
            Layer.KINDS[cls.kind()] = cls

    def __new__(cls, *args, **options):
        layer = super().__new__(cls)        # here, so that super().__init__() is not required
        layer.params, layer.state, layer._arguments = {}, {}, (args, options)
        return layer

    def __init__(self):
        """A layer without configuration."""

    # ---- to be defined by subclasses
    def plan(self, in_shapes: list[tuple[int, ...]], dtype: str, ops: Ops) -> LayerPlan:
        """Output shape and memory for these input shapes; raises ShapeError with the expected and the given shape."""
        raise TypeError(f"{type(self).__name__} does not define plan(in_shapes, dtype, ops)")

    def forward(self, ctx: Context, xs: list, y, saved: dict) -> None:
        """Write y."""
        raise TypeError(f"{type(self).__name__} does not define forward(ctx, xs, y, saved)")

    def backward(self, ctx: Context, dy, saved: dict, dxs: list) -> None:
        """Write each dxs[i] that is not None; add to the parameters' gradients."""
        raise TypeError(f"{type(self).__name__} does not define backward(ctx, dy, saved, dxs)")

    def initial_values(self) -> dict[str, tuple]:
        """Local parameter name -> (init, shape). init: an initialiser (minicnn/init.py) or a number."""
        return {}

    def initial_state(self) -> dict[str, tuple]:
        """Local state name -> (init, shape)."""
        return {}

    def kinks(self, y, saved: dict) -> tuple:
        """Arrays that identify the differentiable piece on which a forward pass was evaluated, for gradient checks.

        Between two inputs with equal arrays, the layer must be differentiable. For a ReLU: (y > 0,).
        """
        return ()

    def describe(self) -> str:
        """A short description of the configuration, for `summary`."""
        return ""

    # ---- common to all layers
    def init_params(self, name: str, seed: int = 0, dtype: str = "float32",
                    values: Mapping[str, np.ndarray] | None = None) -> None:
        """Create parameters and state on the host, named "<name>.w" etc.; each depends only on the seed and its name.

        values: full name ("state/<name>.mean" for state) -> array to use instead of drawing, or another initialiser.
        CheckpointError for a wrong shape.
        """
        def made(local: str, init, shape, prefix: str = "") -> np.ndarray:
            full = f"{name}.{local}"
            given = None if values is None else values.get(prefix + full)
            if callable(given):
                return given(seed, full, shape, dtype)
            if given is None:
                return init(seed, full, shape, dtype) if callable(init) else np.full(shape, init, dtype)
            given = np.asarray(given)
            if given.shape != tuple(shape):
                raise CheckpointError(f"{full!r} is {tuple(given.shape)} in the given arrays and {tuple(shape)} here")
            return np.array(given, dtype)

        multipliers = self.multipliers
        self.params = {local: Param(f"{name}.{local}", made(local, *initial), *multipliers.get(local, (1.0, 1.0)))
                       for local, initial in self.initial_values().items()}
        self.state = {local: made(local, *initial, "state/") for local, initial in self.initial_state().items()}

    @classmethod
    def kind(cls) -> str:
        """The name of this class in descriptions: "Conv2d"; outside of minicnn with its module, "my_layers:PReLU"."""
        return cls.__qualname__ if cls.__module__.startswith("minicnn.") else f"{cls.__module__}:{cls.__qualname__}"

    def options(self) -> dict:
        """The arguments with which the layer was made, by name. TypeError for those that cannot be given by name."""
        args, options = self._arguments
        signature = inspect.signature(type(self).__init__)
        found = {}
        for name, value in list(signature.bind(self, *args, **options).arguments.items())[1:]:
            kind = signature.parameters[name].kind
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                raise TypeError(f"its argument {name!r} cannot be given by name")
            found |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return found

    def copy(self) -> Layer:
        """The same configuration and multipliers, without parameters and state.

        Attributes are copied, and all that they hold; what cannot be copied, such as a module or a lock, is shared.
        """
        twin, memo = copy.copy(self), {}
        for name, value in vars(self).items():
            if name not in ("params", "state"):
                try:
                    setattr(twin, name, copy.deepcopy(value, memo))
                except TypeError:
                    setattr(twin, name, value)
        twin.params, twin.state, twin.multipliers = {}, {}, self.multipliers
        return twin

    @property
    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Local parameter name -> (factor on the learning rate, factor on the weight decay)."""
        own = {local: (param.lr_mult, param.decay_mult) for local, param in self.params.items()}
        return {**getattr(self, "_multipliers", {}), **own}

    @multipliers.setter
    def multipliers(self, value: Mapping[str, tuple[float, float]]) -> None:
        self._multipliers = dict(value)
        for local, param in self.params.items():
            param.lr_mult, param.decay_mult = self._multipliers.get(local, (1.0, 1.0))

    def __call__(self, *xs, ops: Ops | None = None, train: bool = False, seed: int = 0, epoch: int = 0,
                 sample_ids=None):
        """y = layer(x), for notebooks and tests: allocates its own memory; on the reference backend by default."""
        if ops is None:
            from minicnn.backend.select import get_ops
            ops = get_ops("reference")
        xs = [ops.from_host(x) if isinstance(x, np.ndarray) else x for x in xs]
        dtype = str(xs[0].dtype)
        if not self.params and not self.state:
            self.init_params(type(self).__name__.lower(), seed, dtype)
            for param in self.params.values():
                param.data = ops.from_host(param.data)
            self.state = {name: ops.from_host(array) for name, array in self.state.items()}
        plan = self.plan([x.shape for x in xs], dtype, ops)
        if sample_ids is None:
            sample_ids = np.arange(xs[0].shape[0], dtype=np.uint32)
        ctx = Context(ops, train, seed, epoch, sample_ids, purpose_id(type(self).__name__.lower()), update_state=train)
        if self.is_view:
            return xs[0].reshape(plan.out_shape)
        y = ops.empty(plan.out_shape, dtype)
        self.forward(ctx, xs, y, self.saved_for(plan, ops, xs, y))
        return y

    def saved_for(self, plan: LayerPlan, ops: Ops, xs: list, y) -> dict:
        """The `saved` dict of a call outside a network: declared arrays and newly allocated buffers."""
        saved = {key: value for key, value in {"x": xs[0], "xs": xs, "y": y}.items() if key in plan.saves}
        saved["in_shapes"] = [tuple(x.shape) for x in xs]
        arrays = plan.buffers | plan.unbatched
        saved.update({key: ops.empty(shape, dtype) for key, (shape, dtype) in arrays.items()})
        return saved

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


def _redefines_a_pass(cls: type[Layer]) -> bool:
    """Whether forward or backward is not that of a layer from which the class derives."""
    return any(getattr(base, name) not in (getattr(cls, name), getattr(Layer, name))
               for base in cls.__mro__ if issubclass(base, Layer) for name in ("forward", "backward"))


def need_axes(layer: Layer, shape: tuple[int, ...], axes: str) -> None:
    """ShapeError unless the array has these axes, such as "NHWC"."""
    if len(shape) != len(axes):
        raise ShapeError(f"{type(layer).__name__} expects an array ({', '.join(axes)}), got shape {tuple(shape)}")


def stored_dtype(nodes: Iterable[Node], dtype: str, ops: Ops) -> str:
    """How a network of this dtype stores activations and their gradients: "uint16" on devices that store bf16.

    A layer that computes with arrays itself, and not by operations of the backend alone, needs them in `dtype`.
    """
    return ops.stored_dtype(dtype) if all(node.layer.capturable for node in nodes) else dtype
