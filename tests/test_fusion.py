"""Fusion of a residual connection: a layer, the Add after it and the ReLU after that run as one step.

Everything is compared with fuse=False, which runs every node by itself: values, gradients, rules, passes that start at
an inner layer.
"""

from __future__ import annotations

import numpy as np
import pytest

from minicnn import Builder
from minicnn.layers.activation import ReLU
from minicnn.layers.base import Layer, LayerPlan
from minicnn.layers.combine import Add
from minicnn.layers.conv import Conv2d


class Centred(Layer):
    """y = a (x - mean of its channel over the batch) + residual, then maybe a ReLU. Saved: x, the means."""

    absorbs_relu = absorbs_add = True

    def initial_values(self):
        return {"a": (1.5, ())}

    def plan(self, in_shapes, dtype, ops):
        shape = tuple(in_shapes[0])
        return LayerPlan(shape, saves=("x",), unbatched={"mean": (shape[-1:], dtype)}, reuses_dy=len(in_shapes) - 1)

    def forward(self, ctx, xs, y, saved):
        saved["mean"][...] = xs[0].mean(axis=(0, 1, 2))
        y[...] = self.params["a"].data * (xs[0] - saved["mean"])
        if len(xs) == 2:
            y += xs[1]
        if ctx.relu:
            np.maximum(y, 0, out=y)

    def backward(self, ctx, dy, saved, dxs):
        if ctx.relu:
            dy *= saved["y"] > 0
        a = self.params["a"]
        a.grad += (dy * (saved["x"] - saved["mean"])).sum()
        dx = a.data * (dy - dy.mean(axis=(0, 1, 2)))
        if len(dxs) == 2 and dxs[1] is not None:
            dxs[1][...] = dy
        if dxs[0] is not None:
            dxs[0][...] = dx


def residual(fuse: bool, *, order: str = "own first", relu: bool = True, stem: bool = True):
    """A residual block; the residual is the output of the stem, or without it the image."""
    b = Builder((5, 4, 3))
    start = b.conv("stem", 3, 1) if stem else b.last
    if stem:
        start = b.relu("stem_relu")
    b.conv("conv", 3, 3, padding=1)
    b.layer("norm", Centred())
    b.add("sum", inputs=["norm", start] if order == "own first" else [start, "norm"])
    if relu:
        b.relu("out")
    b.flatten()
    b.linear("fc", 4)
    b.loss()
    net = b.net(device="reference", dtype="float64", fuse=fuse)
    for param in net.params.values():
        param.data[...] = np.random.default_rng(param.data.size).standard_normal(param.data.shape)
    return net


def batch():
    generator = np.random.default_rng(0)
    return generator.standard_normal((3, 5, 4, 3)), np.array([0, 3, 1])


@pytest.fixture(params=["own first", "residual first", "without a relu", "without a stem"])
def nets(request):
    """The same net fused and not."""
    options = {"without a relu": {"relu": False}, "without a stem": {"stem": False}}.get(request.param) \
        or {"order": request.param}
    return residual(True, **options), residual(False, **options)


def fused_into(net, name: str) -> list[str]:
    plan = net.compile_plan(3, [*net.losses, net.output], (), grad=True)
    return [node.name for step in plan.steps if step.node.name == name for node in step.fused]


def test_the_add_and_the_relu_are_fused_into_the_layer_before_them():
    assert fused_into(residual(True), "norm") == ["sum", "out"]
    assert fused_into(residual(True, relu=False), "norm") == ["sum"]
    assert fused_into(residual(True, order="residual first"), "norm") == ["sum", "out"]
    assert fused_into(residual(False), "norm") == []


def test_the_summary_says_what_is_fused_into_what():
    lines = {line.split()[0]: line for line in residual(True).summary().splitlines() if line}
    assert lines["norm"].endswith("+ Add + ReLU")
    assert lines["sum"].endswith("fused into norm") and lines["out"].endswith("fused into norm")


def test_a_value_that_is_read_twice_is_not_absorbed():
    """norm + norm, and a norm that a second layer reads."""
    b = Builder((5, 4, 3))
    b.layer("norm", Centred())
    b.add("sum", inputs=["norm", "norm"])
    assert fused_into_forward(b.net(device="reference")) == []
    b = Builder((5, 4, 3))
    b.layer("norm", Centred())
    b.conv("conv", 3, 1)
    b.add("sum", inputs=["norm", "conv"])
    assert fused_into_forward(b.net(device="reference")) == []


def test_a_convolution_that_is_read_before_its_relu_is_not_changed_by_it():
    """conv + relu(conv), as in a residual net: fused, both would be relu(conv)."""
    b = Builder((5, 4, 3))
    b.conv("conv", 3, 3, padding=1)
    b.relu("relu")
    b.add("sum", inputs=["conv", "relu"])
    net, x = b.net(device="reference", dtype="float64"), batch()[0]
    y = net.forward(x).copy()
    net.forward(x, keep=["conv"])                       # what is kept is not fused either way
    conv = net.activation("conv")
    assert (conv < 0).any() and (y < 0).any()
    np.testing.assert_array_equal(y, conv + np.maximum(conv, 0))


def fused_into_forward(net) -> list[str]:
    return [node.name for step in net.compile_plan(1, [net.output], (), grad=False).steps for node in step.fused]


