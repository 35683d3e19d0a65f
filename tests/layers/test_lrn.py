"""Local response normalisation: gradients for random windows (alpha = 1: all terms matter), the formula, groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.lrn import LRN, LRNWithin
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass
from tests.tolerances import assert_close

constants = st.fixed_dictionaries({"n": st.sampled_from([1, 3, 5, 9]), "k": st.sampled_from([1.0, 2.0]),
                                   "alpha": st.sampled_from([1.0, 0.1]), "beta": st.sampled_from([0.5, 0.75, 1.0]),
                                   "divide_alpha": st.booleans()})


@settings(max_examples=20)
@given(constants=constants, groups=st.integers(1, 3), width=st.integers(1, 7), batch=st.integers(1, 2))
def test_gradients_across(ops, constants, groups, width, batch):
    must_pass(check_layer(LRN(groups=groups, **constants), [(batch, 2, 3, groups * width)], ops=ops))


@settings(max_examples=20)
@given(constants=constants, size=st.tuples(st.integers(1, 6), st.integers(1, 6)), batch=st.integers(1, 2))
def test_gradients_within(ops, constants, size, batch):
    must_pass(check_layer(LRNWithin(**constants), [(batch, *size, 2)], ops=ops))


def test_formula_of_the_paper(ops, rng):
    """Section 3.3, term by term: k = 2, n = 5, alpha = 1e-4, beta = 0.75, on values as large as AlexNet's."""
    a = 100 * rng.standard_normal((2, 2, 3, 9))
    wanted = np.empty_like(a)
    for i in range(9):
        total = sum(a[..., j]**2 for j in range(max(0, i - 2), min(8, i + 2) + 1))
        wanted[..., i] = a[..., i] / (2 + 1e-4 * total)**0.75
    assert_close(applied(ops, LRN(), a), wanted, "elementwise")


def test_groups_are_separate(ops, rng):
    """Two groups are the two GPUs of Figure 2: each normalises its own maps."""
    x = rng.standard_normal((2, 3, 3, 8))
    halves = [applied(ops, LRN(alpha=1.0), x[..., half]) for half in (slice(0, 4), slice(4, 8))]
    assert_close(applied(ops, LRN(alpha=1.0, groups=2), x), np.concatenate(halves, axis=3), "elementwise")


def test_divided_alpha(ops, rng):
    x = rng.standard_normal((1, 5, 5, 7))
    for divided, plain in ((LRN(5, alpha=1.0, divide_alpha=True), LRN(5, alpha=0.2)),
                           (LRNWithin(3, alpha=1.0, divide_alpha=True), LRNWithin(3, alpha=1 / 9))):
        assert_close(applied(ops, divided, x), applied(ops, plain, x), "elementwise")


def test_within_reads_a_square_of_the_same_map(ops):
    x = np.zeros((1, 7, 7, 2))
    x[0, 3, 3, 0] = 10
    x[0, :, :, 1] = 1
    y = applied(ops, LRNWithin(3, k=1.0, alpha=1.0, beta=1.0), x)
    assert_close(y[0, 3, 3, 0], np.float64(10 / 101), "elementwise")
    assert_close(y[0, :2, 3, 1], np.array([1 / 7, 1 / 10]), "elementwise")      # 6 neighbours at the border, 9 inside


@pytest.mark.parametrize("kind", [LRN, LRNWithin])
def test_errors_say_what_was_expected(ops, kind):
    with pytest.raises(ConfigError, match=f"{kind.__name__}: the window n = 4 must be odd"):
        kind(4)
    with pytest.raises(ShapeError, match=rf"{kind.__name__} expects an array \(N, H, W, C\), got shape \(2, 8\)"):
        kind()(np.zeros((2, 8), "float32"), ops=ops)
    with pytest.raises(ShapeError, match="LRN with groups = 2 must divide the channels, got 5"):
        LRN(groups=2)(np.zeros((1, 2, 2, 5), "float32"), ops=ops)
