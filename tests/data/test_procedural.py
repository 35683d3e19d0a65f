from pathlib import Path

import numpy as np

from minicnn.data.procedural import LEANINGS, draw_image, procedural_sets
from minicnn.data.source import open_data
from tests import vectors
from tests.vectors.make_procedural import squares


def test_counts_labels_and_ids():
    splits = open_data("synthetic", size=24, counts=(12, 4, 8))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [12, 4, 8]
    assert np.concatenate([splits.train.ids, splits.val.ids, splits.test.ids]).tolist() == list(range(24))
    assert splits.test.labels.tolist() == [0, 1, 2, 3] * 2
    assert "no photographs" in splits.description
    assert open_data("synthetic").train.image_shape == (256, 256, 3)


def test_an_image_is_a_function_of_seed_and_number():
    train, _, test = procedural_sets((8, 4, 4), seed=3, size=32)
    np.testing.assert_array_equal(train.read(5), draw_image(3, 32, 5))
    np.testing.assert_array_equal(test.read(0), draw_image(3, 32, 12))
    assert not np.array_equal(draw_image(3, 32, 5), draw_image(4, 32, 5))
    assert not np.array_equal(draw_image(3, 32, 5), draw_image(3, 32, 9))


def test_patterns_are_visible_and_colour_is_a_weak_feature():
    """Every image has contrast; the accuracy from colour alone is above chance and far from 1."""
    images = np.stack([draw_image(0, 32, number) for number in range(240)])
    assert images.shape == (240, 32, 32, 3) and images.dtype == np.uint8
    assert images.std(axis=(1, 2)).max(axis=1).min() > 15
    colours, kinds = images.mean(axis=(1, 2)), np.arange(240) % 4             # (240, 3)
    centres = np.stack([colours[:120][kinds[:120] == kind].mean(axis=0) for kind in range(4)])
    nearest = ((colours[120:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
    assert 0.5 < (nearest == kinds[120:]).mean() < 0.85


def test_each_class_has_the_colours_that_it_leans_to():
    """The mean over many images, of the three patterns whose ink covers half."""
    images = np.stack([draw_image(0, 24, number) for number in range(400)])
    means = [images[kind::4].mean(axis=(0, 1, 2)) / 255 for kind in range(4)]
    np.testing.assert_allclose(means[:3], LEANINGS[:3], atol=0.06)


def test_they_look_as_they_always_did():
    """On any machine, to a grey level."""
    with np.load(Path(vectors.__file__).with_name("procedural.npz")) as stored:
        np.testing.assert_allclose([squares(number) for number in range(8)], stored["squares"], atol=1)
