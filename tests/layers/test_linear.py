"""Fully connected: gradients on random shapes, a small example, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.builder import Builder
from minicnn.errors import ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.base import Context
from minicnn.layers.linear import Linear
from tests.cuda_emulator.device import extent
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass
from tests.tolerances import assert_close


@settings(max_examples=20)
@given(batch=st.integers(2, 5), features=st.tuples(st.integers(1, 9), st.integers(3, 9)), relu=st.booleans(),
       bias=st.booleans())
def test_gradients(ops, batch, features, relu, bias):
    must_pass(check_layer(Linear(*features, bias=bias), [(batch, features[0])], ops=ops, relu=relu, **extent(ops)))


def test_example(ops):
    layer = Linear(2, 3)
    layer.init_params("fc", 0, "float64")
    layer.params["w"].data = ops.from_host(np.array([[1.0, 2, 3], [4, 5, 6]]))
    layer.params["b"].data = ops.from_host(np.array([0.5, 0, -0.5]))
    np.testing.assert_array_equal(applied(ops, layer, np.array([[1.0, 10.0]])), [[41.5, 52, 62.5]])


@settings(max_examples=10)
@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4), relu=st.booleans())
def test_gradients_on_maps(ops, shape, relu):
    must_pass(check_layer(Linear(3, 5), [(*shape, 3)], ops=ops, relu=relu, **extent(ops)))


@pytest.mark.parametrize("shape", [(2, 4, 5, 37), (3, 6, 37), (2, 2, 3, 2, 37)], ids=str)
def test_on_maps_every_pixel_is_a_row(ops, dtype, rng, shape):
    """Output and all gradients are those of the same pixels as rows of a matrix."""
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal((*shape[:-1], 20)).astype(dtype)
    found = []
    for axes in (shape, (-1, shape[-1])):
        layer, given = Linear(37, 20), ops.from_host(x.reshape(axes))
        layer.init_params("fc", 0, dtype)
        for param in layer.params.values():
            param.data = ops.from_host(param.data)
        plan, dy_given = layer.plan([given.shape], dtype, ops), ops.from_host(dy.reshape(*axes[:-1], 20).copy())
        y, dx = ops.empty(dy_given.shape, dtype), ops.empty(given.shape, dtype)
        work = ops.empty((plan.work,), "uint8") if plan.work else None
        saved = layer.saved_for(plan, ops, [given], y)
        layer.forward(Context(ops, work=work), [given], y, saved)
        layer.backward(Context(ops, work=work), dy_given, saved, [dx])
        assert plan.out_shape == dy_given.shape and plan.macs == x.size * 20
        arrays = y.reshape(-1, 20), dx.reshape(-1, 37), layer.params["w"].grad, layer.params["b"].grad
        found.append([ops.to_host(array) for array in arrays])
    for on_maps, on_rows in zip(*found, strict=True):
        assert_close(on_maps, on_rows.astype(float), "sum", 40)


def test_errors_say_what_was_expected(ops):
    with pytest.raises(ShapeError, match=r"Linear expects 4 input features, got 5 \(shape \(2, 5\)\)"):
        Linear(4, 3)(np.zeros((2, 5), "float32"), ops=ops)
    with pytest.raises(ShapeError, match=r"36 input features, got 4 \(shape \(2, 3, 3, 4\)\); flatten it first"):
        Linear(36, 3)(np.zeros((2, 3, 3, 4), "float32"), ops=ops)
    with pytest.raises(ShapeError, match=r"Linear expects an array \(N, ..., 4\), got shape \(4,\)"):
        Linear(4, 3)(np.zeros(4, "float32"), ops=ops)


def test_a_forgotten_flatten_is_reported_at_the_loss():
    b = Builder((3, 3, 4))
    b.linear("fc", 5)
    with pytest.raises(ShapeError, match=r"got \(1, 3, 3, 5\) and \(1,\); flatten the maps"):
        b.loss()
