"""All optimisers: PyTorch's weights after 50 steps, what they leave alone, and the moving average of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicnn.errors import ConfigError
from minicnn.param import Param
from minicnn.train.adam import Adam, AdamW
from minicnn.train.average import WeightAverage
from minicnn.train.loss_scale import LossScale
from minicnn.train.sgd import SGD
from tests.helpers.small_run import small_net
from tests.vectors.make_optimisers import KEPT, SETTINGS

VECTORS = Path(__file__).parents[1] / "vectors/optimisers_torch.npz"
CLASSES = {"SGD": SGD, "Adam": Adam, "AdamW": AdamW}
MAKERS = {"sgd": lambda net: SGD(net, lr=0.1, decay=0.5),
          "sgd of PyTorch": lambda net: SGD(net, lr=0.1, decay=0.5, lr_in_velocity=False, nesterov=True),
          "sgd decoupled": lambda net: SGD(net, lr=0.1, decay=0.5, decoupled=True),
          "adam": lambda net: Adam(net, lr=0.1, decay=0.5), "adamw": lambda net: AdamW(net, lr=0.1, decay=0.5)}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def ours(kind, options):
    """Our optimiser with PyTorch's options."""
    options = {{"weight_decay": "decay"}.get(name, name): value for name, value in options.items()}
    form = {"lr_in_velocity": False, "decay": 0.0} if kind == "SGD" else {}
    return lambda params: CLASSES[kind](params, **{**form, **options})


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_are_those_of_pytorch(ops, dtype, name):
    """A learning rate that changes with every step; the difference is relative to the largest weight."""
    vectors, (kind, options) = np.load(VECTORS), SETTINGS[name]
    x, y = vectors["x"].astype(dtype), vectors["y"].astype(dtype)
    param, found = Param("w", ops.from_host(vectors["w"].astype(dtype))), []
    optimiser = ours(kind, options)({"w": param})
    for step, factor in enumerate(vectors["lr"]):
        optimiser.lr = options["lr"] * float(factor)
        gradient = x[step].T @ (x[step] @ ops.to_host(param.data) - y[step]) / 6
        param.grad[...] = ops.from_host(gradient)
        optimiser.step(ops)
        if step + 1 in KEPT:
            found.append(np.array(ops.to_host(param.data)))
    wanted = vectors[f"{name}.{np.dtype(dtype).name}"]
    assert np.abs(np.array(found) - wanted).max() <= {4: 1e-6, 8: 1e-12}[wanted.itemsize] * np.abs(wanted).max()


def stepped(make, net, steps=2, **options):
    """The optimiser after some steps with gradients of 1."""
    optimiser = make(net)
    for _ in range(steps):
        for param in net.params.values():
            param.grad[...] = 1.0
        optimiser.step(**options)
    return optimiser


@every
@pytest.mark.parametrize("how", ["frozen", "lr_mult", "lr_mults"])
def test_what_is_not_trained_stays(make, how):
    """Neither gradient nor weight decay changes it, nor does its average drift."""
    net = small_net()
    start = {name: param.data.copy() for name, param in net.params.items()}

    def prepared(net):
        if how == "frozen":
            net.freeze("conv1")
        optimiser = make(net)
        if how == "lr_mult":
            net.params["conv1.w"].lr_mult = net.params["conv1.b"].lr_mult = 0.0
        if how == "lr_mults":
            optimiser.lr_mults = {"conv1.w": 0.0, "conv1.b": 0.0}
        optimiser.average = WeightAverage(net, 0.7)
        return optimiser

    optimiser = stepped(prepared, net)
    for name, param in net.params.items():
        for array in (param.data, optimiser.average.arrays[name]):
            assert np.array_equal(array, start[name]) == name.startswith("conv1."), name
    for arrays in optimiser.arrays.values():
        assert "conv1.w" not in arrays and "fc2.w" in arrays


@every
def test_the_learning_rate_of_a_parameter_and_its_weight_decay(make):
    """lr_mult and lr_mults multiply, and decay_mult 0 switches weight decay off."""
    nets = [small_net() for _ in range(2)]
    nets[0].params["fc2.w"].lr_mult, nets[0].params["fc2.w"].decay_mult = 0.5, 0.0

    def halved(net):
        optimiser = make(net)
        optimiser.lr_mults["fc2.w"] = 0.5
        return optimiser

    def quarter(net):
        optimiser = make(net)
        optimiser.lr, optimiser.decay = 0.25 * optimiser.lr, 0.0
        return optimiser

    stepped(halved, nets[0])
    stepped(quarter, nets[1])
    np.testing.assert_array_equal(nets[0].params["fc2.w"].data, nets[1].params["fc2.w"].data)
    assert (nets[0].params["fc3.w"].data != nets[1].params["fc3.w"].data).all()


