"""Networks for tests: a small AlexNet, and random graphs for hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from minicnn.builder import Builder
from minicnn.graph import Net


def small(device="cpu", dtype="float64", fuse=True, seed=0) -> Net:
    """A small AlexNet: every kind of layer that it has."""
    b = Builder((9, 9, 3), name="small")
    b.conv("conv1", 4, 3, stride=2, ceil=True)
    b.relu("relu1")
    b.lrn("norm1", alpha=0.1, groups=2)
    b.maxpool("pool1", 3, stride=1)
    b.conv("conv2", 6, 3, padding=1, groups=2, bias_init=1.0)
    b.relu("relu2")
    b.flatten("flatten")
    b.linear("fc3", 8)
    b.relu("relu3")
    b.dropout("drop3", 0.5)
    b.linear("fc4", 5)
    b.loss("loss")
    return scale_weights(b.net(device=device, dtype=dtype, fuse=fuse, seed=seed))


def scale_weights(net: Net) -> Net:
    """Scale weights to N(0, 0.3): with 0.01, activations would almost vanish."""
    for name, param in net.params.items():
        if name.endswith(".w"):
            param.data[...] *= 30
    return net


def images(net: Net, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((count, *net.input_shape)).astype(net.dtype)
    return x, rng.integers(0, net.num_classes, count)


def gradients(net: Net) -> dict[str, np.ndarray]:
    """Copies of all parameter gradients."""
    return {name: param.grad.copy() for name, param in net.params.items()}


def same(one: dict, other: dict) -> None:
    """Assert that the arrays are bit-identical."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


BY_IMAGE = ("conv", "relu", "tanh", "lrn", "dropout", "maxpool", "avgpool", "add", "concat")
KINDS = (*BY_IMAGE, "batchnorm")


@st.composite
def recipes(draw, kinds=KINDS):
    """The input of `random_net`: for each node a kind, and two indices that select the values it reads."""
    node = st.tuples(st.sampled_from(kinds), st.integers(0, 99), st.integers(0, 99))
    return draw(st.lists(node, min_size=2, max_size=10)), draw(st.booleans())


def random_net(recipe, width: int = 2, **options) -> Net:
    """A graph of layers that keep the shape; every unused output is summed into the loss, or has its own loss."""
    nodes, several_losses = recipe
    b = Builder((4, 5, width), name="random")
    values, read = [b.last], set()
    for i, (kind, first, second) in enumerate(nodes):
        # values[0] is the image; the latest value is the most likely input, so that chains are common
        a, other = values[-1 - first % min(3, len(values))], values[second % len(values)]
        name = f"{kind}{i}"
        if kind == "conv":
            b.conv(name, width, 3, padding=1, input=a)
        elif kind == "add":
            b.add(name, [a, other])
        elif kind == "concat":
            b.conv(name, width, 1, input=b.concat(f"{name}_join", [a, other, a]))
        elif kind in ("maxpool", "avgpool"):
            getattr(b, kind)(name, 3, stride=1, padding=1, input=a)
        else:
            getattr(b, kind)(name, input=a)
        read.update([a, other] if kind in ("add", "concat") else [a])
        values.append(name)
    ends = [name for name in values if name not in read]
    for end in ends[:-1] if several_losses else []:
        b.flatten(f"{end}_flat", input=end)
        b.linear(f"{end}_out", 3)
        b.loss(f"{end}_loss", weight=0.5)
    b.add("ends", ends)
    b.flatten("flat", input="ends")
    b.linear("out", 3)
    b.loss("loss")
    return scale_weights(b.net(**options))
