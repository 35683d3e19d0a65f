"""Fully connected layer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels import naive
from tests.kernels.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

SHAPES = [(1, 1, 1), (1, 37, 5), (3, 7, 6), (67, 129, 131)]         # N, in, out


def arrays(rng, dtype, N, C, K):
    """x, w, b, dy."""
    return (rng.standard_normal(shape).astype(dtype) for shape in ((N, C), (C, K), K, (N, K)))


def test_forward_equals_loops(reference, rng):
    x, w, b, dy = arrays(rng, "float64", 3, 7, 6)
    y = call(reference, "linear_forward", x, w, garbage(dy.shape, "float64"), writes=(2,), epilogue=(b, False))
    assert_close(y, naive.linear(x, w, b), "sum")


def test_backward_equals_differences(reference, rng):
    x, w, _, dy = arrays(rng, "float64", 3, 7, 6)

    def forward():
        return call(reference, "linear_forward", x, w, garbage(dy.shape, "float64"), writes=(2,))

    dx = call(reference, "linear_backward_data", dy, w, garbage(x.shape, "float64"), writes=(2,))
    dw = call(reference, "linear_backward_weights", x, dy, np.ones_like(w), writes=(2,))
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")
    assert_close(dw - 1, numeric_gradient(forward, w, dy), "numeric")                          # added to the ones


@pytest.mark.parametrize("given", [False, True], ids=["own work space", "given work space"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(ops, dtype, rng, shape, given):
    (N, C, K), (x, w, b, dy) = shape, arrays(rng, dtype, *shape)
    work = np.full(ops.linear_work(x.shape, w.shape, dtype), 255, np.uint8) if given else None
    for epilogue in ((None, False), (None, True), (b, False), (b, True)):
        y = compare(ops, "linear_forward", x, w, garbage(dy.shape, dtype), writes=(2,), kind="sum", terms=C, work=work,
                    epilogue=epilogue)
        assert not epilogue[1] or y.min() >= 0
    compare(ops, "linear_backward_data", dy, w, garbage(x.shape, dtype), writes=(2,), kind="sum", terms=K, work=work)
    compare(ops, "linear_backward_weights", x, dy, w.copy(), writes=(2,), kind="sum", terms=N, work=work)