@every
def test_a_step_that_overflows_is_left_out(make):
    """Weights, arrays and counts are as if it had never been taken."""
    nets, optimisers = [small_net() for _ in range(2)], []
    for net, gradients in zip(nets, ([1.0, 1.0], [1.0, np.inf, 1.0]), strict=True):
        scale, optimiser = LossScale(net.ops, exponent=0), make(net)
        optimiser.average = WeightAverage(net)
        for value in gradients:
            for param in net.params.values():
                param.grad[...] = value * 2.0 ** scale.to_dict()["exponent"]
            optimiser.step(loss_scale=scale)
        optimisers.append(optimiser)
    for slot, arrays in {**optimisers[0].arrays, "average": optimisers[0].average.arrays}.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal({**optimisers[1].arrays, "average": optimisers[1].average.arrays}[slot][name],
                                          array)
    assert optimisers[0].to_dict() == optimisers[1].to_dict()
    assert [optimiser.average.to_dict() for optimiser in optimisers] == [{"steps": 2}] * 2
    for name, param in nets[0].params.items():
        np.testing.assert_array_equal(nets[1].params[name].data, param.data)


@pytest.mark.parametrize("make", [lambda net: SGD(net, lr=0.1, decay=0.0), lambda net: Adam(net, lr=0.1),
                                  lambda net: SGD(net, lr=0.1, decay=0.0, lr_in_velocity=False)])
def test_the_last_update_is_the_change(make):
    net = small_net()
    optimiser = stepped(make, net, steps=1)
    before = {name: param.data.copy() for name, param in net.params.items()}
    stepped(lambda _: optimiser, net, steps=1)
    for name, update in optimiser.last_updates(np.asarray).items():
        np.testing.assert_allclose(np.abs(update), np.abs(net.params[name].data - before[name]), rtol=1e-3)


@pytest.mark.parametrize("make", [lambda: Adam({}, lr=0.0), lambda: Adam({}, betas=(0.9, 1.0)),
                                  lambda: Adam({}, betas=(0.9,)), lambda: Adam({}, eps=0.0),
                                  lambda: AdamW({}, decay=-1.0), lambda: SGD({}, 0.1, decay=float("nan")),
                                  lambda: WeightAverage(None, 1.0), lambda: WeightAverage(None, -0.1)])
def test_senseless_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()


# ---- the moving average of the weights
@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_follows_its_formula(warmup):
    """The first update copies the values; integers are left out."""
    net = small_net("reference", with_state=True)
    average, wanted = WeightAverage(net, 0.4, warmup), None
    for step in range(5):
        net.params["fc3.b"].data[...] = net.state["mean1.mean"][:4] = np.arange(4) + step**2
        average.step()
        d = min(0.4, (1 + step) / (10 + step)) if warmup else 0.4
        wanted = np.arange(4.0) + step**2 if wanted is None else d * wanted + (1 - d) * (np.arange(4) + step**2)
        for name in ("fc3.b", "state/mean1.mean"):
            np.testing.assert_allclose(average.arrays[name][:4], wanted, rtol=1e-6)
    assert average.arrays.keys() == net.arrays().keys() and average.to_dict() == {"steps": 5}


def test_the_average_takes_the_place_of_the_weights(rng):
    """Inside, predictions are the average's; afterwards the weights have their bits again, also after an error."""
    net, x = small_net("reference", with_state=True), rng.standard_normal((2, 24, 24, 3)).astype("f4")
    average = WeightAverage(net, 0.5, warmup=False)
    for scale in (1.0, 1.7):
        for array in net.arrays().values():
            array *= scale
        average.step()
    weights, kept = ({name: array.copy() for name, array in arrays.items()}
                     for arrays in (net.arrays(), average.arrays))
    other = small_net("reference", with_state=True)
    other.load_arrays(kept)
    with pytest.raises(KeyError), average.in_place():
        np.testing.assert_array_equal(net(x), other(x))
        raise KeyError
    assert (net(x) != other(x)).any()
    for name, array in net.arrays().items():
        np.testing.assert_array_equal(array, weights[name])
        np.testing.assert_array_equal(average.arrays[name], kept[name])
