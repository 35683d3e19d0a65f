"""Activations, into a new array and in place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 1001), (1, 70001)]
FUNCTIONS = {"relu": lambda v: v if v > 0 else 0.0, "leaky_relu": lambda v: v if v > 0 else 0.3 * v,
             "clipped_relu": lambda v: min(max(v, 0.0), 0.75), "tanh": math.tanh,
             "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
             "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2}
SAVES_X = ("gelu",)
OPTIONS = {"leaky_relu": {"slope": 0.3}, "clipped_relu": {"ceiling": 0.75}}      # exact in both types


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_forward_equals_loop_and_backward_differences(reference, rng, kind):
    x, dy, options = rng.standard_normal((3, 50)), rng.standard_normal((3, 50)), OPTIONS.get(kind, {})
    x[np.minimum(np.abs(x), np.abs(x - 0.75)) < 1e-3] = 0.5          # away from the kinks

    def forward():
        return call(reference, f"{kind}_forward", x, garbage(x.shape, "float64"), writes=(1,), **options)

    y = forward()
    assert_close(y, np.vectorize(FUNCTIONS[kind])(x), "elementwise")
    saved = x if kind in SAVES_X else y
    dx = call(reference, f"{kind}_backward", saved, dy, garbage(x.shape, "float64"), writes=(2,), **options)
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_equals_reference(ops, dtype, rng, kind, shape):
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    x[..., 0] = 0                                                   # relu'(0) is 0
    tolerance, options = "exact" if kind == "relu" else "elementwise", OPTIONS.get(kind, {})
    y = compare(ops, f"{kind}_forward", x, garbage(shape, dtype), writes=(1,), kind=tolerance, **options)
    y = x if kind in SAVES_X else y
    dx = compare(ops, f"{kind}_backward", y, dy, garbage(shape, dtype), writes=(2,), kind=tolerance, **options)
    compare(ops, f"{kind}_forward", x, x, writes=(1,), kind=tolerance, **options)                         # in place
    compare(ops, f"{kind}_backward", y, dy, dy, writes=(2,), kind=tolerance, **options)
    assert kind != "relu" or not dx[..., 0].any()


def test_gelu_everywhere(ops, dtype):
    """Also where its parts have their limits: 0 far below, x far above, and derivatives 0 and 1."""
    x = np.linspace(-40, 40, 40_001).astype(dtype)
    y = compare(ops, "gelu_forward", x, garbage(x.shape, dtype), writes=(1,), kind="elementwise")
    dx = compare(ops, "gelu_backward", x, np.ones_like(x), garbage(x.shape, dtype), writes=(2,), kind="elementwise")
    np.testing.assert_allclose(y[[0, -1]], [0, 40], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(dx[[0, -1]], [0, 1], atol=1e-6)
