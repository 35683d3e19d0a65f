"""What loading spends its time on: seconds by kind, each loader's its own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minicnn.data.dataset import Dataset
from minicnn.data.folder import open_folder
from minicnn.data.loader import Loader
from minicnn.data.prepare.run import prepare
from minicnn.data.procedural import procedural_sets
from minicnn.data.source import open_data
from minicnn.data.stage_times import StageTimes, in_words, stage
from tests.helpers.small_run import save_tree


def test_seconds_are_counted_by_kind():
    times = StageTimes()
    with times.charged():
        with stage("disk"):
            time.sleep(0.02)
        with pytest.raises(ValueError), stage("decode"):
            raise ValueError("a damaged image takes its time, too")
    spent = times.seconds()
    assert 0.02 <= spent["disk"] < 2 and spent["decode"] > 0 and spent["copy"] == 0


def test_only_this_thread_and_only_inside():
    outer, inner = StageTimes(), StageTimes()

    def elsewhere():
        with stage("copy"):
            pass

    with outer.charged():
        with inner.charged(), stage("disk"):
            pass
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with stage("decode"):
            pass
    elsewhere()
    assert inner.seconds()["disk"] > 0 and inner.seconds()["decode"] == inner.seconds()["copy"] == 0
    assert outer.seconds()["decode"] > 0 and outer.seconds()["disk"] == outer.seconds()["copy"] == 0


def slow_set(kind, seconds, started):
    """Four images that take so long to come; the first waits until both sets have started."""
    def decode(item):
        if item == 0:
            started.wait(timeout=10)
        with stage(kind):
            time.sleep(seconds)
        return np.zeros((4, 4, 3), np.uint8)

    return Dataset(kind, ["a"], [0] * 4, range(4), decode, size=(4, 4))


def test_two_loaders_at_once_each_count_their_own():
    """As training does while validation runs ahead."""
    started = threading.Barrier(2)
    one, other = Loader(slow_set("disk", 0.05, started), 2), Loader(slow_set("decode", 0.1, started), 2)
    with ThreadPoolExecutor(2) as pool:
        assert [len(batches) for batches in pool.map(lambda loader: list(loader.epoch(0)), (one, other))] == [2, 2]
    assert one.spent()["disk"] >= 0.2 and one.spent()["decode"] == 0
    assert other.spent()["decode"] >= 0.4 and other.spent()["disk"] == 0


def test_each_epoch_has_its_own_account_even_while_an_earlier_one_is_read():
    started = threading.Barrier(1)
    loader = Loader(slow_set("decode", 0.01, started), 1, workers=1, prefetch=1)
    early = loader.epoch(0)
    next(early)
    assert loader.spent()["decode"] > 0
    list(loader.epoch(1))
    before = loader.spent()
    assert before["decode"] >= 0.04
    list(early)
    assert loader.spent() == before


def test_in_words():
    assert in_words({"disk": 1.0, "decode": 2.5, "copy": 0.5}) == "disk 25 %, decode 62 %, copy 12 %"
    assert in_words({"disk": 0.0, "decode": 0.0, "copy": 0.0}) == ""


def test_a_prepared_set_of_jpegs_is_decoded(tmp_path):
    save_tree(tmp_path / "photographs", per_class=8)
    prepare(str(tmp_path / "photographs"), str(tmp_path / "out"), size=32, jpeg=True, progress=False,
            say=lambda label, text: None)
    loader = Loader(open_data(tmp_path / "out").train, 4)
    list(loader.epoch(0))
    assert all(spent > 0 for spent in loader.spent().values())


def test_files_are_read_and_decoded_and_kept_images_only_copied(tmp_path):
    save_tree(tmp_path, per_class=8)
    loader = Loader(open_folder(tmp_path).train, 4)
    list(loader.epoch(0))
    assert all(spent > 0 for spent in loader.spent().values())
    train, _, _ = procedural_sets((16, 4, 4), seed=3, size=32)
    train.keep_decoded(2**24)
    loader = Loader(train, 4)
    list(loader.epoch(0))
    list(loader.epoch(1))
    spent = loader.spent()
    assert spent["copy"] > 0 and spent["disk"] == spent["decode"] == 0
