"""ZFNet's limit of the RMS of filters."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.harness import call, compare

LIMIT = 0.1


def filters(rng, shape, dtype):
    """RMS around the limit: some above it, some below."""
    return (rng.standard_normal(shape) * rng.choice([0.02, 0.08, 0.3, 2.0], shape[-1])).astype(dtype)


def rms(w):
    return np.sqrt(np.mean(np.square(w, dtype=np.float64), axis=(0, 1, 2)))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 3, 5, 7), (2, 1, 33, 40), (7, 7, 3, 96)])
def test_no_filter_is_above_it_and_those_below_are_untouched(ops, dtype, rng, shape):
    w = filters(rng, shape, dtype)
    w[..., 0] = 4.0                                                        # at least one above
    got = compare(ops, "rms_limit_step", w, writes=(0,), kind="elementwise", limit=LIMIT)
    assert (rms(got) <= LIMIT * (1 + 1e-6)).all() and rms(got)[0] == pytest.approx(LIMIT, rel=1e-6)
    below = rms(w) <= LIMIT * (1 - 1e-6)
    np.testing.assert_array_equal(got[..., below], w[..., below])
    for k in np.flatnonzero(~below):                                       # the direction stays
        np.testing.assert_allclose(got[..., k] * rms(w)[k], w[..., k] * LIMIT, rtol=1e-5)


def test_many_filters(ops, dtype, rng):
    """Enough work for several threads."""
    compare(ops, "rms_limit_step", filters(rng, (3, 3, 64, 130), dtype), writes=(0,), kind="elementwise", limit=LIMIT)


def test_after_an_overflow_nothing_is_changed(ops, rng):
    w = filters(rng, (3, 3, 4, 5), "float32")
    got = call(ops, "rms_limit_step", w, writes=(0,), limit=LIMIT, loss_scale=np.array([3, 0, 1, 0], np.int32))
    np.testing.assert_array_equal(got, w)


def test_a_nan_stays_and_other_filters_are_limited(ops, rng):
    w = np.full((2, 2, 2, 3), 3.0)
    w[1, 0, 1, 1] = np.nan
    got = call(ops, "rms_limit_step", w, writes=(0,), limit=LIMIT)
    assert np.isnan(got[1, 0, 1, 1]) and np.isnan(got).sum() == 1
    np.testing.assert_allclose(got[..., [0, 2]], LIMIT)
