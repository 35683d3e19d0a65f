"""ReLU and tanh, into a new array and in place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 1001), (1, 70001)]
FUNCTIONS = {"relu": lambda v: v if v > 0 else 0.0, "tanh": math.tanh}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_forward_equals_loop_and_backward_differences(reference, rng, kind):
    x, dy = rng.standard_normal((3, 50)), rng.standard_normal((3, 50))
    x[np.abs(x) < 1e-3] = 0.5                                       # away from the kink

    def forward():
        return call(reference, f"{kind}_forward", x, garbage(x.shape, "float64"), writes=(1,))

    y = forward()
    assert_close(y, np.vectorize(FUNCTIONS[kind])(x), "elementwise")
    dx = call(reference, f"{kind}_backward", y, dy, garbage(x.shape, "float64"), writes=(2,))
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_equals_reference(ops, dtype, rng, kind, shape):
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    x[..., 0] = 0                                                   # relu'(0) is 0
    tolerance = "exact" if kind == "relu" else "elementwise"
    y = compare(ops, f"{kind}_forward", x, garbage(shape, dtype), writes=(1,), kind=tolerance)
    dx = compare(ops, f"{kind}_backward", y, dy, garbage(shape, dtype), writes=(2,), kind=tolerance)
    compare(ops, f"{kind}_forward", x, x, writes=(1,), kind=tolerance)                         # in place
    compare(ops, f"{kind}_backward", y, dy, dy, writes=(2,), kind=tolerance)
    assert kind == "tanh" or not dx[..., 0].any()
