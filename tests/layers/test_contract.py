"""Properties that every kind of layer must have, on every backend and in both precisions. The layers and shapes are
those of `minicnn gradcheck`, plus a batch of one."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.gradcheck.cases import LAYERS
from minicnn.layers.base import Context
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.rng import purpose_id
from tests.tolerances import assert_close

CASES = [pytest.param(case, id=f"{kind}-{i}") for kind, cases in LAYERS.items() for i, case in enumerate(cases)]
TERMS = 40      # bound on the number of products per output value in these small layers, for the tolerance


class Trial:
    """A layer on random inputs, run as in a network: allocate arrays, forward, then backward."""

    def __init__(self, case, ops, dtype, batch=None):
        rng = np.random.default_rng(7)
        self.layer, self.ops, self.dtype, self.train = case.make(), ops, dtype, case.options.get("train", True)
        self.relu = case.options.get("relu", False)
        shapes = [(batch or shape[0], *shape[1:]) for shape in case.in_shapes]
        self.xs = [rng.standard_normal((4, *shape[1:]))[:shape[0]].astype(dtype) for shape in shapes]
        self.inputs = [ops.from_host(x) for x in self.xs]
        if self.layer.is_loss:
            self.inputs.append(ops.from_host(np.arange(shapes[0][0], dtype=np.int32) % shapes[0][1]))
        self.layer.init_params("layer", 3, dtype)
        for param in self.layer.params.values():
            param.data = ops.from_host(rng.standard_normal(param.data.shape).astype(dtype))
        self.layer.state = {name: ops.from_host((array + rng.random(array.shape)).astype(dtype))
                            for name, array in self.layer.state.items()}
        self.plan = self.layer.plan([x.shape for x in self.inputs], dtype, ops)
        self.ids = np.arange(5, 5 + shapes[0][0], dtype=np.uint32)
        self.ctx = Context(ops, self.train, 1, 2, self.ids, purpose_id("layer"), relu=self.relu)

    def forward(self, in_place=False):
        if self.layer.is_view:
            return self.inputs[0].reshape(self.plan.out_shape)
        y = self.inputs[0] if in_place else self.ops.empty(self.plan.out_shape, self.dtype)
        self.saved = self.layer.saved_for(self.plan, self.ops, self.inputs, y) | ({"y": y} if self.relu else {})
        self.ctx.work = self.ops.empty((self.plan.work,), "uint8") if self.plan.work else None
        self.layer.forward(self.ctx, self.inputs, y, self.saved)
        return y

    def backward(self, dy, wanted=None, in_place=False):
        """dxs and the gradients of the parameters; `wanted`: which inputs need one."""
        dy = self.ops.from_host(dy.copy())
        wanted = wanted or [True] * len(self.xs)
        dxs = [(dy if in_place else self.ops.empty(x.shape, self.dtype)) if want else None
               for x, want in zip(self.xs, wanted, strict=True)]
        no_gradient = [None] * (len(self.inputs) - len(dxs))
        self.layer.backward(self.ctx, dy, self.saved, [*dxs, *no_gradient])
        return dxs, {name: self.ops.to_host(param.grad).copy() for name, param in self.layer.params.items()}

    def upstream(self):
        return np.random.default_rng(8).standard_normal(self.plan.out_shape).astype(self.dtype)


@pytest.mark.parametrize("case", CASES)
def test_shape_and_dtype_are_as_planned(ops, dtype, case):
    trial = Trial(case, ops, dtype)
    y = trial.forward()
    assert y.shape == trial.plan.out_shape and y.dtype == dtype
    assert np.isfinite(ops.to_host(y)).all()


@pytest.mark.parametrize("case", CASES)
def test_equals_float64_reference(ops, dtype, case):
    """Forward and backward, in each precision, against the reference backend."""
    trial, exact = Trial(case, ops, dtype), Trial(case, get_ops("reference"), "float64")
    exact.xs = [x.astype("float64") for x in trial.xs]
    exact.inputs[:len(exact.xs)] = exact.xs
    for name, param in exact.layer.params.items():
        param.data = ops.to_host(trial.layer.params[name].data).astype("float64")
    for name, array in trial.layer.state.items():
        exact.layer.state[name] = ops.to_host(array).astype("float64")
    assert_close(ops.to_host(trial.forward()), exact.forward(), "sum", TERMS)
    if not trial.layer.is_view:
        (dxs, grads), (wanted_dxs, wanted_grads) = trial.backward(trial.upstream()), exact.backward(trial.upstream())
        for got, wanted in zip([*dxs, *grads.values()], [*wanted_dxs, *wanted_grads.values()], strict=True):
            assert_close(ops.to_host(got), wanted, "sum", TERMS)


@pytest.mark.parametrize("case", CASES)
def test_inputs_are_only_read(ops, case):
    trial = Trial(case, ops, "float32")
    before = [ops.to_host(x).copy() for x in trial.inputs]
    trial.forward()
    if not trial.layer.is_view:
        trial.backward(trial.upstream())
    for x, old in zip(trial.inputs, before, strict=True):
        np.testing.assert_array_equal(ops.to_host(x), old)


@pytest.mark.parametrize("case", CASES)
def test_called_outside_a_network(ops, case):
    """layer(x) allocates its own memory, accepts non-contiguous arrays, and equals the call in a network."""
    trial = Trial(case, ops, "float32")
    trial.ctx.train = trial.ctx.relu = trial.relu = False
    wanted = ops.to_host(trial.forward()).copy()
    strided = [np.repeat(x, 2, axis=-1)[..., ::2] for x in trial.xs]
    assert not any(x.flags.c_contiguous for x in strided)
    y = trial.layer(*strided, *trial.inputs[len(strided):], ops=ops)
    np.testing.assert_array_equal(ops.to_host(y), wanted)


@pytest.mark.parametrize("case", CASES)
def test_same_call_gives_the_same_bits(ops, case):
    trial = Trial(case, ops, "float32")
    np.testing.assert_array_equal(*(ops.to_host(trial.forward()).copy() for _ in range(2)))


def normalises_by_batch(case) -> bool:
    return isinstance(case.make(), BatchNorm2d) and case.options.get("train", True)


@pytest.mark.parametrize("case", [c for c in CASES if not normalises_by_batch(*c.values)])
def test_an_image_does_not_depend_on_its_batch(ops, case):
    """The first image alone has the same output as in a batch, including dropout."""
    alone, together = Trial(case, ops, "float64", batch=1), Trial(case, ops, "float64", batch=3)
    assert_close(ops.to_host(alone.forward()), ops.to_host(together.forward())[:1], "sum", TERMS)


@pytest.mark.parametrize("case", [c for c in CASES if not c.values[0].make().is_view])
def test_parameter_gradients_accumulate_and_do_not_need_dx(ops, case):
    trial = Trial(case, ops, "float64")
    trial.forward()
    _, once = trial.backward(trial.upstream())
    trial.forward()
    _, twice = trial.backward(trial.upstream(), wanted=[False] * len(trial.xs))
    for name in once:
        assert_close(twice[name], 2 * once[name], "sum", TERMS)


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0].make().in_place])
def test_in_place(ops, case):
    """y may be x, and dx may be dy."""
    apart, inside = Trial(case, ops, "float64"), Trial(case, ops, "float64")
    np.testing.assert_array_equal(ops.to_host(apart.forward()), ops.to_host(inside.forward(in_place=True)))
    (dx,), _ = apart.backward(apart.upstream())
    (dy,), _ = inside.backward(inside.upstream(), in_place=True)
    np.testing.assert_array_equal(ops.to_host(dx), ops.to_host(dy))


def test_every_layer_is_among_the_cases():
    from minicnn import layers

    public = {name for name in layers.__all__ if isinstance(getattr(layers, name), type)
              and issubclass(getattr(layers, name), layers.Layer) and name != "Layer"}
    assert public <= {type(case.make()).__name__ for cases in LAYERS.values() for case in cases}


def test_parameters_depend_on_seed_and_name_only():
    (first, *_), (second, *_) = LAYERS["conv"], LAYERS["conv"]
    one, other = first.make(), second.make()
    one.init_params("conv1", 5)
    other.init_params("conv1", 5, "float64")
    np.testing.assert_array_equal(one.params["w"].data, other.params["w"].data.astype("float32"))
    for name, seed in ("conv2", 5), ("conv1", 6):
        other.init_params(name, seed)
        assert (one.params["w"].data != other.params["w"].data).all()
        assert other.params["w"].name == f"{name}.w"
