"""A network owns its layers: two networks never share a layer, whatever they were built from."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import CheckpointError, ConfigError, MinicnnError, ShapeError
from minicnn.gradcheck import check_layer
from minicnn.graph import Net
from minicnn.init import Normal
from minicnn.layers import Linear, ReLU, Tanh
from minicnn.layers.base import Layer, LayerPlan
from minicnn.plan import Node
from minicnn.train.sgd import SGD
from tests.helpers.graphs import images, same, small
from tests.helpers.running_mean import RunningMean


def builder() -> Builder:
    b = Builder((4, 4, 3))
    b.conv("conv1", 4, 3, padding=1, init=Normal(0.3))
    b.relu("relu1")
    b.layer("mean", RunningMean(4))
    b.flatten("flat")
    b.linear("fc", 5, init=Normal(0.3))
    b.loss("loss")
    return b


def arrays(net: Net) -> dict[str, np.ndarray]:
    return {name: net.ops.to_host(array).copy() for name, array in net.arrays().items()}


def train(net: Net, steps: int = 20) -> float:
    x, labels = images(net, 8)
    sgd = SGD(net.params, lr=0.05)
    for _ in range(steps):
        loss = net.loss(x, labels)
        net.backward()
        sgd.step(net.ops)
    return loss


def test_two_networks_of_one_builder():
    b = builder()
    first = b.net(seed=0, device="reference")
    x, labels = images(first)
    before, loss = first.forward(x), first.loss(x, labels, train=False)
    second = b.net(seed=1, device="reference")
    np.testing.assert_array_equal(first.forward(x), before)
    assert not np.allclose(second.forward(x), before)
    assert train(first) < loss                                              # its parameters are its layers'
    np.testing.assert_array_equal(second.forward(x), b.net(seed=1, device="reference").forward(x))


def test_one_builder_two_devices_and_dtypes():
    b = builder()
    ours, theirs = b.net(device="cpu"), b.net(device="reference", dtype="float64")
    x, _ = images(theirs)
    np.testing.assert_allclose(ours(x.astype("float32")), theirs(x), atol=1e-5)
    assert ours.params["fc.w"].data.dtype == np.float32


def test_a_network_from_the_nodes_of_another():
    net = builder().net(device="reference")
    train(net)
    before, x = arrays(net), images(net)[0]
    logits = net(x)
    other = Net(net.nodes, net.inputs, device="reference", seed=7)
    same(arrays(net), before)
    np.testing.assert_array_equal(net(x), logits)
    assert not np.allclose(other(x), logits)
    train(other)
    same(arrays(net), before)


def test_a_gradient_check_does_not_change_the_layer():
    net = builder().net(device="reference")
    before = arrays(net)
    for name, shape in ("conv1", (2, 4, 4, 3)), ("mean", (2, 4, 4, 4)):
        assert check_layer(net[name], [shape]).ok
    same(arrays(net), before)
    assert net["conv1"].params["w"].data.dtype == np.float32


def test_tied_layers_stay_tied():
    layer, inputs = Linear(6, 6, init=Normal(0.5)), {"x": (6,)}
    nodes = [Node("a", layer, ("x",)), Node("r", ReLU(), ("a",)), Node("b", layer, ("r",))]
    net = Net(nodes, inputs, device="reference", dtype="float64")
    assert net["a"] is net["b"] is not layer and list(net.params) == ["a.w", "a.b"]
    x = np.random.default_rng(0).standard_normal((2, 6))
    w = net.params["a.w"].data
    np.testing.assert_allclose(net(x), np.maximum(x @ w, 0) @ w)
    for other in (net.copy(), Net.from_description(net.description(), device="reference", dtype="float64")):
        assert other["a"] is other["b"] is not net["a"]
        np.testing.assert_array_equal(other(x), net(x))                     # the same seed and names
    untied = net.replace("a", Linear(6, 6))
    assert list(untied.params) == ["a.w", "a.b", "b.w", "b.b"]
    np.testing.assert_array_equal(untied.params["b.w"].data, w)             # formerly a.w
    net.freeze("a")
    net.forward(x, train=True)
    net.backward(np.ones((2, 6)))
    assert not net.params["a.w"].grad.any()                                 # nor through b


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_copy(device):
    net = builder().net(device="reference")
    train(net)
    net.params["fc.b"].lr_mult = 2.0
    net.freeze("conv1")
    twin = net.copy(device=device)
    same(arrays(twin), arrays(net))
    assert twin.params["fc.b"].lr_mult == 2.0 and twin.ops.spec == device
    x, labels = images(net)
    twin.loss(x, labels)
    twin.backward()
    assert not twin.params["conv1.w"].grad.any() and twin.params["fc.w"].grad.any()
    before = arrays(net)
    train(twin)
    same(arrays(net), before)


def test_copy_with_another_seed_reinitialises():
    net = builder().net(seed=0, device="reference")
    train(net)
    same(arrays(net.copy(seed=3)), arrays(builder().net(seed=3, device="reference")))


def test_replace():
    net = builder().net(device="reference")
    train(net)
    before, x = arrays(net), images(net)[0]
    logits = net(x)
    other = net.replace("relu1", Tanh())
    same(arrays(other), before)
    same(arrays(net), before)
    np.testing.assert_array_equal(net(x), logits)
    assert isinstance(other["relu1"], Tanh) and isinstance(net["relu1"], ReLU) and not np.allclose(other(x), logits)
    head = net.replace("fc", Linear(64, 2))
    assert head.num_classes == 2 and head.params["fc.w"].data.shape == (64, 2)
    np.testing.assert_array_equal(head.params["conv1.w"].data, net.params["conv1.w"].data)
    donor = builder().net(seed=9, device="reference")
    np.testing.assert_array_equal(net.replace("fc", donor["fc"]).params["fc.w"].data, donor.params["fc.w"].data)
    with pytest.raises(ConfigError, match="no layer is called 'relu'; did you mean 'relu1'"):
        net.replace("relu", Tanh())
    with pytest.raises(ShapeError, match="layer 'fc': Linear expects 60 input features, got 64"):
        net.replace("fc", Linear(60, 2))


def test_layers_by_name_and_calls():
    net = small("reference")
    x, _ = images(net)
    np.testing.assert_array_equal(net(x), net.forward(x))
    assert net["conv1"] is net.nodes[0].layer and net["conv1"].params["w"] is net.params["conv1.w"]
    with pytest.raises(ConfigError, match="no layer is called 'conv3'; did you mean 'conv2'"):
        net["conv3"]
    net.forward(x, keep="pool1")                                            # one name as a string
    assert net.activation("pool1").shape == (3, 2, 2, 4)
    net.forget("pool1")


class Plain(Layer):
    """Without super().__init__()."""

    def __init__(self, factor):
        self.factor = factor

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]))

    def forward(self, ctx, xs, y, saved):
        y[...] = self.factor * xs[0]

    def backward(self, ctx, dy, saved, dxs):
        dxs[0][...] = self.factor * dy


class AsksTheBackend(Plain):
    """Its plan uses the backend for other purposes."""

    def plan(self, in_shapes, dtype, ops):
        assert ops.empty((2,), dtype).shape == (2,) and ops.name in ("reference", "cpu")
        return super().plan(in_shapes, dtype, ops)


def test_a_layer_need_not_call_super_init():
    assert check_layer(Plain(3.0), [(2, 3)]).ok
    b = Builder((2, 2, 3))
    b.layer("plain", AsksTheBackend(2.0))
    assert b.net(device="cpu").num_params == 0


def test_values_replace_initialisation():
    """Weights given in `values` are not drawn; the arrays are copied and checked."""
    def forbidden(seed, name, shape, dtype):
        raise AssertionError(f"{name} was drawn")

    b = Builder((3, 3, 2))
    b.conv("conv", 4, 3, init=forbidden)
    b.flatten("flat")
    b.linear("fc", 3, init=forbidden)
    values = {"conv.w": np.ones((3, 3, 2, 4)), "fc.w": np.full((4, 3), 2.0)}
    net = b.net(values=values, device="reference")
    values["fc.w"][...] = 0
    assert (net.params["fc.w"].data == 2).all() and net.params["fc.w"].data.dtype == np.float32
    with pytest.raises(CheckpointError, match=r"'fc.w' is \(4, 2\) in the given arrays and \(4, 3\) here"):
        b.net(values={**values, "fc.w": np.ones((4, 2))}, device="reference")


@pytest.mark.parametrize("name", ["conv 1", "a.b", "a/b", "", "é", "state/x"])
def test_names_are_restricted(name):
    for make in (lambda: Net([Node(name, ReLU(), ("x",))], {"x": (3,)}),
                 lambda: Net([Node("a", ReLU(), (name,))], {name: (3,)})):
        with pytest.raises(ConfigError, match="cannot be the name of a layer or input: use letters, digits and _ only"):
            make()


def test_the_builder_has_every_kind():
    b = Builder((5, 5, 3))
    b.conv("conv1", 4, 3)
    b.lrn_within("norm", n=3)
    b.avgpool(None, 3, stride=1)
    b.tanh()
    assert [type(node.layer).__name__ for node in b.nodes] == ["Conv2d", "LRNWithin", "AvgPool2d", "Tanh"]
    with pytest.raises(AttributeError, match="no such kind of layer; did you mean 'maxpool'"):
        b.maxpol("pool", 3)


class Odd(Plain):
    """A layer whose attributes cannot all be copied, and whose arguments come by keyword."""

    def __init__(self, **settings):
        self.factor, self.xp, self.lock, self.table = settings.get("k", 1.0), np, threading.Lock(), {"a": [1]}


def test_attributes_that_cannot_be_copied_are_shared():
    layer = Odd(k=3.0)
    b = Builder((2, 2, 3))
    b.layer("odd", layer)
    net = b.net(device="reference")
    assert net["odd"].xp is np and net["odd"].lock is layer.lock and net["odd"].table == {"a": [1]}
    assert net["odd"].table["a"] is not layer.table["a"]
    x = np.ones((1, 2, 2, 3), np.float32)
    assert (net(x) == 3).all() and (net.copy()(x) == 3).all()


class Positional(Plain):
    def __init__(self, *factors):
        super().__init__(factors[0])


@pytest.mark.parametrize(("layer", "options"), [(Odd(k=-3.0), {"k": -3.0}), (Odd(), {}), (Plain(2.0), {"factor": 2.0})])
def test_options_given_by_keyword(layer, options):
    assert layer.options() == options
    b = Builder((2, 2, 3))
    b.layer("plain", layer)
    net = b.net(device="reference")
    x = np.ones((1, 2, 2, 3), np.float32)
    np.testing.assert_array_equal(Net.from_description(net.description(), device="reference")(x), net(x))


@pytest.mark.parametrize(("layer", "message"), [
    (Positional(1.0), "its argument 'factors' cannot be given by name"), (Plain(float("inf")), "inf cannot be written"),
    (Plain(float("nan")), "nan cannot be written")])
def test_what_a_description_cannot_hold(layer, message):
    b = Builder((2, 2, 3))
    b.layer("plain", layer)
    with pytest.raises(ConfigError, match=f"layer 'plain' of network 'net' cannot be described: {message}"):
        b.net(device="reference").description()


class OneSlope(Layer):
    """A parameter and state without an axis."""

    def initial_values(self):
        return {"a": (0.25, ())}

    def initial_state(self):
        return {"calls": (0.0, ())}

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]), saves=("x",))

    def forward(self, ctx, xs, y, saved):
        y[...] = np.where(xs[0] > 0, xs[0], xs[0] * self.params["a"].data)
        if ctx.update_state:
            self.state["calls"] += 1

    def backward(self, ctx, dy, saved, dxs):
        x, a = saved["x"], self.params["a"]
        a.grad += (dy * np.minimum(x, 0)).sum()
        if dxs[0] is not None:
            dxs[0][...] = np.where(x > 0, dy, dy * a.data)


def test_scalars_stay_scalars(tmp_path):
    b = Builder((3, 3, 2))
    b.layer("act", OneSlope())
    b.flatten("flat")
    b.linear("fc", 2)
    b.loss("loss")
    net = b.net(device="cpu")
    train(net, 3)
    assert net.params["act.a"].data.shape == () and net.state["act.calls"] == 3
    net.save(tmp_path / "w.safetensors")
    other = b.net(device="cpu", seed=4)
    other.load(tmp_path / "w.safetensors")
    for again in (net.copy(), net.replace("fc", net["fc"]), b.net(device="cpu", values=arrays(net)), other):
        same(arrays(again), arrays(net))
    assert check_layer(OneSlope(), [(3, 4)], only=["a"]).ok


def test_deepcopy_is_copy():
    """Arrays of a run share memory: copied one by one they would no longer, and gradients would be wrong."""
    net = builder().net(device="reference")
    train(net, 2)
    twin, (x, labels) = copy.deepcopy(net), images(net)
    for one in (net, twin):
        one.loss(x, labels, epoch=7)
        one.backward()
    same({name: p.grad for name, p in net.params.items()}, {name: p.grad for name, p in twin.params.items()})


def test_mistakes_are_named():
    b = builder()
    net = b.net(device="reference")
    wrong = {
        "expected a layer, got the class Tanh; write Tanh": lambda: net.replace("relu1", Tanh),
        "expected a layer, got None": lambda: net.replace("relu1", None),
        "expected a layer, got the class ReLU; write ReLU": lambda: b.layer("r", ReLU),
        "the name of a layer or input comes first, such as 'conv1'; got 3": lambda: b.conv(3, 16, 5),
        "the network has no layers besides losses": lambda: Builder((3, 3, 2)).net(device="reference"),
        r"the shape of one image must be given as \(H, W, C\), got 32": lambda: Builder(32),
        r"channels-last here, \(H, W, C\): for \(3, 32, 32\) write \(32, 32, 3\)": lambda: Builder((3, 32, 32)),
        "output names 'nope', which is no layer; expected one of": lambda: b.net(output="nope", device="reference"),
        "the given arrays have 'conv1.x', which the network has not; did you mean 'conv1.": lambda: b.net(
            values={"conv1.x": np.ones(3)}, device="reference"),
    }
    for message, make in wrong.items():
        with pytest.raises(MinicnnError, match=message):
            make()


@pytest.mark.parametrize(("name", "hint"), [("conv1", r"its layer is net\['conv1'\]"), ("eval", "use net\\(x\\)"),
                                            ("parameters", "use net.params"), ("state_dict", "use net.arrays"),
                                            ("nothing", "has no attribute 'nothing'$")])
def test_what_pytorch_calls_otherwise(name, hint):
    with pytest.raises(AttributeError, match=hint):
        getattr(builder().net(device="reference"), name)
