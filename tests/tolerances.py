"""The table of tolerances. Every numerical comparison in the tests uses a class of this table.

A value passes when |got - wanted| <= rtol * |wanted| + atol * sqrt(terms); `terms` is the number of products, of size
about 1, that are summed for one value (1 otherwise). The expected values are computed in float64 from the same inputs.
To widen an entry, write the measured error beside it.
"""

from __future__ import annotations

import numpy as np

#                           (rtol, atol)             (rtol, atol)
TOLERANCES = {
    "exact":       {"float32": (0, 0), "float64": (0, 0)},               # copies, maxima, masks, indices
    "elementwise": {"float32": (1e-5, 1e-6), "float64": (1e-13, 1e-14)},     # a few roundings, exp, pow, short sums
    "sum":         {"float32": (1e-5, 4e-6), "float64": (1e-13, 1e-14)},     # products; 1.6e-6 measured, 600 terms
    "winograd":    {"float32": (1e-5, 1e-4)},                                # both; 3.7e-5 measured, 1152 terms
    "torch":       {"float32": (1e-6, 1e-6), "float64": (1e-6, 1e-6)},       # against vectors from PyTorch
    "numeric":     {"float64": (1e-5, 1e-7)},                                # central differences
}


def assert_close(got: np.ndarray, wanted: np.ndarray, kind: str, terms: int = 1) -> None:
    """Assert that `got` has the shape of `wanted` and is within the tolerances of its dtype."""
    assert got.shape == wanted.shape, f"shape {got.shape}, wanted {wanted.shape}"
    if got.dtype.kind != "f" or kind == "exact":
        np.testing.assert_array_equal(got, wanted)
        return
    rtol, atol = TOLERANCES[kind][got.dtype.name]
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol * np.sqrt(terms))
