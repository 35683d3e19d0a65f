import os

import numpy as np
import pytest
from PIL import Image

from minicnn.data.images import load
from minicnn.data.loader import Loader
from minicnn.data.prepare.run import prepare
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.errors import DataError
from tests.helpers.trees import picture, tree


def test_imagenet_layout(tmp_path):
    tree(tmp_path / "train", {"n02": 4, "n01": 3}, ".JPEG")
    tree(tmp_path / "val", {"n01": 2, "n02": 2}, ".JPEG")
    splits = open_data(tmp_path, size=32)
    assert splits.classes == ["n01", "n02"] and splits.test is None          # by sorted name: ImageNet's class indices
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1] and splits.val.labels.tolist() == [0, 0, 1, 1]
    assert splits.train.read(0).shape == (32, 32, 3)
    assert splits.train.path(0) == os.path.join("train", "n01", "004.JPEG")
    assert not set(splits.train.ids.tolist()) & set(splits.val.ids.tolist())
    assert "7 train, 4 val" in splits.description


def test_test_folder_and_other_names(tmp_path):
    for part in ("Train", "valid", "test"):
        tree(tmp_path / part, {"a": 2, "b": 2})
    splits = open_data(tmp_path, size=16)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [4, 4, 4]
    ids = np.concatenate([splits.train.ids, splits.val.ids, splits.test.ids])
    assert len(set(ids.tolist())) == 12


def test_without_val_a_tenth_of_train_is_held_out(tmp_path):
    tree(tmp_path / "train", {"a": 20, "b": 10})
    tree(tmp_path / "test", {"a": 2, "b": 2})
    splits = open_data(tmp_path, size=16)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (27, 3, 4)
    assert np.bincount(splits.val.labels).tolist() == [2, 1]
    assert "no val/" in splits.description


def test_unlabelled_test_folder_is_reported(tmp_path):
    tree(tmp_path / "train", {"a": 2, "b": 2})
    tree(tmp_path / "val", {"a": 2, "b": 2})
    tree(tmp_path / "test", {".": 3})
    splits = open_data(tmp_path, size=16)
    assert splits.test is None and "test/ has no class folders and is not used" in splits.description


def test_flat_tree_is_split_the_same_way_each_time(tmp_path):
    tree(tmp_path, {"a": 20, "b": 30})
    splits, again, other = open_data(tmp_path, size=16), open_data(tmp_path, size=16), open_data(tmp_path, 1, size=16)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [40, 5, 5]
    assert np.bincount(splits.test.labels).tolist() == [2, 3]
    assert splits.test.ids.tolist() == again.test.ids.tolist() != other.test.ids.tolist()
    assert len({int(i) for part in (splits.train, splits.val, splits.test) for i in part.ids}) == 50


@pytest.mark.parametrize("prepare_it", [False, True], ids=["folder", "prepared"])
def test_every_image_has_the_label_of_its_folder(tmp_path, prepare_it):
    """Seven classes of unequal size, split into three parts, and read through the loader in another order."""
    counts = {"d": 10, "a": 12, "g": 10, "b": 20, "c": 11, "f": 13, "e": 10}
    tree(tmp_path / "photos", counts)
    source = tmp_path / "photos"
    if prepare_it:
        source = tmp_path / "out"
        prepare(str(tmp_path / "photos"), str(source), size=16, progress=False)
    folders, seen = np.repeat(list(counts), list(counts.values())), 0
    content = {image.tobytes(): folder for image, folder in zip(
        (load(str(path), 16) for path in (tmp_path / "photos" / folder / f"{number:03d}.png"
                                          for number, folder in enumerate(folders))), folders, strict=True)}
    splits = open_data(source, size=16)
    for part in (splits.train, splits.val, splits.test):
        for batch in Loader(part, 8, shuffle=True).epoch(0):
            found = [part.classes[label] for label in batch.labels]
            assert found == [content[image.tobytes()] for image in batch.images]
            seen += len(batch.labels)
    assert seen == len(content) == len(folders)


def test_nested_files_other_extensions_and_other_files(tmp_path):
    tree(tmp_path, {"cat/indoor": 2, "cat": 1, "dog": 3, "_notes": 0, ".cache": 2})
    for name in (".hidden.png", "labels.txt"):
        (tmp_path / "dog" / name).write_text("not an image")
    for extension in ("jpg", "bmp", "webp", "TIFF", "gif"):
        Image.fromarray(picture(9)).save(tmp_path / "cat" / f"more.{extension}")
    Image.fromarray(picture(5)).save(tmp_path / "cat" / "without_extension", "PNG")
    os.symlink(tmp_path / "cat", tmp_path / "cat" / "loop")
    splits = open_data(tmp_path, size=16)
    parts = [splits.train, splits.val, splits.test]
    assert splits.classes == ["cat", "dog"] and sum(map(len, parts)) == 12
    for part in parts:
        assert scan(part, progress=False) == []


