"""Activations: gradients on random shapes, and values at the kinks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ConfigError
from minicnn.gradcheck import check_layer
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, Multiply, ReLU, Sigmoid, Tanh
from minicnn.layers.base import Context, Layer
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass
from tests.tolerances import assert_close


@pytest.mark.parametrize("kind", [ReLU, LeakyReLU, lambda: ClippedReLU(1.0), Tanh, Sigmoid, GELU,
                                  lambda: Multiply(1 / 9)])
@settings(max_examples=15)
@given(shape=st.one_of(st.tuples(st.integers(1, 4), st.integers(6, 40)),
                       st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(2, 5), st.integers(3, 5))))
def test_gradients(ops, kind, shape):
    must_pass(check_layer(kind(), [shape], ops=ops))


def both_ways(ops, layer: Layer, x, gradient: float) -> tuple[np.ndarray, np.ndarray]:
    """y, and dx for a constant dy."""
    y, dx, dy = layer(x, ops=ops), ops.empty(x.shape, x.dtype), ops.from_host(np.full_like(x, gradient))
    layer.backward(Context(ops), dy, {"y": y}, [dx])
    return ops.to_host(y), ops.to_host(dx)


def test_relu_at_the_kink(ops, dtype):
    """relu(0) = 0, and the derivative at 0 is taken as 0."""
    y, dx = both_ways(ops, ReLU(), np.array([[-1.0, -0.0, 0.0, 1e-30, 2.0]], dtype), 3)
    np.testing.assert_array_equal(y, np.array([[0, 0, 0, 1e-30, 2]], dtype))
    np.testing.assert_array_equal(dx, np.array([[0, 0, 0, 3, 3]], dtype))


def test_tanh_saturates(ops):
    np.testing.assert_array_equal(applied(ops, Tanh(), np.array([[-1e3, 0.0, 1e3]])), [[-1, 0, 1]])


@pytest.mark.filterwarnings("error")
def test_sigmoid_does_not_overflow(ops, dtype):
    """1 / (1 + exp(-x)) would, with a warning. Far below 0 it is exp(x), far above 1 - exp(-x)."""
    x = np.array([[-1e4, -80.0, -50.0, 0.0, 50.0, 1e4]], dtype)
    y = applied(ops, Sigmoid(), x)
    np.testing.assert_array_equal(y[0, [0, 3, 4, 5]], [0, 0.5, 1, 1])
    assert_close(y[0, 1:3] / np.exp(x[0, 1:3]), np.ones(2, dtype), "elementwise")


def test_leaky_relu_scales_negative_values(ops, dtype):
    y, dx = both_ways(ops, LeakyReLU(0.25), np.array([[-2.0, -0.0, 0.0, 3.0]], dtype), 2)
    np.testing.assert_array_equal(y, np.array([[-0.5, 0, 0, 3]], dtype))
    np.testing.assert_array_equal(dx, np.array([[0.5, 0.5, 0.5, 2]], dtype))
    with pytest.raises(ConfigError, match="LeakyReLU: slope = 0 must be positive"):
        LeakyReLU(0)


def test_the_gradient_check_skips_the_kink():
    """At x = 0 the one-sided derivatives differ: such elements are skipped, and do not fail."""
    x = np.random.default_rng(0).standard_normal((4, 40))
    x[1, 3] = 0.0
    (row,) = check_layer(LeakyReLU(0.2), xs=[x]).raise_if_failed().rows
    assert (row.checked, row.skipped) == (159, 1)


def test_clipped_relu_at_its_kinks(ops, dtype):
    y, dx = both_ways(ops, ClippedReLU(), np.array([[-1.0, 0.0, 2.0, 6.0, 7.0, 1e30]], dtype), 3)
    np.testing.assert_array_equal(y, np.array([[0, 0, 2, 6, 6, 6]], dtype))
    np.testing.assert_array_equal(dx, np.array([[0, 0, 3, 0, 0, 0]], dtype))
    with pytest.raises(ConfigError, match="ClippedReLU: ceiling = -1 must be positive"):
        ClippedReLU(-1)


def test_the_gradient_check_skips_both_kinks():
    x = np.random.default_rng(0).standard_normal((4, 40))
    x[1, 3], x[2, 7] = 0.0, 0.5
    (row,) = check_layer(ClippedReLU(0.5), xs=[x]).raise_if_failed().rows
    assert (row.checked, row.skipped) == (158, 2)


def test_multiply(ops, dtype):
    x = np.array([[-2.0, 0.0, 3.0]], dtype)
    np.testing.assert_array_equal(applied(ops, Multiply(0.25), x), x / 4)
    with pytest.raises(ConfigError, match="Multiply: factor = 0 would leave nothing"):
        Multiply(0)
