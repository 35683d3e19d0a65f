"""Backward pass of a fused bias and ReLU: mask in place, sum into db."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close


def test_backward_equals_differences(reference, rng):
    z, b, dy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(5), rng.standard_normal((2, 3, 4, 5))
    z[np.abs(z + b) < 1e-3] += 1                                    # away from the kink

    def forward():
        return np.maximum(z + b, 0)

    dz, db = call(reference, "epilogue_backward", dy, np.ones(5), writes=(0, 1), y=forward())
    assert_close(dz, numeric_gradient(forward, z, dy), "numeric")
    assert_close(db - 1, numeric_gradient(forward, b, dy), "numeric")                          # added to the ones


# the last two: more than 32 partial sums, which a thread of the second pass adds up, with packs and without
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 19), (2, 13, 13, 33), (1, 7), (67, 131), (2130, 64),
                                   (1060, 33)], ids=str)
def test_equals_reference(ops, dtype, rng, shape):
    dy, y = rng.standard_normal(shape).astype(dtype), np.maximum(rng.standard_normal(shape), 0).astype(dtype)
    db = rng.standard_normal(shape[-1]).astype(dtype)
    terms = dy.size // shape[-1]
    compare(ops, "epilogue_backward", dy, db, writes=(0, 1), kind="sum", terms=terms, y=y)
    compare(ops, "epilogue_backward", dy, db, writes=(1,), kind="sum", terms=terms)         # without y, dy stays
    compare(ops, "epilogue_backward", dy, garbage(db.shape, dtype), writes=(1,), kind="sum", terms=terms, add=False)
    masked = compare(ops, "epilogue_backward", dy, None, writes=(0,), kind="exact", y=y)
    np.testing.assert_array_equal(masked, np.where(y > 0, dy, 0))
    np.testing.assert_array_equal(call(ops, "epilogue_backward", dy, None, writes=(0,)), dy)