def test_one_more_level_as_in_tiny_imagenet(tmp_path):
    for part in ("train", "val"):
        tree(tmp_path / part, {"n01/images": 2, "n02/images": 2})
    splits = open_data(tmp_path, size=16)
    assert splits.classes == ["n01", "n02"] and "images of 2 classes (n01, n02) in" in splits.description


def test_the_first_ten_classes_are_named(tmp_path):
    names = [f"c{number:02d}" for number in range(12)]
    tree(tmp_path / "train", dict.fromkeys(names, 1))
    tree(tmp_path / "val", dict.fromkeys(names, 1))
    assert f"12 classes ({', '.join(names[:10])}, ...) in" in open_data(tmp_path, size=16).description


def test_linked_class_folders(tmp_path):
    tree(tmp_path / "all", {"a": 3, "b": 3, "c": 3})
    for part in ("train", "val"):
        (tmp_path / "few" / part).mkdir(parents=True)
        for name in "ab":
            os.symlink(tmp_path / "all" / name, tmp_path / "few" / part / name)
    assert len(open_data(tmp_path / "few", size=16).train) == 6


def test_damaged_images_are_left_out_and_named(tmp_path):
    tree(tmp_path / "train", {"a": 4, "b": 4}, ".jpg")
    tree(tmp_path / "val", {"a": 2, "b": 2}, ".jpg")
    whole = (tmp_path / "train" / "a" / "001.jpg").read_bytes()
    (tmp_path / "train" / "a" / "001.jpg").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "train" / "b" / "005.jpg").write_text("a page that says 404")
    train = open_data(tmp_path, size=16).train
    paths = [path for path, _ in scan(train, progress=False)]
    assert paths == [os.path.join("train", "a", "001.jpg"), os.path.join("train", "b", "005.jpg")]
    assert len(train) == 6 and "skipped 2 of 8" in train.report_skipped()


def bad_trees():
    """(name, how to make it, what the message must say)"""
    def train_only(root):
        tree(root / "train", {"a": 2, "b": 2})

    def train_and_val(root, classes):
        train_only(root)
        tree(root / "val", classes)

    return [
        ("missing", lambda root: None, "does not exist"),
        ("empty", lambda root: root.mkdir(), "holds no images"),
        ("empty classes", lambda root: tree(root, {"a": 0, "b": 0}), "holds no images"),
        ("a file", lambda root: root.write_bytes(b"tar"), "is a file, not a folder: unpack it"),
        ("loose", lambda root: tree(root, {".": 3}), "has 3 images but no class folders"),
        ("one class", lambda root: tree(root, {"a": 3}), "only one class folder with images, a/; a classifier"),
        ("one too high", lambda root: train_only(root / "pets"), "did you mean .*pets"),
        ("a set among classes", lambda root: (train_only(root / "pets"), tree(root / "plants", {"a": 2, "b": 2})),
         "pets would be a class, but has no images of its own, only folders \\(train\\): name .*pets if"),
        ("classes below classes", lambda root: tree(root, {"pets/a": 2, "pets/b": 2, "cars": 2}),
         "pets would be a class, .* only folders \\(a, b\\): .*; if it is one class, move its images into it"),
        ("only val", lambda root: tree(root / "val", {"a": 2, "b": 2}), "has val/ but no train/"),
        ("loose val", lambda root: train_and_val(root, {".": 2}), "val has 2 images but no class"),
        ("val lacks", lambda root: train_and_val(root, {"a": 1, "c": 1}), "only train/ has b;"),
        ("val has more", lambda root: train_and_val(root, {"a": 1, "b": 1, "c": 1}), "only val/ has c"),
        ("too few", lambda root: tree(root, {"a": 1, "b": 1}), "too few"),
    ]


@pytest.mark.parametrize("name, make, message", bad_trees(), ids=[row[0] for row in bad_trees()])
def test_bad_trees_get_one_clear_line(name, make, message, tmp_path):
    root = tmp_path / "set"
    make(root)
    with pytest.raises(DataError, match=message) as caught:
        open_data(root, size=16)
    assert str(root) in str(caught.value) or root.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_name_at_all():
    with pytest.raises(DataError, match="expected elpv, synthetic or a folder"):
        open_data("")


def test_memory_goes_to_train_first(tmp_path):
    tree(tmp_path / "train", {"a": 2, "b": 2})
    tree(tmp_path / "val", {"a": 2, "b": 2})
    each = 16 * 16 * 3
    assert open_data(tmp_path, size=16, cache_bytes=6 * each).keep_decoded(6 * each) == 6 * each
    assert open_data(tmp_path, size=16, cache_bytes=0).keep_decoded(0) == 0
