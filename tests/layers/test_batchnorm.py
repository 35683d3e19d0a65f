"""Batch normalisation as PyTorch computes it, its statistics, and the scale and shift of each channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicnn import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_layer
from minicnn.graph import Net
from minicnn.init import He
from minicnn.layers.base import Context
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from tests.helpers.graphs import images, same
from tests.helpers.harness import applied, on_host
from tests.tolerances import assert_close

VECTORS = Path(__file__).parents[1] / "vectors" / "batchnorm_torch.npz"
OF_LARGEST = {"float32": 1e-5, "float64": 1e-10}


class Run:
    """A layer on a backend: forward and backward, as in a network. dy and the last input's gradient share memory."""

    def __init__(self, ops, layer, xs, *, train=True, frozen=False, update_state=False, relu=False):
        self.ops, self.layer, self.dtype = ops, layer, str(xs[0].dtype)
        if not layer.params:
            layer.init_params("bn", dtype=self.dtype)
            for param in layer.params.values():
                param.data = ops.from_host(param.data)
            layer.state = {name: ops.from_host(array) for name, array in layer.state.items()}
        self.xs = [ops.from_host(x) for x in xs]
        self.ctx = Context(ops, train, frozen=frozen, update_state=update_state, relu=relu)
        plan = layer.plan([x.shape for x in xs], self.dtype, ops)
        y = ops.empty(plan.out_shape, self.dtype)
        self.saved = layer.saved_for(plan, ops, self.xs, y) | ({"y": y} if relu else {})
        layer.forward(self.ctx, self.xs, y, self.saved)
        self.y = ops.to_host(y).copy()

    def backward(self, dy) -> dict[str, np.ndarray]:
        dy = self.ops.from_host(dy.copy())
        dxs = [*(self.ops.empty(x.shape, self.dtype) for x in self.xs[1:]), dy]        # LayerPlan.reuses_dy: the last
        for param in self.layer.params.values():
            param.zero_grad()
        self.layer.backward(self.ctx, dy, self.saved, dxs)
        found = {"dx": dxs[0], **{f"d{name}": param.grad for name, param in self.layer.params.items()}}
        found |= {"dresidual": dxs[1]} if len(dxs) > 1 else {}
        return {name: self.ops.to_host(array).copy() for name, array in found.items()}


@pytest.fixture(scope="module")
def vectors():
    return dict(np.load(VECTORS))


def as_pytorch(got, wanted, what) -> None:
    """Within 1e-5 (float64: 1e-10) of the largest value of PyTorch's results in float64."""
    error = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert error < OF_LARGEST[str(got.dtype)], (what, error)


@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize("case", ["maps", "pixels", "rows", "offset"])
def test_equals_pytorch(ops, dtype, vectors, case, fused):
    """A training step, then an evaluation with the running statistics that it left; fused: relu(y + residual)."""
    stored = {name.removeprefix(f"{case}/"): array for name, array in vectors.items() if name.startswith(f"{case}/")}
    given = {name: stored[name].astype(dtype) for name in ("x", "dy", "residual", "w", "b")}
    layer = BatchNorm2d(given["x"].shape[-1], init=lambda *_: given["w"], bias_init=lambda *_: given["b"])
    xs = [given["x"], given["residual"]] if fused else [given["x"]]
    for mode in ("training", "evaluation"):
        run = Run(ops, layer, xs, train=mode == "training", update_state=True, relu=fused)
        found = {"y": run.y, **run.backward(given["dy"])}
        for name, got in found.items():
            as_pytorch(got, stored[f"{mode}/{'fused/' * fused}{name}"], f"{mode} {name}")
        for name, array in layer.state.items():
            as_pytorch(ops.to_host(array), stored[name], f"running {name} after {mode}")


def test_one_value_per_channel_cannot_be_normalised(ops):
    for shape in (1, 4), (1, 1, 1, 4):
        x = np.ones(shape, np.float32)
        with pytest.raises(ShapeError, match=r"more than one value per channel in training, got .*freeze the layer"):
            Run(ops, BatchNorm2d(4), [x])
        for options in {"train": False}, {"frozen": True}:
            np.testing.assert_allclose(Run(ops, BatchNorm2d(4), [x], **options).y, x, rtol=1e-4)


def test_running_statistics_change_in_training_alone(ops, rng):
    layer, x = BatchNorm2d(3, momentum=0.25), rng.standard_normal((4, 2, 3, 3))
    for options in {}, {"train": False}, {"frozen": True}:
        Run(ops, layer, [x], **options)
        assert not ops.to_host(layer.state["mean"]).any() and (ops.to_host(layer.state["var"]) == 1).all()
    Run(ops, layer, [x], update_state=True)
    values = x.reshape(-1, 3)
    assert_close(ops.to_host(layer.state["mean"]), 0.25 * values.mean(axis=0), "elementwise")
    assert_close(ops.to_host(layer.state["var"]), 0.75 + 0.25 * values.var(axis=0, ddof=1), "elementwise")


