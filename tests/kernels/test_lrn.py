"""Local response normalisation. With the paper's alpha = 1e-4 a backward without its cross-channel term is hardly
noticed, so alpha = 1 is tested first; and results are compared with PyTorch's, by vectors that make_lrn.py wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

CONSTANTS = {"alpha 1": {"k": 1.0, "alpha": 1.0, "beta": 0.75}, "paper": {"k": 2.0, "alpha": 1e-4, "beta": 0.75},
             "beta 0.5": {"k": 1.5, "alpha": 0.3, "beta": 0.5}}
# x (N, H, W, C), n, groups: fewer channels than the window, and groups narrower than half of it
ACROSS = [((2, 2, 3, 7), 5, 1), ((1, 1, 1, 1), 5, 1), ((1, 3, 2, 3), 5, 1), ((2, 1, 2, 8), 3, 2), ((1, 2, 2, 6), 5, 6),
          ((1, 2, 1, 12), 9, 3), ((1, 2, 2, 5), 1, 1)]
WITHIN = [((2, 4, 5, 3), 3), ((1, 1, 1, 2), 5), ((1, 2, 6, 1), 5), ((1, 7, 3, 2), 1)]
LARGE_ACROSS = [((2, 5, 5, 96), 5, 2), ((3, 9, 7, 67), 5, 1), ((2, 4, 4, 256), 5, 2), ((1, 3, 3, 45), 9, 5),
                ((1, 3, 3, 40), 43, 1)]
LARGE_WITHIN = [((2, 13, 11, 19), 5), ((1, 9, 9, 64), 3), ((1, 5, 4, 17), 9)]


def check_reference(ops, name, rng, shape, wanted, **options):
    """Forward against loops, backward against differences."""
    x, dy = rng.standard_normal(shape), rng.standard_normal(shape)

    def forward():
        return call(ops, f"{name}_forward", x, garbage(shape, "float64"), writes=(1,), **options)

    assert_close(forward(), wanted(x, **options), "elementwise")
    dx = call(ops, f"{name}_backward", x, dy, garbage(shape, "float64"), writes=(2,), **options)
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize(("shape", "n", "groups"), ACROSS)
def test_across_equals_loops_and_differences(reference, rng, shape, n, groups, constants):
    check_reference(reference, "lrn", rng, shape, naive.lrn, n=n, groups=groups, **CONSTANTS[constants])


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize(("shape", "n"), WITHIN)
def test_within_equals_loops_and_differences(reference, rng, shape, n, constants):
    check_reference(reference, "lrn_within", rng, shape, naive.lrn_within, n=n, **CONSTANTS[constants])


def check(ops, name, rng, dtype, shape, **options):
    """Forward and backward against the reference."""
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    compare(ops, f"{name}_forward", x, garbage(shape, dtype), writes=(1,), kind="elementwise", **options)
    compare(ops, f"{name}_backward", x, dy, garbage(shape, dtype), writes=(2,), kind="elementwise", **options)


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize(("shape", "n", "groups"), ACROSS + LARGE_ACROSS)
def test_across_equals_reference(ops, dtype, rng, shape, n, groups, constants):
    check(ops, "lrn", rng, dtype, shape, n=n, groups=groups, **CONSTANTS[constants])


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize(("shape", "n"), WITHIN + LARGE_WITHIN)
def test_within_equals_reference(ops, dtype, rng, shape, n, constants):
    check(ops, "lrn_within", rng, dtype, shape, n=n, **CONSTANTS[constants])


@given(N=st.integers(1, 3), H=st.integers(1, 5), W=st.integers(1, 5), D=st.integers(1, 40), groups=st.integers(1, 3),
       half=st.integers(0, 5), constants=st.sampled_from(list(CONSTANTS.values())), seed=st.integers(0, 99))
def test_any_shape_equals_reference(ops, dtype, N, H, W, D, groups, half, constants, seed):
    rng, shape = np.random.default_rng(seed), (N, H, W, groups * D)
    check(ops, "lrn", rng, dtype, shape, n=2 * half + 1, groups=groups, **constants)
    check(ops, "lrn_within", rng, dtype, shape, n=2 * half + 1, **constants)


@pytest.mark.parametrize("channels", [19, 20])
@pytest.mark.parametrize("name", ["lrn", "lrn_within"])
def test_nan_stays_in_its_row_or_map(ops, dtype, name, channels):
    """Rows are side by side in the strips of a fast kernel: NaN in one must not reach the next."""
    x = np.ones((2, 3, 3, channels), dtype)
    if name == "lrn":
        x[0, 1, 1] = np.nan
    else:
        x[0, :, :, 18] = np.nan
    options = {"n": 5, **CONSTANTS["paper"]}
    y = call(ops, f"{name}_forward", x, garbage(x.shape, dtype), writes=(1,), **options)
    dx = call(ops, f"{name}_backward", x, np.ones_like(x), garbage(x.shape, dtype), writes=(2,), **options)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(x))


def test_equals_pytorch_on_each_half(ops, dtype):
    vectors = np.load(Path(__file__).parents[1] / "vectors" / "lrn_torch.npz")
    x, dy, y, dx = (vectors[name].astype(dtype) for name in ("x", "dy", "y", "dx"))
    options = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "groups": 2}
    assert_close(call(ops, "lrn_forward", x, garbage(x.shape, dtype), writes=(1,), **options), y, "torch")
    assert_close(call(ops, "lrn_backward", x, dy, garbage(x.shape, dtype), writes=(2,), **options), dx, "torch")
