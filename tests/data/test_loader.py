import gc
import threading
import time

import numpy as np
import pytest

from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.loader import Loader
from minicnn.data.scan import scan
from minicnn.errors import DataError
from tests.helpers.trees import in_memory


def ids(loader, epoch, start=0):
    return [batch.sample_ids.tolist() for batch in loader.epoch(epoch, start)]


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minicnn-data")]


def test_batches_hold_what_they_say():
    loader = Loader(in_memory(11), 4, seed=1, shuffle=True)
    batches = list(loader.epoch(0))
    assert len(loader) == len(batches) == 3 and [len(batch.labels) for batch in batches] == [4, 4, 3]
    for batch in batches:
        assert batch.images.shape[1:] == (6, 6, 3) and batch.images.dtype == np.uint8
        assert batch.labels.dtype == np.int32 and batch.sample_ids.dtype == np.uint32
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.sample_ids)
        np.testing.assert_array_equal(batch.labels, batch.sample_ids % 3)
        np.testing.assert_array_equal(batch.indices, batch.sample_ids)
    assert sorted(i for batch in batches for i in batch.sample_ids) == list(range(11))


def test_order_depends_on_seed_and_epoch_only():
    one = Loader(in_memory(40), 8, seed=5, shuffle=True, workers=1, prefetch=1)
    many = Loader(in_memory(40), 8, seed=5, shuffle=True, workers=4, prefetch=6, cache_bytes=10**6)
    assert ids(one, 3) == ids(many, 3) == ids(many, 3)
    assert ids(one, 3) != ids(one, 4)
    assert ids(one, 3) != ids(Loader(in_memory(40), 8, seed=6, shuffle=True), 3)


def test_order_is_fixed_across_versions():
    assert Loader(in_memory(8), 8, seed=1, shuffle=True).order(0).tolist() == [4, 3, 6, 5, 7, 2, 1, 0]


def test_unshuffled_keeps_the_sets_order():
    assert ids(Loader(in_memory(5), 2), 9) == [[0, 1], [2, 3], [4]]


def test_resuming_in_the_middle_of_an_epoch():
    loader = Loader(in_memory(23), 4, seed=2, shuffle=True, drop_last=True)
    whole = ids(loader, 7)
    assert len(whole) == 5
    for start in range(6):
        assert ids(loader, 7, start) == whole[start:]


def test_leaving_out_an_image_does_not_reorder_the_others():
    damaged = in_memory(20, bad={6})
    scan(damaged, progress=False)
    kept = [i for batch in ids(Loader(damaged, 5, shuffle=True), 0) for i in batch]
    everything = [i for batch in ids(Loader(in_memory(20), 5, shuffle=True), 0) for i in batch]
    assert kept == [i for i in everything if i != 6]


def test_later_epochs_do_not_decode():
    calls = []
    loader = Loader(in_memory(12, calls=calls), 4, shuffle=True, cache_bytes=10**6)
    for epoch in range(3):
        list(loader.epoch(epoch))
    assert sorted(calls) == list(range(12))


def test_batches_are_made_ahead_and_not_further():
    """While the consumer takes no more, exactly `prefetch` further batches are decoded."""
    calls = []
    batches = Loader(in_memory(100, calls=calls), 2, prefetch=3, workers=1).epoch(0)
    next(batches)
    deadline = time.perf_counter() + 5
    while len(calls) < 8 and time.perf_counter() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert len(calls) == 8                                                   # the one taken, and three ahead
    batches.close()


def test_an_unreadable_image_reaches_the_consumer():
    loader = Loader(in_memory(20, bad={13}), 4, workers=2)
    with pytest.raises(ImageError, match="picture 13: torn"):
        list(loader.epoch(0))
    assert data_threads() == []


@pytest.mark.parametrize("how", ["close", "drop", "error"])
def test_stopping_early_leaves_no_threads(how):
    calls = []

    def slow(item):
        calls.append(item)
        time.sleep(0.02 if item >= 300 else 0)                               # a quick first batch, then 6 s for each
        return np.zeros((4, 4, 3), np.uint8)

    loader = Loader(Dataset("slow", ["a"], [0] * 1500, range(1500), slow, size=(4, 4)), 300, workers=2, prefetch=4)
    batches = loader.epoch(0)
    next(batches)
    before = len(calls)
    if how == "error":
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt())
    if how != "drop":
        batches.close()
    del batches
    gc.collect()
    assert data_threads() == [] and len(calls) < before + 100                # in the middle of a batch


def test_images_left_out_in_the_middle_of_an_epoch_shift_no_label():
    """Another trainer on the same set may find one that has become unreadable."""
    album = in_memory(60)
    batches = Loader(album, 4, workers=1, prefetch=1).epoch(0)
    first = next(batches)
    album.leave_out({0: "torn"})
    for batch in [first, *batches]:
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.sample_ids)
        np.testing.assert_array_equal(batch.labels, batch.sample_ids % 3)
    assert batch.sample_ids[-1] == 59 and len(album) == 59


def test_waiting_time_is_counted():
    def slow(item):
        time.sleep(0.1)
        return np.zeros((4, 4, 3), np.uint8)

    loader = Loader(Dataset("slow", ["a"], [0] * 4, range(4), slow, size=(4, 4)), 2, workers=1)
    list(loader.epoch(0))
    assert loader.waited > 0.3
    loader.dataset.keep_decoded(10**6)
    list(loader.epoch(1))
    list(loader.epoch(2))
    assert loader.waited < 0.3                                              # anew in each epoch


def test_errors():
    with pytest.raises(DataError, match="a batch of 32 is larger than album, which has 20 images"):
        Loader(in_memory(20), 32, drop_last=True)
    assert len(Loader(in_memory(20), 32)) == 1                               # evaluation takes a short batch
    with pytest.raises(DataError, match="a batch of 0 images"):
        Loader(in_memory(20), 0)


def test_images_left_out_later_can_make_a_batch_too_large():
    album = in_memory(8, bad={1})
    loader = Loader(album, 8, drop_last=True)
    scan(album, progress=False)
    with pytest.raises(DataError, match="a batch of 8 is larger than album, which has 7 images"):
        next(loader.epoch(0))
