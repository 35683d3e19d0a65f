"""ReLU and tanh: gradients on drawn shapes, and the value at the kink."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.gradcheck import check_layer
from minicnn.layers.activation import ReLU, Tanh
from minicnn.layers.base import Context
from tests.helpers.strategies import must_pass


@pytest.mark.parametrize("kind", [ReLU, Tanh])
@settings(max_examples=15)
@given(shape=st.one_of(st.tuples(st.integers(1, 4), st.integers(6, 40)),
                       st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(2, 5), st.integers(3, 5))))
def test_gradients(ops, kind, shape):
    must_pass(check_layer(kind(), [shape], ops=ops))


def test_relu_at_the_kink(ops, dtype):
    """relu(0) = 0, and the slope there is taken as 0."""
    x, dx = np.array([[-1.0, -0.0, 0.0, 1e-30, 2.0]], dtype), np.empty((1, 5), dtype)
    y = ReLU()(x, ops=ops)
    np.testing.assert_array_equal(y, np.array([[0, 0, 0, 1e-30, 2]], dtype))
    ReLU().backward(Context(ops), np.full((1, 5), 3, dtype), {"y": y}, [dx])
    np.testing.assert_array_equal(dx, np.array([[0, 0, 0, 3, 3]], dtype))


def test_tanh_saturates(ops):
    np.testing.assert_array_equal(Tanh()(np.array([[-1e3, 0.0, 1e3]]), ops=ops), [[-1, 0, 1]])
