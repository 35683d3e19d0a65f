"""Concat, Add and Flatten: gradients for random numbers of inputs, order of the parts, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.combine import Add, Concat, Flatten, Subsample
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass


@settings(max_examples=10)
@given(widths=st.lists(st.integers(1, 4), min_size=1, max_size=4), leading=st.sampled_from([(2,), (1, 2, 3)]))
def test_gradients_of_concat(ops, widths, leading):
    must_pass(check_layer(Concat(), [(*leading, width) for width in widths], ops=ops))


@settings(max_examples=10)
@given(count=st.integers(1, 4), shape=st.sampled_from([(2, 5), (1, 2, 3, 2)]))
def test_gradients_of_add(ops, count, shape):
    must_pass(check_layer(Add(), [shape] * count, ops=ops))


def test_gradients_of_flatten(ops):
    check_layer(Flatten(), [(2, 3, 2, 4)], ops=ops).raise_if_failed()


def test_parts_keep_their_order(ops, rng):
    a, b = rng.standard_normal((2, 3, 3, 2)), rng.standard_normal((2, 3, 3, 1))
    np.testing.assert_array_equal(applied(ops, Concat(), a, b), np.concatenate([a, b], axis=3))
    np.testing.assert_array_equal(applied(ops, Flatten(), a), a.reshape(2, 18))      # height, width, channels
    np.testing.assert_array_equal(applied(ops, Add(), a, a, a), a + a + a)


def test_errors_say_what_was_expected(ops):
    a, b = np.zeros((1, 2, 2, 3), "float32"), np.zeros((1, 2, 3, 3), "float32")
    with pytest.raises(ShapeError, match=r"Concat expects inputs that agree in all axes but the last, got "
                                         r"\(1, 2, 2, 3\) and \(1, 2, 3, 3\)"):
        Concat()(a, b, ops=ops)
    with pytest.raises(ShapeError, match=r"Add expects inputs of one shape, got \(1, 2, 2, 3\) and \(1, 2, 3, 3\)"):
        Add()(a, b, ops=ops)


@settings(max_examples=10)
@given(size=st.tuples(st.integers(1, 6), st.integers(1, 6)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       widths=st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, 2)))
def test_gradients_of_subsample(ops, size, stride, widths):
    C, before, after = widths
    must_pass(check_layer(Subsample(before + C + after, stride, before=before), [(2, *size, C)], ops=ops))


def test_subsample_has_no_room_for_the_channels():
    with pytest.raises(ShapeError, match=r"to 4 channels, 2 of them before those of x, cannot hold the 3 channels"):
        Subsample(4, before=2)(np.zeros((1, 2, 2, 3), "float32"))
