"""Writing a network down as a paper's table has it: one line per layer.

    b = Builder((32, 32, 3))
    b.conv("conv1", 64, 5, padding=2)
    b.relu()
    b.maxpool("pool1", 3, stride=2)
    b.flatten()
    b.linear("fc", 10)
    b.loss()
    net = b.net()

Each line reads the one above it unless `input` names another, returns its own name, and takes over the number of
channels. `b.concat("join", [a, b])` and `b.add("sum", [a, b])` join branches; `b.layer(name, layer)` takes any layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from minicnn.errors import ConfigError, MinicnnError
from minicnn.graph import LABELS, Net
from minicnn.layers.activation import ReLU, Tanh
from minicnn.layers.base import Layer
from minicnn.layers.combine import Add, Concat, Flatten
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AvgPool2d, MaxPool2d
from minicnn.plan import Node


class Builder:
    """Collects named layers; `net()` makes the network. `input_shape` is one image, (H, W, C)."""

    def __init__(self, input_shape: tuple[int, ...], name: str = "net", input_name: str = "image"):
        self.name = name
        self.inputs = {input_name: tuple(input_shape)}
        self.nodes: list[Node] = []
        self.last = input_name
        self._shapes: dict[str, tuple[int, ...]] = {input_name: (1, *input_shape), LABELS: (1,)}

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        """A further input of the network, next to the image."""
        self.inputs[name] = tuple(shape)
        self._shapes[name] = (1, *shape)
        return name

    def layer(self, name: str | None, layer: Layer, input: str | Sequence[str] | None = None) -> str:
        """Add any layer; `input` is the name, or the names, that it reads. Returns its name."""
        sources = [input or self.last] if input is None or isinstance(input, str) else list(input)
        name = name or self._fresh(type(layer).__name__.lower())
        if name in self._shapes:
            raise ConfigError(f"layer {name!r}: the name is taken; every layer needs its own")
        try:
            plan = layer.plan([self.shape(source) for source in sources], "float32", _NoWork())
        except MinicnnError as error:
            raise type(error)(f"layer {name!r}: {error}") from None
        self._shapes[name] = tuple(plan.out_shape)
        self.nodes.append(Node(name, layer, tuple(sources)))
        if not layer.is_loss:
            self.last = name
        return name

    def shape(self, name: str | None = None) -> tuple[int, ...]:
        """Output shape of a layer, for a batch of one."""
        name = name or self.last
        if name not in self._shapes:
            raise ConfigError(f"no layer is called {name!r}; so far: {', '.join(self._shapes)}")
        return self._shapes[name]

    def _fresh(self, kind: str) -> str:
        count = sum(type(node.layer).__name__.lower() == kind for node in self.nodes) + 1
        while f"{kind}{count}" in self._shapes:
            count += 1
        return f"{kind}{count}"

    # ---- one method per kind
    def conv(self, name: str, channels: int, kernel, *, input: str | None = None, **options) -> str:
        """Conv2d with `channels` output channels; options: stride, padding, groups, ceil, bias, init, bias_init."""
        return self.layer(name, Conv2d(self.shape(input)[-1], channels, kernel, **options), input)

    def linear(self, name: str, features: int, *, input: str | None = None, **options) -> str:
        """Linear with `features` outputs; options: bias, init, bias_init."""
        return self.layer(name, Linear(self.shape(input)[-1], features, **options), input)

    def relu(self, name: str | None = None, *, input: str | None = None) -> str:
        """ReLU."""
        return self.layer(name, ReLU(), input)

    def tanh(self, name: str | None = None, *, input: str | None = None) -> str:
        """Tanh."""
        return self.layer(name, Tanh(), input)

    def lrn(self, name: str | None = None, *, input: str | None = None, **options) -> str:
        """LRN across channels; options: n, k, alpha, beta, groups, divide_alpha."""
        return self.layer(name, LRN(**options), input)

    def lrn_within(self, name: str | None = None, *, input: str | None = None, **options) -> str:
        """LRN within each map; options: n, k, alpha, beta, divide_alpha."""
        return self.layer(name, LRNWithin(**options), input)

    def maxpool(self, name: str | None, kernel, *, input: str | None = None, **options) -> str:
        """MaxPool2d; options: stride, padding, ceil."""
        return self.layer(name, MaxPool2d(kernel, **options), input)

    def avgpool(self, name: str | None, kernel, *, input: str | None = None, **options) -> str:
        """AvgPool2d; options: stride, padding, ceil, count_pad."""
        return self.layer(name, AvgPool2d(kernel, **options), input)

    def dropout(self, name: str | None = None, rate: float = 0.5, *, input: str | None = None, **options) -> str:
        """Dropout; option: inverted."""
        return self.layer(name, Dropout(rate, **options), input)

    def flatten(self, name: str | None = None, *, input: str | None = None) -> str:
        """Flatten (H, W, C) into one axis."""
        return self.layer(name, Flatten(), input)

    def concat(self, name: str, inputs: Sequence[str]) -> str:
        """Concat along the channels."""
        return self.layer(name, Concat(), inputs)

    def add(self, name: str, inputs: Sequence[str]) -> str:
        """Sum of inputs of one shape."""
        return self.layer(name, Add(), inputs)

    def loss(self, name: str = "loss", *, input: str | None = None, **options) -> str:
        """Softmax and cross-entropy of `input` against the labels; options: weight, train_only."""
        return self.layer(name, SoftmaxCrossEntropy(**options), [input or self.last, LABELS])

    def net(self, *, seed: int = 0, dtype: str = "float32", device: str = "auto", fuse: bool = True,
            output: str | None = None) -> Net:
        """The network, its parameters drawn from `seed`."""
        return Net(self.nodes, self.inputs, output=output or self.last, name=self.name, seed=seed, dtype=dtype,
                   device=device, fuse=fuse)


class _NoWork:
    """Stands in for a backend while only shapes are asked for: no work space, no algorithm."""

    def __getattr__(self, name: str):
        if name.endswith(("_work", "_algorithm")):
            return lambda *args, **kwargs: 0 if name.endswith("_work") else ""
        raise AttributeError(name)
