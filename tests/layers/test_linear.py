"""Fully connected: gradients on random shapes, a small example, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.linear import Linear
from tests.cuda_emulator.device import extent
from tests.helpers.strategies import must_pass


@settings(max_examples=20)
@given(batch=st.integers(2, 5), features=st.tuples(st.integers(1, 9), st.integers(3, 9)), relu=st.booleans(),
       bias=st.booleans())
def test_gradients(ops, batch, features, relu, bias):
    must_pass(check_layer(Linear(*features, bias=bias), [(batch, features[0])], ops=ops, relu=relu, **extent(ops)))


def test_example(ops):
    layer = Linear(2, 3)
    layer.init_params("fc", 0, "float64")
    layer.params["w"].data[...] = [[1, 2, 3], [4, 5, 6]]
    layer.params["b"].data[...] = [0.5, 0, -0.5]
    np.testing.assert_array_equal(layer(np.array([[1.0, 10.0]]), ops=ops), [[41.5, 52, 62.5]])


def test_errors_say_what_was_expected(ops):
    with pytest.raises(ShapeError, match=r"Linear expects 4 input features, got 5 \(shape \(2, 5\)\)"):
        Linear(4, 3)(np.zeros((2, 5), "float32"), ops=ops)
    with pytest.raises(ShapeError, match=r"Linear expects an array \(N, C\), got shape \(2, 3, 3, 4\)"):
        Linear(4, 3)(np.zeros((2, 3, 3, 4), "float32"), ops=ops)