def test_a_frozen_layer_uses_its_running_statistics(ops, rng):
    """In training too, forward and backward, like an evaluation."""
    layer, x, dy = BatchNorm2d(3), rng.standard_normal((4, 2, 3, 3)), rng.standard_normal((4, 2, 3, 3))
    Run(ops, layer, [x], update_state=True)
    frozen, evaluated = Run(ops, layer, [x], frozen=True), Run(ops, layer, [x], train=False)
    np.testing.assert_array_equal(frozen.y, evaluated.y)
    for one, other in zip(frozen.backward(dy).values(), evaluated.backward(dy).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (frozen.y != Run(ops, layer, [x]).y).any()


class OfTwoHalves(BatchNorm2d):
    """One of two ranks: it is given what the other contributes."""

    def _combined_statistics(self, ctx, mean, var, count):
        other_mean, other_var = self.other["mean"], self.other["var"]
        distance = other_mean - mean
        mean += distance / 2
        var[...] = (var + other_var) / 2 + distance**2 / 4
        return 2 * count

    def _combined_sums(self, ctx, sums, count):
        sums += self.other["sums"]
        return 2 * count


def test_statistics_can_be_combined_over_ranks(reference, rng):
    """Two halves of a batch that exchange statistics and sums equal the whole; the parameters' gradients are local."""
    x, dy = rng.standard_normal((2, 6, 2, 2, 3))
    whole = Run(reference, BatchNorm2d(3), [x], update_state=True, relu=True)
    halves = [slice(0, 3), slice(3, 6)]
    local = [Run(reference, BatchNorm2d(3), [x[half]]) for half in halves]
    layers = [OfTwoHalves(3), OfTwoHalves(3)]
    for layer, other in zip(layers, local[::-1], strict=True):
        layer.other = dict(other.saved)
    runs = [Run(reference, layer, [x[half]], update_state=True, relu=True)
            for layer, half in zip(layers, halves, strict=True)]
    sums = []
    for run, half in zip(runs, halves, strict=True):                            # the local sums about the common mean
        run.layer.other["sums"] = np.zeros((2, 3))
        run.backward(dy[half])
        sums.append(run.saved["sums"].copy())
    found = []
    for run, half, other in zip(runs, halves, sums[::-1], strict=True):
        run.layer.other["sums"] = other
        found.append(run.backward(dy[half]))
    wanted = whole.backward(dy)
    assert_close(np.concatenate([run.y for run in runs]), whole.y, "sum", 24)
    assert_close(np.concatenate([each["dx"] for each in found]), wanted["dx"], "sum", 24)
    assert_close(sum(each["dw"] for each in found), wanted["dw"], "sum", 24)
    for layer in layers:
        for name, array in whole.layer.state.items():
            assert_close(layer.state[name], array, "sum", 24)


def test_can_be_captured(emulated, rng):
    """A captured forward and backward, replayed on other images, equal a plain one."""
    first, other, dy = rng.standard_normal((3, 4, 2, 2, 5))
    run, wanted = (Run(emulated, BatchNorm2d(5), [x], update_state=True, relu=True) for x in (first, other))
    y, dxs = emulated.empty(first.shape, "float64"), [emulated.empty(first.shape, "float64")]
    run.saved["y"] = y

    def step():
        run.layer.forward(run.ctx, run.xs, y, run.saved)
        run.layer.backward(run.ctx, dy, run.saved, dxs)

    replay = emulated.capture(step)
    run.xs[0][...] = other
    replay()
    np.testing.assert_array_equal(y, wanted.y)
    np.testing.assert_array_equal(dxs[0], wanted.backward(dy)["dx"])


def small(device="cpu", dtype="float32", fuse=True, seed=0) -> Net:
    """A residual block, a row of features that is normalised, and a scale and shift."""
    b = Builder((6, 5, 3))
    b.conv("conv1", 20, 3, padding=1, bias=False, init=He())
    b.batchnorm("bn1")
    b.relu("relu1")
    b.conv("conv2", 20, 3, padding=1, bias=False, init=He())
    b.batchnorm("bn2", init=0.5)
    b.add("sum", ["bn2", "relu1"])
    b.relu("relu2")
    b.affine("scale", init=0.7)
    b.relu("relu3")
    b.flatten("flat")
    b.linear("fc", 9, init=He())
    b.batchnorm("bn3", momentum=0.5)
    b.relu("relu4")
    b.linear("out", 4, init=He())
    b.loss("loss")
    return b.net(device=device, dtype=dtype, fuse=fuse, seed=seed)


def test_a_small_net_trains_and_its_statistics_are_saved(tmp_path):
    from minicnn.train.sgd import SGD

    net = small()
    x, labels = images(net, 8)
    sgd, losses = SGD(net, lr=0.05), []
    for _ in range(12):
        losses.append(net.loss(x, labels))
        net.backward()
        sgd.step()
    assert losses[-1] < 0.3 * losses[0]
    assert net.state["bn1.mean"].any() and (net.state["bn3.var"] != 1).all()
    net.save(tmp_path / "net.safetensors")
    again, fresh = Net.from_description(net.description(), device="cpu"), small(seed=3)
    for other in again, fresh:
        other.load(tmp_path / "net.safetensors")
        same(other.state, net.state)
        np.testing.assert_array_equal(other(x), net(x))
    lines = {line.split()[0]: line for line in net.summary().splitlines() if line}
    assert lines["bn2"].endswith("+ Add + ReLU") and "eps 1e-05, momentum 0.1" in lines["bn2"]


def test_fused_equals_unfused(ops):
    """The same gradients with and without fused Add and ReLU; the second pass has a smaller batch."""
    ops = on_host(ops)
    nets = [small("reference", "float64", fuse) for fuse in (True, False)]
    for net in nets:
        net.ops = ops
    x, labels = images(nets[0], 6)
    for count in (6, 4):
        losses, gradients = [], []
        for net in nets:
            losses.append(net.loss(x[:count], labels[:count]))
            net.backward()
            gradients.append({name: ops.to_host(param.grad).copy() for name, param in net.params.items()})
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
        for name, wanted in gradients[1].items():
            np.testing.assert_allclose(gradients[0][name], wanted, rtol=1e-9, atol=1e-11, err_msg=name)


def test_affine(ops, dtype, rng):
    x, w, b = rng.standard_normal((2, 3, 4, 17)), rng.standard_normal(17), rng.standard_normal(17)
    layer = Affine(17, init=lambda *_: w.astype(dtype), bias_init=lambda *_: b.astype(dtype))
    assert_close(applied(ops, layer, x.astype(dtype)), w * x.astype(dtype) + b, "elementwise")
    without = Affine(17, bias=False, init=2.0)
    np.testing.assert_array_equal(applied(ops, without, x.astype(dtype)), 2 * x.astype(dtype))
    assert list(without.params) == ["w"]


def test_gradients_of_a_channel_without_variance(ops, rng):
    """Its values are all equal: eps is all there is."""
    x = rng.standard_normal((3, 2, 2, 2)) * [1, 0] + [0, 5]
    for train in True, False:
        check_layer(BatchNorm2d(2, eps=0.5), None, xs=[x], ops=ops, train=train).raise_if_failed()


def test_builder_infers_the_channels():
    b = Builder((4, 4, 3))
    b.conv("conv", 5, 3)
    assert b.batchnorm() == "batchnorm2d1" and b.affine(input="conv") == "affine1"
    assert [node.layer.channels for node in b.nodes[1:]] == [5, 5]


def test_errors(reference):
    for options, message in ({"eps": 0.0}, "eps = 0.0 must be positive"), ({"momentum": 1.5}, "momentum = 1.5 must"):
        with pytest.raises(ConfigError, match=message):
            BatchNorm2d(3, **options)
    for shapes, message in [([(2, 4, 4, 5)], "with 3 channels, got shape"), ([(2, 4, 3)], r"expects \(N, H, W, C\)"),
                            ([(2, 4, 4, 3), (2, 4, 3, 3)], "residual of the shape of x, got")]:
        with pytest.raises(ShapeError, match=message):
            BatchNorm2d(3).plan(shapes, "float32", reference)


def test_without_scale(ops, dtype, rng):
    """gamma is 1 and no parameter: as with a gamma of 1, bit for bit, forward and backward."""
    x, dy = rng.standard_normal((2, 4, 3, 2, 5)).astype(dtype)
    plain, fixed = (Run(ops, BatchNorm2d(5, scale=scale, bias_init=0.1), [x]) for scale in (True, False))
    assert list(fixed.layer.params) == ["b"]
    np.testing.assert_array_equal(fixed.y, plain.y)
    found, wanted = fixed.backward(dy), plain.backward(dy)
    for name in ("dx", "db"):
        np.testing.assert_array_equal(found[name], wanted[name])
