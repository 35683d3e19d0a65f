"""The readers on real photographs: MINICNN_SHARED names a folder with data/cats-dogs.tar and data/cifar10.tar.xz."""

import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minicnn.data.loader import Loader
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.data.statistics import measure

DATA = Path(os.environ.get("MINICNN_SHARED", "")) / "data"


def unpack(archive: Path, to: Path, each: int, enough: int) -> None:
    """The first `each` images of the first folders of an archive, `enough` in all."""
    if "MINICNN_SHARED" not in os.environ or not archive.exists():
        pytest.skip(f"needs {archive.name}: set MINICNN_SHARED to the folder that holds data/{archive.name}")
    taken = Counter()
    with tarfile.open(archive) as tar:
        for member in tar:
            folder = os.path.dirname(member.name)
            if member.isfile() and taken[folder] < each:
                (to / folder).mkdir(parents=True, exist_ok=True)
                (to / member.name).write_bytes(tar.extractfile(member).read())
                taken[folder] += 1
                if taken.total() == enough:
                    return


def test_cats_and_dogs(tmp_path):
    unpack(DATA / "cats-dogs.tar", tmp_path, 6, 24)
    splits = open_data(tmp_path / "cats-dogs")
    assert splits.classes == ["cat", "dog"] and splits.test is None
    assert np.bincount(splits.train.labels).tolist() == np.bincount(splits.val.labels).tolist() == [6, 6]
    found = measure(splits.train, progress=False)
    assert found.count == 12 and 60 < found.mean.mean() < 200 and found.eigenvalues[0] > 5 * found.eigenvalues[1]
    [batch] = Loader(splits.val, 12).epoch(0)
    assert batch.images.std(axis=(1, 2)).min() > 5


def test_cifar10(tmp_path):
    unpack(DATA / "cifar10.tar.xz", tmp_path, 20, 40)
    splits = open_data(tmp_path / "cifar10", size=32)
    assert splits.classes == ["airplane", "automobile"]
    assert [len(splits.train), len(splits.val), splits.test] == [36, 4, None]
    assert scan(splits.train, progress=False) == []
    assert splits.train.read(0).shape == (32, 32, 3)
