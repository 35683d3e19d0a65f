"""The checker itself: it finds wrong gradients, handles kinks, counts skipped elements, and names the worst one."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.errors import ConfigError
from minicnn.gradcheck import GradientError, check_layer, check_net
from minicnn.gradcheck.cases import GROUPS, LAYERS, NETS, REDUCED, names, reduced
from minicnn.layers.activation import ReLU
from minicnn.layers.base import Layer, LayerPlan
from minicnn.layers.linear import Linear
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.layers.pool import MaxPool2d
from minicnn.models.registry import MODELS, find, full_name
from tests.cuda_emulator.device import extent
from tests.helpers.graphs import images, small


class Cube(Layer):
    """y = x^3 in NumPy; subclasses below introduce errors."""

    factor = 3.0

    def plan(self, in_shapes, dtype, ops):
        return LayerPlan(tuple(in_shapes[0]), saves=("x",))

    def forward(self, ctx, xs, y, saved):
        y[...] = xs[0]**3

    def backward(self, ctx, dy, saved, dxs):
        dxs[0][...] = self.factor * saved["x"]**2 * dy


def test_correct_custom_layer():
    report = check_layer(Cube(), [(3, 4)]).raise_if_failed()
    (row,) = report.rows
    assert report.ok and (row.name, row.checked, row.skipped) == ("x", 12, 0)
    assert row.error < 1e-8 and row.analytic == pytest.approx(row.numeric, rel=1e-8)


class OneElementWrong(Cube):
    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, dy, saved, dxs)
        dxs[0][2, 1] *= 1.0001


def test_one_wrong_element_is_found_and_named():
    """A relative error of 1e-4 in a single element."""
    report = check_layer(OneElementWrong(), [(3, 4)])
    (row,) = report.rows
    assert not report.ok and row.where == "[2,1]" and row.failed == 1
    assert row.analytic / row.numeric == pytest.approx(1.0001, rel=1e-7)
    assert row.error == pytest.approx(1e-4, rel=1e-3)
    assert "1 of 12 differ" in str(report) and "[2,1]" in str(report) and "OneElementWrong" in str(report)
    with pytest.raises(GradientError, match="1 of 12 differ"):
        report.raise_if_failed()


def test_a_wrong_element_of_a_large_tensor_is_found_by_directions():
    """Above 500 elements only a sample is checked element by element; random directions cover the rest."""
    class Broken(Cube):
        def backward(self, ctx, dy, saved, dxs):
            super().backward(ctx, dy, saved, dxs)
            dxs[0].reshape(-1)[7] += 1

    assert check_layer(Cube(), [(40, 40)]).ok
    report = check_layer(Broken(), [(40, 40)])
    (row,) = report.rows
    assert not report.ok and row.where.startswith("direction") and row.checked == 65


class WritesPartOfY(Cube):
    def forward(self, ctx, xs, y, saved):
        y[1:] = xs[0][1:]**3


class ChangesX(Cube):
    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, dy, saved, dxs)
        saved["x"][0] += 1


class AddsToDx(Cube):
    def backward(self, ctx, dy, saved, dxs):
        dxs[0] += 3 * saved["x"]**2 * dy


class Zero(Cube):
    def forward(self, ctx, xs, y, saved):
        y[...] = 1

    def backward(self, ctx, dy, saved, dxs):
        dxs[0][...] = 0


@pytest.mark.parametrize(("layer", "message"), [
    (WritesPartOfY, "forward did not write all of y, or wrote NaN"),
    (ChangesX, "forward or backward changed x, which is read-only"),
    (AddsToDx, "backward did not write all of dx, or wrote NaN"),
    (Zero, "the gradient is identically zero: the check is vacuous"),
])
def test_violations_of_the_interface_are_named(layer, message):
    report = check_layer(layer(), [(3, 4)])
    assert not report.ok and message in str(report)


def test_layer_that_writes_parameter_gradients_is_found():
    class Writing(Linear):
        def backward(self, ctx, dy, saved, dxs):
            for param in self.params.values():
                param.grad[...] = 0
            super().backward(ctx, dy, saved, dxs)

    rows = check_layer(Writing(4, 3), [(2, 4)]).rows
    assert {row.name: row.ok for row in rows} == {"x": True, "w": False, "b": False}


def test_an_upstream_gradient_of_ones_would_miss_it():
    """Why dy is random: for dy = 1 the gradient of a softmax is zero, and so is this wrong gradient."""
    class Softmax(Layer):
        def plan(self, in_shapes, dtype, ops):
            return LayerPlan(tuple(in_shapes[0]), saves=("y",))

        def forward(self, ctx, xs, y, saved):
            ctx.ops.softmax_forward(xs[0], y)

        def backward(self, ctx, dy, saved, dxs):
            y = saved["y"]
            dxs[0][...] = y * (dy - (y * dy).sum(axis=1, keepdims=True))

    class WrongSoftmax(Softmax):
        def backward(self, ctx, dy, saved, dxs):
            dxs[0][...] = 0

    assert check_layer(Softmax(), [(3, 5)]).ok
    assert not check_layer(WrongSoftmax(), [(3, 5)]).ok


def test_kinks_are_skipped_and_counted():
    """Six of 200 values are within a hundredth of the smallest step of the kink: 3 %, which is allowed."""
    x = np.random.default_rng(0).standard_normal((20, 10))
    x[3, :6] = 1e-9
    report = check_layer(ReLU(), xs=[x])
    assert report.ok and (report.rows[0].checked, report.rows[0].skipped) == (194, 6)


def test_too_many_kinks_fail():
    report = check_layer(ReLU(), xs=[np.where(np.arange(100) < 6, 0.0, 1.0).reshape(10, 10)])
    assert not report.ok and "6 of 100 skipped at kinks (limit 5%)" in str(report)


def test_near_kinks_the_step_gets_smaller():
    """A value 3e-6 from the kink is still checked, with a smaller step."""
    x = np.random.default_rng(0).standard_normal((4, 5))
    x[1, 2] = 3e-6
    report = check_layer(ReLU(), xs=[x])
    assert report.ok and report.rows[0].checked == 20


def test_ties_of_a_max_pool_are_kinks():
    x = np.random.default_rng(0).standard_normal((1, 12, 12, 1))
    x[0, 0, :2] = 9.0
    report = check_layer(MaxPool2d(2), xs=[x])
    assert report.ok and (report.rows[0].checked, report.rows[0].skipped) == (142, 2)


def test_reports_are_reproducible():
    first, second = (str(check_layer(Linear(4, 3), [(2, 4)])) for _ in range(2))
    assert first == second != str(check_layer(Linear(4, 3), [(2, 4)], seed=1))


def test_loss_layer_with_given_labels():
    check_layer(SoftmaxCrossEntropy(), [(3, 4)], labels=[0, 3, 3]).raise_if_failed()


def test_invalid_checks_are_rejected():
    with pytest.raises(ConfigError, match="give in_shapes"):
        check_layer(ReLU())
    with pytest.raises(ConfigError, match="no tensor 'v'; expected one of x, w, b"):
        check_layer(Linear(2, 2), [(2, 2)], only=["v"])
    with pytest.raises(ConfigError, match="must be made with dtype='float64', got float32"):
        net = small(dtype="float32")
        check_net(net, *images(net))


# ---- networks

def test_net_is_not_changed():
    net = small("reference")
    x, labels = images(net)
    before, ops = {name: param.data.copy() for name, param in net.params.items()}, net.ops
    report = check_net(net, x, labels, elementwise=20, coordinates=5).raise_if_failed()
    assert [row.name for row in report.rows] == ["x", *net.params]
    assert net.ops is ops
    for name, param in net.params.items():
        np.testing.assert_array_equal(param.data, before[name])


@pytest.mark.parametrize("with_labels", [True, False])
def test_wrong_gradient_in_a_net_is_found(with_labels):
    net = small("reference")
    x, labels = images(net)
    layer = next(node.layer for node in net.nodes if node.name == "fc3")
    backward = layer.backward

    def broken(ctx, dy, saved, dxs):
        backward(ctx, dy, saved, dxs)
        layer.params["w"].grad[...] *= 1.01
    layer.backward = broken
    rows = []
    report = check_net(net, x, labels if with_labels else None, only=["conv2.b", "fc3.w", "fc4.w"], on_row=rows.append)
    assert {row.name: row.ok for row in rows} == {"conv2.b": True, "fc3.w": False, "fc4.w": True}
    assert rows == report.rows and report.worst.name == "fc3.w"


# ---- the cases of the command line

@pytest.mark.parametrize("kind", LAYERS)
def test_every_case_passes(ops, kind):
    for case in LAYERS[kind]:
        case.run(ops, **extent(ops)).raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("name", NETS)
def test_every_network_passes(name, device):
    NETS[name].run(device).raise_if_failed()


def test_names():
    assert names("lrn") == ["lrn"] and names("layers") == list(LAYERS) and names("all") == [*LAYERS, *NETS]
    assert not set(LAYERS) & set(NETS) and not set(GROUPS) & {*LAYERS, *NETS}
    with pytest.raises(ConfigError, match="called 'lnr': did you mean 'lrn'. expected one of layers, models, all"):
        names("lnr")


def test_every_model_has_a_reduced_net():
    """Of its own variant, where that has one; and every reduced net is of some model."""
    found = {full_name(model, variant): names(full_name(model, variant))
             for model, entry in MODELS.items() for variant in entry.variants}
    assert {name for case in found.values() for name in case} == set(NETS) - {"fork"}
    for case, (model, _) in REDUCED.items():
        assert found[full_name(*find(model))] == [case]
    with pytest.raises(ConfigError, match="own_net has no reduced net whose gradients are checked"):
        reduced("own_net")


def test_default_backend_is_the_reference():
    assert check_layer(ReLU(), [(2, 9)]).title.endswith(get_ops("reference").name)
