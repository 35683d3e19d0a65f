"""Dropout: the mask is a pure function of seed, purpose, epoch, sample and unit, the same on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage

SEED = 2**40 + 7                                        # both words of the key are in use


def draw(sample_ids, **options):
    return {"rate": 0.5, "scale": 1.0, "seed": SEED, "purpose": 3_000_000_000, "epoch": 5,
            "sample_ids": np.array(sample_ids, np.uint32)} | options


@pytest.mark.parametrize("options", [{}, {"rate": 0.3, "scale": 1 / 0.7}, {"seed": 0}, {"rate": 0.0}], ids=str)
def test_equals_loops(reference, rng, options):
    x = rng.standard_normal((3, 2, 3, 3))
    options = draw([7, 0, 4_000_000_000], **options)
    y = call(reference, "dropout_forward", x, garbage(x.shape, "float64"), writes=(1,), **options)
    np.testing.assert_array_equal(y, naive.dropout(x, **options))
    dx = call(reference, "dropout_backward", x, garbage(x.shape, "float64"), writes=(1,), **options)
    np.testing.assert_array_equal(dx, y)                # linear in x with a diagonal matrix: backward is the same map


@pytest.mark.parametrize("shape", [(1, 1), (3, 6, 6, 5), (5, 9001), (37, 3)], ids=str)
def test_equals_reference(ops, dtype, rng, shape):
    x = rng.standard_normal(shape).astype(dtype)
    for options in (draw(np.arange(shape[0])), draw(rng.permutation(1000)[: shape[0]], rate=0.2, scale=1.25, epoch=0)):
        for function in ("dropout_forward", "dropout_backward"):
            compare(ops, function, x, garbage(shape, dtype), writes=(1,), kind="elementwise", **options)
            compare(ops, function, x, x, writes=(1,), kind="elementwise", **options)                  # in place
    compare(ops, "scale_forward", x, garbage(shape, dtype), writes=(1,), kind="elementwise", factor=0.3)
    compare(ops, "scale_forward", x, x, writes=(1,), kind="elementwise", factor=0.5)


def test_mask_follows_the_sample_not_the_batch(ops, dtype):
    x = np.ones((4, 101), dtype)
    together = call(ops, "dropout_forward", x, garbage(x.shape, dtype), writes=(1,), **draw([5, 6, 7, 8]))
    alone = call(ops, "dropout_forward", x[:1], garbage((1, 101), dtype), writes=(1,), **draw([7]))
    np.testing.assert_array_equal(together[2], alone[0])
    assert len({row.tobytes() for row in together}) == 4


@pytest.mark.parametrize("change", [{"seed": SEED + 1}, {"seed": SEED + 2**32}, {"purpose": 1}, {"epoch": 6}], ids=str)
def test_mask_follows_every_part_of_the_counter(ops, dtype, change):
    x = np.ones((1, 200), dtype)
    first, other = (call(ops, "dropout_forward", x, garbage(x.shape, dtype), writes=(1,), **draw([0], **options))
                    for options in ({}, change))
    assert 50 < np.count_nonzero(first != other) < 150


def test_rate_is_the_share_dropped(ops, dtype):
    x = np.ones((20, 5000), dtype)
    options = draw(np.arange(20), rate=0.2, scale=1.25)
    y = call(ops, "dropout_forward", x, garbage(x.shape, dtype), writes=(1,), **options)
    assert abs(np.mean(y == 0) - 0.2) < 0.005 and set(np.unique(y)) == {0, 1.25}       # 4 standard deviations
