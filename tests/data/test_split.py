import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.data.split import stratified_split
from minicnn.errors import DataError


@given(st.lists(st.integers(3, 40), min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 8), st.integers(0, 9))
def test_parts_are_disjoint_and_proportional(sizes, first, second, seed):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    total = len(strata)
    if first + second > total - len(sizes):
        return
    parts = stratified_split(strata, (first, second), seed)
    assert [len(part) for part in parts] == [total - first - second, first, second]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(total))
    assert set(strata[parts[0]]) == set(strata)                              # every class can be trained on
    if min(sizes) >= 20:
        for part, count in zip(parts[1:], (first, second), strict=True):
            found = np.bincount(strata[part], minlength=len(sizes))
            assert np.all(np.abs(found - count * np.array(sizes) / total) <= 1)


def test_the_same_split_every_time_and_another_for_another_seed():
    strata = np.arange(100) % 4
    one, again, other = (stratified_split(strata, (20,), seed)[1] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_split_is_fixed_across_versions():
    """Results on held-out images are only comparable while this holds."""
    np.testing.assert_array_equal(stratified_split([0] * 12 + [1] * 6, (3, 3))[1], [3, 5, 17])


def test_too_few():
    with pytest.raises(DataError, match="pets: 4 images of 2 classes are too few"):
        stratified_split([0, 0, 1, 1], (2, 1), name="pets")
