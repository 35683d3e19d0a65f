"""Building a network layer by layer, one line per layer, as in the table of a paper.

    b = Builder((32, 32, 3))
    b.conv("conv1", 64, 5, padding=2)
    b.relu()
    b.maxpool("pool1", 3, stride=2)
    b.flatten()
    b.linear("fc", 10)
    b.loss()
    net = b.net()

Each layer reads the previous one unless `input` names another; each call returns the layer's name, and the number of
input channels is inferred. `b.concat("join", [a, b])` and `b.add("sum", [a, b])` join branches; `b.layer(name, layer)`
adds any layer. Every kind of layer in minicnn/layers has a method: b.conv, b.linear, b.relu, b.lrn_within ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minicnn.backend.select import get_ops
from minicnn.checks import check_image_shape, check_layer, check_name
from minicnn.errors import ConfigError, MinicnnError, expected
from minicnn.graph import Net
from minicnn.layers.base import Layer
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.combine import Add, Concat
from minicnn.layers.conv import Conv2d
from minicnn.layers.linear import Linear
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.plan import LABELS, Node


class Builder:
    """Collects named layers; `net()` makes the network. `input_shape` is one image, (H, W, C)."""

    def __init__(self, input_shape: tuple[int, ...], name: str = "net", input_name: str = "image"):
        self.name = name
        self.inputs = {input_name: check_image_shape(input_shape)}
        self.nodes: list[Node] = []
        self.last = input_name
        self._shapes: dict[str, tuple[int, ...]] = {input_name: (1, *input_shape), LABELS: (1,)}

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        """An additional input of the network, besides the image."""
        self.inputs[name] = tuple(shape)
        self._shapes[name] = (1, *shape)
        return name

    def layer(self, name: str | None, layer: Layer, input: str | Sequence[str] | None = None) -> str:
        """Add any layer; `input` is the name (or names) of the nodes it reads. Returns its name."""
        sources = [input or self.last] if input is None or isinstance(input, str) else list(input)
        name = name or self._fresh(type(check_layer(layer)).__name__.lower())
        check_name(name)
        if name in self._shapes:
            raise ConfigError(f"layer {name!r}: the name is already used; layer names must be unique")
        try:
            plan = check_layer(layer).plan([self.shape(source) for source in sources], "float32",
                                           get_ops("reference"))
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
            raise ConfigError(f"no layer is called {name!r}; defined so far: {', '.join(self._shapes)}")
        return self._shapes[name]

    def _fresh(self, kind: str) -> str:
        count = sum(type(node.layer).__name__.lower() == kind for node in self.nodes) + 1
        while f"{kind}{count}" in self._shapes:
            count += 1
        return f"{kind}{count}"

    # ---- one method per kind of layer; most are derived from the class name
    def __getattr__(self, kind: str) -> Callable[..., str]:
        """b.relu(name), b.maxpool(name, 3, stride=2), b.dropout(name, 0.5) ...: any kind of layer, by its class name
        in lower case; the layer's arguments follow the name, and `input` names the node it reads."""
        wanted = kind.replace("_", "")
        for cls in Layer.KINDS.values() if wanted else ():
            if cls.__name__.lower().removesuffix("2d") == wanted:
                return lambda name=None, *args, input=None, **options: self.layer(name, cls(*args, **options), input)
        names = [cls.__name__.lower().removesuffix("2d") for cls in Layer.KINDS.values()]
        raise AttributeError(f"Builder has no method {kind!r}, and there is no such kind of layer; "
                             + expected(wanted, names))

    def conv(self, name: str, channels: int, kernel, *, input: str | None = None, **options) -> str:
        """Conv2d with `channels` output channels; options: stride, padding, groups, ceil, bias, init, bias_init."""
        return self.layer(name, Conv2d(self.shape(input)[-1], channels, kernel, **options), input)

    def linear(self, name: str, features: int, *, input: str | None = None, **options) -> str:
        """Linear with `features` outputs; options: bias, init, bias_init."""
        return self.layer(name, Linear(self.shape(input)[-1], features, **options), input)

    def batchnorm(self, name: str | None = None, *, input: str | None = None, **options) -> str:
        """BatchNorm2d; options: eps, momentum, sync, scale, init, bias_init."""
        return self.layer(name, BatchNorm2d(self.shape(input)[-1], **options), input)

    def affine(self, name: str | None = None, *, input: str | None = None, **options) -> str:
        """Affine, a scale and shift for each channel; options: bias, init, bias_init."""
        return self.layer(name, Affine(self.shape(input)[-1], **options), input)

    def concat(self, name: str, inputs: Sequence[str]) -> str:
        """Concat along the channels."""
        return self.layer(name, Concat(), inputs)

    def add(self, name: str, inputs: Sequence[str]) -> str:
        """Elementwise sum of inputs of equal shape."""
        return self.layer(name, Add(), inputs)

    def loss(self, name: str = "loss", *, input: str | None = None, **options) -> str:
        """Softmax and cross-entropy of `input` against the labels; options: weight, train_only,
        label_smoothing."""
        return self.layer(name, SoftmaxCrossEntropy(**options), [input or self.last, LABELS])

    def net(self, *, seed: int = 0, dtype: str = "float32", device: str = "auto", fuse: bool = True,
            output: str | None = None, values: Mapping[str, np.ndarray] | None = None) -> Net:
        """A new network; its parameters are drawn from `seed` or taken from `values` (see Net)."""
        return Net(self.nodes, self.inputs, output=output or self.last, name=self.name, seed=seed, dtype=dtype,
                   device=device, fuse=fuse, values=values)
