"""The stall meter: what loading spends its time on."""

import time

import pytest

from minicnn.data.folder import open_folder
from minicnn.data.loader import Loader
from minicnn.data.prepare.run import prepare
from minicnn.data.procedural import procedural_sets
from minicnn.data.source import open_data
from minicnn.data.stage_times import in_words, seconds, since, stage
from tests.helpers.small_run import save_tree


def test_seconds_are_counted_by_kind():
    before = seconds()
    with stage("disk"):
        time.sleep(0.02)
    with pytest.raises(ValueError), stage("decode"):
        raise ValueError("a damaged image takes its time, too")
    spent = since(before)
    assert 0.02 <= spent["disk"] < 2 and spent["decode"] > 0 and spent["copy"] == 0


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
