"""State: saved, never trained, never differentiated; and descriptions of networks as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import CheckpointError, ConfigError
from minicnn.gradcheck import check_layer, check_net
from minicnn.graph import Net
from minicnn.init import He, Normal, Uniform
from minicnn.layers import LRN, Conv2d, Linear
from minicnn.models import alexnet, cifar_paper
from tests.helpers.graphs import images, same, small
from tests.helpers.running_mean import RunningMean


def with_state(device="reference", dtype="float32", seed=0) -> Net:
    b = Builder((4, 4, 3), name="stateful")
    b.conv("conv1", 4, 3, padding=1, init=He())
    b.layer("mean1", RunningMean(4))
    b.relu("relu1")
    b.flatten("flat")
    b.linear("fc", 3, init=Normal(0.2))
    b.loss("loss")
    return b.net(device=device, dtype=dtype, seed=seed)


def test_only_training_updates_state():
    net = with_state()
    x, labels = images(net)
    mean = net.state["mean1.mean"]
    assert mean is net["mean1"].state["mean"] and not mean.any()
    net.forward(x), net.loss(x, labels, train=False), net.trace(x, train=True), net.trace(x, labels=labels, train=True)
    assert not mean.any()
    seen = net.trace(x, "conv1")["conv1"]
    net.loss(x, labels)
    np.testing.assert_allclose(mean, 0.1 * seen.reshape(-1, 4).mean(axis=0), rtol=1e-6)
    before = mean.copy()
    net.backward()
    np.testing.assert_array_equal(mean, before)
    net.forward(x, train=True)
    assert (mean != before).any()


def test_state_is_not_a_parameter():
    net, without = with_state(), small("reference")
    assert net.num_params == sum(param.data.size for param in net.params.values()) and "mean1.mean" not in net.params
    assert list(net.state) == ["mean1.mean"] and without.state == {}
    assert net.memory(8) - net.memory(8, train=False) > 0


def test_frozen_layers_keep_their_state():
    net = with_state()
    x, labels = images(net)
    net.freeze(["conv1", "mean1"])
    net.loss(x, labels)
    assert not net.state["mean1.mean"].any()
    net.freeze([])
    net.loss(x, labels)
    assert net.state["mean1.mean"].any()


def test_gradient_checks_neither_check_nor_change_state():
    report = check_layer(RunningMean(3), [(2, 4, 3)]).raise_if_failed()
    assert {row.name for row in report.rows} == {"x", "shift"}
    net = with_state(dtype="float64")
    x, labels = images(net)
    net.loss(x, labels)
    before = net.state["mean1.mean"].copy()
    check_net(net, x, labels, only=["conv1.b", "mean1.shift"]).raise_if_failed()
    np.testing.assert_array_equal(net.state["mean1.mean"], before)


class AlwaysUpdates(RunningMean):
    """Updates its state regardless of ctx.update_state."""

    def forward(self, ctx, xs, y, saved):
        super().forward(ctx, xs, y, saved)
        self.state["mean"] += 1e-3


def test_a_layer_that_ignores_update_state_is_found():
    report = check_layer(AlwaysUpdates(3), [(2, 4, 3)])
    assert not report.ok and "changed its state 'mean', which is read-only" in str(report)


def test_files_contain_state(tmp_path):
    net, other = with_state(), with_state(seed=5)
    x, labels = images(net)
    net.loss(x, labels)
    net.save(tmp_path / "net.safetensors")
    other.load(tmp_path / "net.safetensors")
    same({k: v for k, v in other.arrays().items()}, net.arrays())
    assert set(net.arrays()) == {"conv1.w", "conv1.b", "mean1.shift", "state/mean1.mean", "fc.w", "fc.b"}
    arrays = {name: np.array(array) for name, array in net.arrays().items()}
    del arrays["state/mean1.mean"]
    before = other.params["fc.w"].data.copy()
    with pytest.raises(CheckpointError, match="is of another network: it has no 'state/mean1.mean'"):
        other.load_arrays(arrays)
    np.testing.assert_array_equal(other.params["fc.w"].data, before)
    again = Net.from_description(net.description(), device="reference",
                                 values={name: np.array(array) for name, array in net.arrays().items()})
    np.testing.assert_array_equal(again(x), net(x))
    same(net.copy().state, net.state)
    assert not net.copy(seed=1).state["mean1.mean"].any()


# ---- descriptions
@pytest.mark.parametrize("make", [
    lambda: small("reference"), with_state, lambda: cifar_paper(device="reference"),
    lambda: alexnet("caffe", 3, device="reference", input_size=67, fc=16),
    lambda: alexnet("authors", 3, device="reference", input_size=67, fc=16)], ids=["small", "state", "cifar", "caffe",
                                                                               "authors"])
def test_a_network_from_its_description(make):
    """Through JSON: the same nodes, weights drawn with the same seed, multipliers."""
    net = make()
    data = json.loads(json.dumps(net.description()))
    again = Net.from_description(data, device="reference", seed=net.seed, dtype=net.dtype)
    drawn = {name: np.array(array) for name, array in net.arrays().items()}
    if net.name != "small":                                 # its weights are scaled after initialisation
        same({name: np.array(array) for name, array in again.arrays().items()}, drawn)
    assert again.description() == net.description() and again.name == net.name
    multipliers = [[(name, p.lr_mult, p.decay_mult) for name, p in n.params.items()] for n in (net, again)]
    assert multipliers[0] == multipliers[1]
    assert again.summary(2) == net.summary(2)


def test_options_are_the_constructor_arguments():
    assert Conv2d(3, 8, 5, stride=(2, 1), init=Uniform(0.5)).options() == {
        "in_channels": 3, "out_channels": 8, "kernel": 5, "stride": (2, 1), "init": Uniform(0.5)}
    assert LRN(alpha=1.0).options() == {"alpha": 1.0}
    assert RunningMean(3).kind() == "tests.helpers.running_mean:RunningMean" and Conv2d.kind() == "Conv2d"


def test_a_layer_that_cannot_be_described():
    b = Builder((3, 3, 2))
    b.flatten("flat")
    b.linear("fc", 3, init=lambda seed, name, shape, dtype: np.ones(shape, dtype))
    with pytest.raises(ConfigError, match="layer 'fc' of network 'net' cannot be described: .*Normal, Uniform, He"):
        b.net(device="reference").description()


def test_wrong_descriptions():
    data = small("reference").description()
    data["nodes"][1]["kind"] = "Relu"
    with pytest.raises(ConfigError, match="of the kind 'Relu', which is not defined here; did you mean 'ReLU'"):
        Net.from_description(data)
    data["nodes"][1]["kind"] = "my_layers:Swish"
    with pytest.raises(ConfigError, match="not defined here; import 'my_layers', which defines it, first"):
        Net.from_description(data)
    data["nodes"][1]["kind"], data["nodes"][0]["options"]["kernels"] = "ReLU", 3
    with pytest.raises(ConfigError, match="layer 'conv1': Conv2d cannot be made from .*kernels"):
        Net.from_description(data)
    good = small("reference").description()
    for damage in ({"inputs": None}, {"nodes": [{"name": "a"}]}, {"nodes": 3}, {"inputs": {"image": 3}}):
        with pytest.raises(ConfigError, match="a network's description is damaged: |is not defined here"):
            Net.from_description({**good, **damage})
    with pytest.raises(ConfigError, match="a network's description is damaged: KeyError: 'name'"):
        Net.from_description({name: value for name, value in good.items() if name != "name"})
    good["nodes"][0]["multipliers"] = {"q": [1, 0]}
    with pytest.raises(ConfigError, match="layer 'conv1': multipliers name 'q', which Conv2d does not have"):
        Net.from_description(good)
    with pytest.raises(ConfigError, match="description is in format 2, this minicnn reads 1"):
        Net.from_description({**data, "format": 2})


def test_in_a_fresh_process(tmp_path):
    """A description and a weights file are sufficient in another process."""
    net = small("reference")
    x, _ = images(net)
    net.save(tmp_path / "w.safetensors")
    (tmp_path / "d.json").write_text(json.dumps(net.description()))
    np.save(tmp_path / "x.npy", x)
    program = ("import json, numpy as np; from minicnn import Net\n"
               "net = Net.from_description(json.load(open('d.json')), device='reference', dtype='float64', seed=99)\n"
               "net.load('w.safetensors'); np.save('y.npy', net(np.load('x.npy')))")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), net(x))


def test_initialisers_have_the_variance_of_their_source():
    from minicnn.init import Glorot
    shape = (3, 3, 64, 128)
    for init, variance in ((He(), 2 / 576), (He("out", "uniform"), 2 / 1152), (He(slope=0.5), 2 / (1.25 * 576)),
                           (Glorot(), 2 / (576 + 1152)), (Glorot("normal", gain=2.0), 8 / (576 + 1152))):
        drawn = init(0, "w", shape, "float64")
        assert drawn.var() == pytest.approx(variance, rel=0.02) and abs(drawn.mean()) < 1e-3
        assert (abs(drawn).max() < 2 * variance**0.5) == ("uniform" in repr(init))
    with pytest.raises(ConfigError, match="He: fan must be one of in, out, got 'both'"):
        He("both")
    with pytest.raises(ConfigError, match="weights .* got the shape"):
        Linear(3, 2, bias_init=He()).init_params("fc")
