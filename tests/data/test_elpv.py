import importlib.util
import sys
import zlib

import numpy as np
import pytest

from minicnn.data import elpv
from minicnn.data.source import open_data
from minicnn.errors import DataError

installed = pytest.mark.skipif(importlib.util.find_spec("elpv_dataset") is None,
                               reason="elpv-dataset is not installed: pip install minicnn[example]")


@pytest.fixture(scope="module")
def cells():
    return open_data("elpv")


@installed
def test_the_fixed_split(cells):
    parts = [cells.train, cells.val, cells.test]
    assert [len(part) for part in parts] == [1670, 298, 656]
    assert cells.classes == ["sound", "defective"]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[1148, 522], [204, 94], [451, 205]]
    paths = [part.path(i) for part in parts for i in range(len(part))]
    assert len(set(paths)) == 2624
    assert len({int(i) for part in parts for i in part.ids}) == 2624
    assert "CC BY-NC-SA 4.0" in cells.licence
    assert "elpv_dataset" not in sys.modules                                  # looked up, not imported


@installed
def test_the_split_does_not_follow_the_seed(cells):
    other = open_data("elpv", seed=7)
    paths = [cells.test.path(i) for i in range(656)]
    assert [other.test.path(i) for i in range(656)] == paths
    assert zlib.crc32("\n".join(paths).encode()) == 365882788              # nor the version of minicnn


@installed
def test_the_photographs(cells):
    for part in (cells.train, cells.val, cells.test):
        image = part.read(0)
        assert image.shape == (256, 256, 3) and image.dtype == np.uint8
        assert 20 < image.mean() < 235 and image.std() > 5
        assert (image[:, :, 0] == image[:, :, 1]).all() and (image[:, :, 0] == image[:, :, 2]).all()


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(elpv.MissingPackageError, match=r"pip install 'minicnn\[example\]'") as caught:
        open_data("elpv")
    assert isinstance(caught.value, DataError) and caught.value.install == "pip install 'minicnn[example]'"


def test_another_version_of_the_labels(tmp_path):
    (tmp_path / "labels.csv").write_text("images/cell0001.png  1.0  mono\n")
    with pytest.raises(DataError, match="1 rows, expected 2624"):
        elpv._read_labels(str(tmp_path / "labels.csv"))