def test_of_two_branches_the_later_absorbs_the_add():
    """As in a residual block with a projection: the other branch has been computed by then."""
    b = Builder((5, 4, 3))
    b.conv("conv", 3, 1)
    b.layer("left", Centred(), input="conv")
    b.layer("right", Centred(), input="conv")
    b.add("sum", inputs=["left", "right"])
    b.relu("out")
    net = b.net(device="reference", dtype="float64")
    steps = {step.node.name: step for step in net.compile_plan(1, [net.output], (), grad=False).steps}
    assert [node.name for node in steps["right"].fused] == ["sum", "out"] and not steps["left"].fused


def test_loss_and_gradients_equal_the_unfused_ones(nets):
    fused, apart = nets
    x, labels = batch()
    assert fused.loss(x, labels) == pytest.approx(apart.loss(x, labels), rel=1e-14)
    dx, expected = fused.backward(input_grad=True), apart.backward(input_grad=True)
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-14)
    for name, param in apart.params.items():
        np.testing.assert_allclose(fused.params[name].grad, param.grad, rtol=1e-12, atol=1e-14, err_msg=name)


def test_a_smaller_batch_uses_the_same_plan(nets):
    """Arrays without a batch axis keep their shape."""
    x, labels = batch()
    for net in nets:
        net.loss(x, labels)
    fused, apart = (net.loss(x[:2], labels[:2]) for net in nets)
    assert fused == pytest.approx(apart, rel=1e-14)
    for net in nets:
        net.backward()
    np.testing.assert_allclose(nets[0].params["conv.w"].grad, nets[1].params["conv.w"].grad, rtol=1e-12)


def test_gradients_of_layers_outputs_equal_the_unfused_ones(nets):
    x, labels = batch()
    names = [node.name for node in nets[1].nodes if node.name in ("stem", "conv", "norm", "sum", "out")]
    for wrt in [names, *[[name] for name in names]]:
        found = []
        for net in nets:
            net.loss(x, labels)
            found.append(net.backward(wrt=wrt, input_grad=True))
        for name in found[1]:
            np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-12, atol=1e-14, err_msg=f"{name} {wrt}")


@pytest.mark.parametrize("start", ["out", "sum", "norm", "conv"])
def test_a_pass_from_an_inner_layer_equals_the_unfused_one(nets, start):
    if start not in [node.name for node in nets[0].nodes]:
        pytest.skip("this net has no such layer")
    x, labels = batch()
    dy, gradients = np.random.default_rng(1).standard_normal((3, 5, 4, 3)), []
    for net in nets:
        net.loss(x, labels)
        dx = net.backward(dy, start=start, input_grad=True)
        gradients.append([dx, *(param.grad for param in net.params.values())])
    for fused, apart in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, apart, rtol=1e-12, atol=1e-14)


RULES = {
    "ReLU": lambda layer, dy, saved: np.maximum(dy, 0),
    "Add": lambda layer, dy, saved: [2 * dy, 3 * dy],
    "Conv2d": lambda layer, dy, saved: 0.5 * dy,
    Centred: lambda layer, dy, saved: 7 * dy,
}


@pytest.mark.parametrize("kinds", [["ReLU"], ["Add"], [Centred], ["ReLU", "Add"], ["Add", Centred], list(RULES)],
                         ids=lambda kinds: "+".join(str(getattr(kind, "__name__", kind)) for kind in kinds))
def test_rules_apply_to_fused_layers(nets, kinds):
    """Each rule sees the gradient and writes what it would unfused."""
    x, labels = batch()
    found = []
    for net in nets:
        net.loss(x, labels)
        found.append(net.backward(input_grad=True, rules={kind: RULES[kind] for kind in kinds}))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-14)
    assert np.abs(found[0]).max() > 0


def test_the_residual_may_be_the_memory_of_dy():
    """So that no copy is written."""
    net = residual(True)
    plan = net.compile_plan(3, [*net.losses, net.output], (), grad=True)
    step = next(step for step in plan.steps if step.add)
    assert plan.values[step.dxs[1]].storage is plan.values[step.dy].storage


def test_layers_that_absorb_nothing_keep_their_add():
    """A convolution has a fused ReLU, but no fused Add."""
    assert Conv2d.absorbs_relu and not Conv2d.absorbs_add and not Add.absorbs_add


# ---- layers that derive from one of ours
class Squared(ReLU):
    """y = max(0, x)^2, by arithmetic of its own."""

    def forward(self, ctx, xs, y, saved):
        y[...] = np.maximum(xs[0], 0) ** 2


def test_a_redefined_pass_is_the_one_that_runs(rng):
    """It is no ReLU for the layer before to compute, nor promised to run on bf16, or in place."""
    b = Builder((5, 4, 3))
    b.conv("conv", 3, 3)
    b.layer("squared", Squared())
    net = b.net(device="reference", dtype="float64")
    y = net(x := rng.standard_normal((2, 5, 4, 3)))
    np.testing.assert_array_equal(y, np.maximum(net.trace(x, keep="conv")["conv"], 0) ** 2)


def test_of_a_redefined_pass_only_what_is_declared_is_promised():
    class Mixed:
        def backward(self, ctx, dy, saved, dxs):
            dxs[0][...] = dy

    class Through(Mixed, ReLU):
        channelwise = True

    class Renamed(ReLU):
        pass

    def promises(kind):
        return {name for name in Layer.PROMISES if getattr(kind, name)}

    assert promises(Renamed) == promises(ReLU) == {"in_place", "capturable", "channelwise"}
    assert (promises(Squared), promises(Through)) == (set(), {"channelwise"})
