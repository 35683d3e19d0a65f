"""A source that cannot be prepared gives an error of one line, and nothing is left behind."""

import os
import tarfile

import pytest

from minicnn.data.prepare import run
from minicnn.data.source import open_data
from minicnn.errors import ConfigError, DataError
from tests.data.prepare.preparing import prepared
from tests.helpers import ilsvrc
from tests.helpers.trees import tree


def cut(path, to):
    path.write_bytes(path.read_bytes()[:to])


def damaged_tar(root):
    source = ilsvrc.originals(root, ilsvrc.generated)
    data = bytearray((source / "ILSVRC2012_img_train.tar").read_bytes())
    at = data.rindex(b"n01440764_10.JPEG")
    data[at + 120] ^= 0xFF                                                    # in the size of an inner member
    (source / "ILSVRC2012_img_train.tar").write_bytes(data)
    return source


def bad_sources():
    """(name, how to make it, what the message must say)"""
    def cut_tar(root):
        cut(ilsvrc.originals(root, ilsvrc.generated) / "ILSVRC2012_img_train.tar", 9000)
        return root

    def only_val(root):
        ilsvrc.put(root, {"ILSVRC2012_img_val.tar": ilsvrc.tar_bytes(ilsvrc.val_images())})
        return root / "ILSVRC2012_img_val.tar"

    def other_val(root):
        tree(root / "train", {"a": 2, "b": 2})
        tree(root / "val", {"a": 2, "c": 2})
        return root

    def linked(root):
        tree(root / "x", {"a": 2, "b": 2})
        os.link(root / "x" / "a" / "000.png", root / "x" / "a" / "again.png")
        with tarfile.open(root / "x.tar", "w") as tar:
            tar.add(root / "x", "x")
        return root / "x.tar"

    def packed(root):
        cut(ilsvrc.packed_tree_tar(root, ilsvrc.generated), 700)
        return root / "photos.tar.xz"

    def loose(root):
        tree(root / "train", {"a": 2, "b": 2, ".": 1})
        return root

    def all_bad(root):
        tree(root, {"a": 2, "b": 2})
        for path in (root / "b").iterdir():
            path.write_text("404")
        return root

    return [
        ("missing", lambda root: root, "does not exist; expected ILSVRC2012_img_train.tar"),
        ("empty", lambda root: root.mkdir() or root, "all holds no images; expected"),
        ("one class", lambda root: tree(root, {"a": 3}), "3 images of 1 classes .* a classifier needs two"),
        ("cut short", cut_tar, "ILSVRC2012_img_train.tar is not a whole tar .* fetch it again"),
        ("damaged header", damaged_tar, "is not a whole tar"),
        ("only val", only_val, "has val but no train"),
        ("other classes", other_val, "only train has images of b"),
        ("links", linked, "is a link or has holes.*unpack the tar"),
        ("packed, cut", packed, "photos.tar.xz cannot be unpacked"),
        ("loose", loose, "train has class folders and 1 images beside them, such as 004.png"),
        ("a class without a whole image", all_bad, "no image of class b in all can be read"),
    ]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in bad_sources()],
                         ids=[case[0] for case in bad_sources()])
def test_sources_that_cannot_be_used(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        prepared(make(tmp_path / "source"), tmp_path / "out")


def test_out_that_cannot_be_used(tmp_path):
    source = tree(tmp_path / "source", {"a": 2, "b": 2})
    with pytest.raises(DataError, match="source is not empty and holds no unfinished set"):
        prepared(source, source)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to: Not a directory"):
        prepared(source, tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match="must be at least 1, got 0"):
        prepared(source, tmp_path / "out", size=0)


def test_a_file_cut_while_it_is_read(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", {"a": 2, "b": 2})
    monkeypatch.setattr(run, "_introduce", lambda *_: cut(source / "b" / "003.png", 50))
    with pytest.raises(DataError, match="003.png holds 50 bytes of .*become shorter while it was read"):
        prepared(source, tmp_path / "out")


def test_both_folders_and_tars(tmp_path):
    """Unpacked, with the tars still there: the folders are used, and a message says so."""
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    ilsvrc.class_folders(source, ilsvrc.generated)
    lines = prepared(source, tmp_path / "out")
    assert ("source", "train/ is used, and ILSVRC2012_img_train.tar beside it is not") in lines


def test_numbers_as_class_names(tmp_path):
    """WebDataset without wnids in its keys: classes are numbers, or what classes.txt says."""
    shard = {f"{k:03d}.png": ilsvrc.encode(ilsvrc.generated(k), "png") for k in range(24)}
    shard |= {f"{k:03d}.cls": str(k % 12).encode() for k in range(24)}
    ilsvrc.put(tmp_path / "source", {"shard-000000.tar": ilsvrc.tar_bytes(shard)})
    prepared(tmp_path / "source" / "shard-000000.tar", tmp_path / "out")
    assert open_data(tmp_path / "out").classes == [f"{k:02d}" for k in range(12)]
    (tmp_path / "source" / "classes.txt").write_text("".join(f"kind {chr(110 - k)}\n" for k in range(12)))
    prepared(tmp_path / "source", tmp_path / "named")
    whole = open_data(tmp_path / "named")
    assert whole.classes[0] == "kind c" and {path[-7:] for path in [whole.train.path(0)]} <= {"011.png", "023.png"}
