"""Dropout: gradients, the paper's convention and inverted dropout, and the dependencies of its mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ConfigError
from minicnn.gradcheck import check_layer
from minicnn.layers.dropout import Dropout
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass


@settings(max_examples=15)
@given(rate=st.sampled_from([0.0, 0.2, 0.5, 0.7]), inverted=st.booleans(), train=st.booleans(),
       shape=st.sampled_from([(1, 31), (3, 12), (2, 3, 3, 3)]))
def test_gradients(ops, rate, inverted, train, shape):
    must_pass(check_layer(Dropout(rate, inverted=inverted), [shape], ops=ops, train=train))


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_expectation_equals_test_mode(ops, rate):
    """Over 30,000 units: the mean output in training equals the output in test mode."""
    x = np.ones((10, 3000))
    for inverted in (False, True):
        layer = Dropout(rate, inverted=inverted)
        train, test = applied(ops, layer, x, train=True), applied(ops, layer, x)
        scale = 1 / (1 - rate) if inverted else 1.0
        assert set(np.unique(train)) == {0.0, scale}
        assert abs(train.mean() - test.mean()) < 5 * scale * np.sqrt(rate * (1 - rate) / x.size)
        np.testing.assert_array_equal(test, np.full_like(x, 1.0 if inverted else 1 - rate))


def test_mask_depends_on_image_and_epoch(ops):
    """Independent of the batch of an image; different for another image, epoch or seed."""
    x, layer = np.ones((4, 200)), Dropout(0.5)

    def mask(ids, **counter):
        return applied(ops, layer, x[:len(ids)], train=True, sample_ids=np.array(ids, np.uint32), **counter)

    base = mask([3, 8, 5, 1], epoch=2, seed=6)
    np.testing.assert_array_equal(mask([5, 3], epoch=2, seed=6), base[[2, 0]])
    assert (base[0] != base[1]).mean() > 0.3
    for other in (mask([3, 8, 5, 1], epoch=3, seed=6), mask([3, 8, 5, 1], epoch=2, seed=7)):
        assert (base != other).mean() > 0.3


def test_rate_zero_changes_nothing(ops, rng):
    x = rng.standard_normal((3, 7))
    np.testing.assert_array_equal(applied(ops, Dropout(0.0), x, train=True), x)


@pytest.mark.parametrize("rate", [1.0, -0.1, 2])
def test_errors_say_what_was_expected(rate):
    with pytest.raises(ConfigError, match=rf"Dropout: rate = {rate} must be in \[0, 1\)"):
        Dropout(rate)
