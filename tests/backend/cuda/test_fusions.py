"""What plans of the cuda backend fuse, and that a net computes the same with it: max pooling in LRN, bias and ReLU of a
convolution in the backward pass of LRN, the update in the product that is a gradient. On the emulator."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.graph import Net
from minicnn.init import He
from minicnn.layers.linear import Linear
from minicnn.plan import FUSIONS
from minicnn.train.adam import Adam
from minicnn.train.sgd import SGD
from minicnn.train.step import CapturedStep
from tests.cuda_emulator.build import why_not
from tests.cuda_emulator.device import emulated_ops
from tests.helpers.graphs import images

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")


def net(ops, fuse=True, *, tied=False) -> Net:
    """Two convolutions with ReLU, LRN and max pooling, then fully connected layers. The second LRN is read twice."""
    b = Builder((13, 12, 3))
    b.conv("conv1", 8, 3, init=He(), bias_init=0.1)
    b.relu("relu1")
    b.lrn("norm1", 5, alpha=0.5, groups=2)
    b.maxpool("pool1", 3, stride=2)
    b.conv("conv2", 12, 3, padding=1, init=He(), bias=False)
    b.relu("relu2")
    b.lrn("norm2", 3, alpha=0.5)
    b.maxpool("pool2", 2)
    b.maxpool("other", 2, input="norm2")
    b.concat("both", ["pool2", "other"])
    b.flatten("flat")
    b.linear("fc3", 20, init=He())
    b.relu("relu3")
    if tied:
        square = Linear(20, 20, init=He())
        b.layer("fc4", square)
        b.layer("fc5", square)
    b.linear("fc6", 4, init=He())
    b.loss("loss")
    made = b.net(device="reference", dtype="float32", fuse=fuse, seed=1)
    made.ops = ops
    return made


@pytest.fixture
def ops(cuda_cache):
    return emulated_ops(cuda_cache)


@pytest.fixture
def launched(ops, monkeypatch):
    """The names of the kernels that are launched."""
    names, launch = [], ops.device.launch
    monkeypatch.setattr(ops.device, "launch", lambda kernel, *rest: names.append(kernel.name) or launch(kernel, *rest))
    return names


def gradients(made: Net, **options) -> dict:
    x, labels = images(made, 3)
    loss = made.loss(x, labels)
    found = made.backward(**options)
    found = found if isinstance(found, dict) else {} if found is None else {"input": found}
    return {"loss": loss, **found, **{name: param.grad.copy() for name, param in made.params.items()}}


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, wanted in other.items():
        np.testing.assert_allclose(one[name], wanted, rtol=2e-4, atol=2e-5 * np.abs(wanted).max(), err_msg=name)


def test_what_is_fused(ops, reference):
    plan = net(ops).compile_plan(3, ["loss"], (), grad=True)
    steps = {step.node.name: step for step in plan.steps}
    assert [node.name for node in steps["norm1"].fused] == ["pool1"] and not steps["norm2"].fused
    assert steps["norm1"].before is steps["conv1"] and steps["norm2"].before is steps["conv2"]
    assert "pool1" not in steps and "norm1" not in plan.where
    assert plan.shapes["norm1"] == (3, 11, 10, 8) and plan.shapes["pool1"] == (3, 5, 4, 8)
    for made in (net(reference), net(ops, fuse=False)):
        plain = made.compile_plan(3, ["loss"], (), grad=True)
        assert all(step.before is None and step.pool is None for step in plain.steps)
        assert plan.arena_bytes < plain.arena_bytes
    assert set(FUSIONS) - {"early", "again"} == ops.fusions and not reference.fusions


def test_fused_equals_unfused(ops, launched):
    fused = gradients(net(ops))
    assert {"lrn_maxpool_forward", "lrn_maxpool_backward", "lrn_backward_packs"} <= {*launched}
    assert launched.count("epilogue_sums") == 2             # of the fully connected layers
    launched.clear()
    unfused = gradients(net(ops, fuse=False))
    assert not {"lrn_maxpool_forward", "lrn_maxpool_backward"}.intersection(launched)
    same(fused, unfused)


@pytest.mark.parametrize("options", [
    {"wrt": ["pool1", "conv2"]}, {"wrt": ["conv1"]}, {"wrt": ["relu1", "relu2"], "input_grad": True},
    {"rules": {"ReLU": lambda layer, dy, saved: np.maximum(dy, 0)}, "input_grad": True},
    {"rules": {"MaxPool2d": lambda layer, dy, saved: np.full(saved["in_shapes"][0], dy.sum(), "f4")}, "wrt": ["conv1"]},
    {"rules": {"LRN": lambda layer, dy, saved: 2 * dy}, "wrt": ["conv1"]},
], ids=["behind and before", "the convolution", "the ReLUs", "guided", "rule of the pool", "rule of LRN"])
def test_gradients_that_are_looked_at(ops, options):
    """Those of fused nodes too, and with rules in place of backward passes."""
    same(*({name: value for name, value in gradients(net(ops, fuse), **options).items() if name != "loss"}
           for fuse in (True, False)))


def test_looking_inside(ops):
    """trace keeps what it shows, and then nothing is fused around it; a pass may begin behind the fused layers."""
    made, plain = net(ops), net(ops, fuse=False)
    x, labels = images(made, 2)
    seen, wanted = (each.trace(x, saved=["pool1.argmax"]) for each in (made, plain))
    same(seen, wanted)
    dy = np.ones(wanted["pool1"].shape, "f4")
    found = []
    for each in (made, plain):
        each.loss(x, labels)
        found.append({"dx": each.backward(dy, start="pool1", input_grad=True)})
    same(*found)
    made.loss(x, labels)
    with pytest.raises(ConfigError, match="backward cannot start at 'norm1': the last forward pass did not compute it"):
        made.backward(dy, start="norm1")
    made.loss(x, labels, keep="norm1")
    plain.loss(x, labels, keep="norm1")
    dy = np.ones(wanted["norm1"].shape, "f4")
    same(*({"dx": each.backward(dy, start="norm1", input_grad=True)} for each in (made, plain)))
    lines = {line.split()[0]: line for line in made.summary().splitlines() if line}
    assert "11 x 10 x 8" in lines["norm1"] and "+ MaxPool2d" in lines["norm1"]
    assert "fused into norm1" in lines["pool1"] and "5 x 4 x 8" in lines["pool1"]


# ---- the update within the product
def steps_of(made: Net, optimiser, count=3) -> dict:
    x, labels = images(made, 3)
    step = CapturedStep(made, optimiser, None, RunningMetrics())
    for i in range(count):
        step.run(x, labels, np.arange(3) + i, epoch=0)
    return {name: param.data.copy() for name, param in made.params.items()}


def plain_steps(made: Net, optimiser, count=3) -> dict:
    x, labels = images(made, 3)
    for i in range(count):
        made.loss(x, labels, sample_ids=np.arange(3) + i, epoch=0)
        made.backward()
        optimiser.step(made.ops)
    return {name: param.data.copy() for name, param in made.params.items()}


def equal_bits(one: dict, other: dict) -> None:
    for name in other:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_updates_within_products_are_the_same_updates(ops, launched):
    made, plain = net(ops), net(ops)
    sgd, other = SGD(made, lr=0.05, lr_mults={"fc6.w": 2.0}), SGD(plain, lr=0.05, lr_mults={"fc6.w": 2.0})
    equal_bits(steps_of(made, sgd, 1), plain_steps(plain, other, 1))
    assert launched.count("linear_v3_sgd_step") == 2
    assert list(sgd.velocities) == list(other.velocities)
    equal_bits(sgd.velocities, other.velocities)


@pytest.mark.parametrize(("within", "make", "options"), [
    (0, lambda made: SGD(made, lr=0.05, nesterov=True), {}), (0, lambda made: Adam(made, lr=0.01), {}),
    (2, lambda made: SGD(made, lr=0.05), {"tied": True}), (1, lambda made: SGD(made, lr=0.05), {"freeze": "fc6"}),
    (1, lambda made: SGD(made, lr=0.05, lr_mults={"fc3.w": 0.0}), {})],
    ids=["nesterov", "adam", "tied", "frozen", "factor 0"])
def test_which_updates_stay_outside(ops, launched, within, make, options):
    """A gradient that is a sum over nodes, another form of the update, or none at all."""
    nets = [net(ops, tied="tied" in options) for _ in range(2)]
    for made in nets:
        made.freeze(options.get("freeze", ()))
    moved = steps_of(nets[0], make(nets[0]), 2)
    assert launched.count("linear_v3_sgd_step") == 3 * within           # a step, one captured, and that one replayed
    equal_bits(moved, plain_steps(nets[1], make(nets[1]), 2))
