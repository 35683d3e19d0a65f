"""Philox against its authors' test vectors, and the properties of the random numbers drawn from it."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn import rng
from tests.helpers import naive

# Random123, file kat_vectors, philox4x32 with 10 rounds: counter, key, result
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_known_answers(counter, key, result):
    assert tuple(int(word) for word in rng.philox4x32(*counter, *key)) == result
    assert naive.philox(counter, key) == result


def test_philox_takes_arrays_and_broadcasts():
    counters = np.array([vector[0] for vector in KNOWN], np.uint32)
    first = rng.philox4x32(*counters.T, 0, 0)
    assert all(word.dtype == np.uint32 and word.shape == (3,) for word in first)
    assert [int(word[2]) for word in first] == list(naive.philox(KNOWN[2][0], (0, 0)))
    assert rng.philox4x32(counters[:, :1], counters[:1, 1], 7, 8, 1, 2)[0].shape == (3, 1)


def test_layout_of_counter_and_key_is_as_documented():
    ids, seed, purpose, epoch = [3, 4_000_000_000], 2**40 + 7, 3_000_000_000, 9
    u = rng.uniforms(seed, purpose, epoch, np.array(ids, np.uint32), 10)
    wanted = [[naive.uniform(seed, purpose, epoch, sample, unit) for unit in range(10)] for sample in ids]
    np.testing.assert_array_equal(u, wanted)


@pytest.mark.parametrize("units", [1, 4, 7, 1000])
def test_uniforms_range_type_and_prefix(units):
    u = rng.uniforms(1, 2, 3, np.arange(50, dtype=np.uint32), units)
    assert u.dtype == np.float32 and u.shape == (50, units)
    assert 0 <= u.min() and u.max() < 1
    np.testing.assert_array_equal(u * 2**24 % 1, 0)                              # multiples of 2**-24, exact in float32
    np.testing.assert_array_equal(u, rng.uniforms(1, 2, 3, np.arange(50, dtype=np.uint32), units + 3)[:, :units])


def test_samples_do_not_depend_on_their_batch():
    ids = np.array([9, 2, 77, 4], np.uint32)
    for draw in (rng.uniforms, rng.normals):
        together = draw(1, 2, 3, ids, 13)
        np.testing.assert_array_equal(together, draw(1, 2, 3, ids, 13))
        for row, sample in zip(together, ids, strict=True):
            np.testing.assert_array_equal(row, draw(1, 2, 3, np.array([sample]), 13)[0])
        assert len({row.tobytes() for row in together}) == 4


@pytest.mark.parametrize("other", [(2, 2, 3), (1 + 2**32, 2, 3), (1, 3, 3), (1, 2, 4)])
def test_seed_purpose_and_epoch_all_matter(other):
    ids = np.arange(4, dtype=np.uint32)
    assert np.mean(rng.uniforms(1, 2, 3, ids, 100) == rng.uniforms(*other, ids, 100)) < 0.01


def test_distributions():
    ids = np.arange(100, dtype=np.uint32)
    u, z = (draw(1, 2, 3, ids, 2000).astype(np.float64) for draw in (rng.uniforms, rng.normals))
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 43.8                        # chi squared, 19 degrees, p = 0.001
    assert abs(z.mean()) < 0.009 and abs(z.std() - 1) < 0.0065                   # 4 standard deviations
    assert abs(np.mean(np.abs(z) < 1) - 0.6827) < 0.0042
    assert abs(np.corrcoef(z[:, :-1].ravel(), z[:, 1:].ravel())[0, 1]) < 0.009


def test_weights_depend_on_seed_and_name_alone():
    weights = rng.normal_init(5, "conv1.w", (11, 11, 3, 96), 0.01)
    assert weights.dtype == np.float32 and abs(weights.std() - 0.01) < 0.0002 and abs(weights.mean()) < 0.0003
    np.testing.assert_array_equal(weights, rng.normal_init(5, "conv1.w", (11, 11, 3, 96), 0.01))
    double = rng.normal_init(5, "conv1.w", weights.shape, 0.01, "float64")
    assert double.dtype == np.float64 and np.array_equal(double, weights)
    for seed, name in ((6, "conv1.w"), (5, "conv2.w")):
        assert not np.array_equal(weights, rng.normal_init(seed, name, weights.shape, 0.01))


def test_purposes_of_the_layers_differ():
    names = ["drop6", "drop7", "crop", "flip", "colour", "order"]
    assert len({rng.purpose_id(name) for name in names}) == len(names)
    assert rng.purpose_id("123456789") == 0xCBF43926                             # the check value of CRC-32
