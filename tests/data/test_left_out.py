"""What a reader leaves out or finds twice is printed in one line, by the folder reader, by prepare, and of tars.

And what minicnn has written is never data, wherever it lies.
"""

import os
import tarfile

import pytest

from minicnn.data.prepare import files
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.errors import DataError
from minicnn.train.runs.run_dir import BEST, LAST, METRICS
from minicnn.visualize.style import new_figure, save_png
from tests.data.prepare.preparing import prepared, report
from tests.helpers import ilsvrc
from tests.helpers.trees import tree


def read(source, tmp_path, by="folder"):
    """(images by class, what was printed) of a set without a split."""
    if by == "tar":
        with tarfile.open(tmp_path / "set.tar", "w") as tar:
            tar.add(source, "set")
        source = tmp_path / "set.tar"
    if by != "folder":
        out = tmp_path / f"prepared from a {by}"
        said = "; ".join(text for _, text in prepared(source, out))
        splits = open_data(out)
    else:
        splits = open_data(source, size=16)
        said = splits.description
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    return {name: sum(int((part.labels == k).sum()) for part in parts) for k, name in enumerate(splits.classes)}, said


@pytest.fixture
def source(tmp_path):
    return tree(tmp_path / "set", {"a": 12, "b": 12}, ".jpg")


def a_run(folder, *names):
    """A run folder with these files, and pictures."""
    tree(folder.parent, {folder.name: 3})
    for name in names:
        (folder / name).write_bytes(b"{}")


BY = ("folder", "prepare", "tar")


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("where, names", [
    ("runs/set-paper-1", (METRICS,)), ("set-paper-1", (METRICS,)), ("a/set-paper-1", (METRICS,)),
    ("runs/set-paper-1", (LAST, BEST)), ("out/of/runs/x", (LAST,)), ("prepared", ("prepared.json",)),
    ("a/prepared", ("unfinished/lock",)), ("unfinished", ("unfinished/lock",))])
def test_what_minicnn_has_written_is_no_data(source, tmp_path, by, where, names):
    """Of a run: after its end, or killed in its first epoch; of a prepared set: also of one under way."""
    if "/" in names[0]:
        (source / where / "unfinished").mkdir(parents=True)
    a_run(source / where, *names)
    found, said = read(source, tmp_path, by)
    assert found == {"a": 12, "b": 12} and "left out, since minicnn wrote it: " in said
    assert where.split("/")[0] in said.split("minicnn wrote it: ")[1]
    assert "no class" not in said and "no images" not in said


@pytest.mark.parametrize("by", BY)
def test_neither_in_train_nor_in_val(tmp_path, by):
    for part in ("train", "val"):
        tree(tmp_path / "set" / part, {"a": 2, "b": 2})
        a_run(tmp_path / "set" / part / "runs" / "x", METRICS)
    a_run(tmp_path / "set" / "test", METRICS)
    found, said = read(tmp_path / "set", tmp_path, by)
    assert found == {"a": 4, "b": 4} and "minicnn wrote it" in said


def test_a_picture_that_lies_among_photographs(source):
    save_png(new_figure(1), source / "a" / "predictions.png")
    splits = open_data(source, size=16)
    for part in (splits.train, splits.val, splits.test):
        scan(part, progress=False)
    skipped = splits.train.skipped + splits.val.skipped + splits.test.skipped
    assert skipped == [("a/predictions.png", "a picture that minicnn has drawn, not data")]


@pytest.mark.parametrize("by", ["folder", "prepare"])
def test_a_link_up_the_tree_and_one_to_another_class(source, tmp_path, by):
    os.symlink("..", source / "a" / "up")
    found, said = read(source, tmp_path, by)
    assert found == {"a": 12, "b": 12} and "not followed, a link up the tree: a/up" in said


@pytest.mark.parametrize("by", ["folder", "prepare"])
def test_a_folder_that_is_met_twice(source, tmp_path, by):
    os.symlink("../b", source / "a" / "more")
    _, said = read(source, tmp_path, by)
    assert "the same folder, so its images count twice: a/more and b" in said


def test_formats_that_cannot_be_read_are_counted(source, tmp_path):
    for number in range(40):
        (source / "a" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (source / "b" / "notes.txt").write_text("none")
    found, said = read(source, tmp_path)
    assert found == {"a": 12, "b": 12} and "not used, since no image that can be read: 40 .heic, 1 .txt" in said
    prepared(source, tmp_path / "out")
    assert sum(row[0] == "unused" for row in report(tmp_path / "out")) == 41
    for path in source.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="set holds no images; .*; not used, since no image that can be read: 40 .heic"):
        open_data(source)


def test_images_beside_classes_and_empty_classes(source):
    (source / "b" / "023.jpg").rename(source / "loose.jpg")
    (source / "c").mkdir()
    said = open_data(source, size=16).description
    assert "no class, since without images: c" in said and "not used, an image beside the classes: loose.jpg" in said


@pytest.mark.parametrize("by", BY)
def test_folders_beside_train(tmp_path, by):
    tree(tmp_path / "set" / "train", {"a": 2, "b": 2})
    tree(tmp_path / "set" / "val", {"a": 2, "b": 2})
    tree(tmp_path / "set" / "more", {"a": 2})
    found, said = read(tmp_path / "set", tmp_path, by)
    assert found == {"a": 4, "b": 4} and "not used, since beside train" in said and "more" in said


# ---- classes that are called like parts
@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("classes", [("car", "plane", "train"), ("control", "test"), ("Train", "bus")])
def test_a_class_called_train(tmp_path, by, classes):
    source = tree(tmp_path / "set", dict.fromkeys(classes, 8))
    assert read(source, tmp_path, by)[0] == dict.fromkeys(sorted(classes), 8)


@pytest.mark.parametrize("by", BY)
def test_a_folder_test_beside_classes_may_be_either(tmp_path, by):
    source = tree(tmp_path / "set", {"a": 4, "b": 4, "test": 4})
    with pytest.raises(DataError, match="put the class folders under train/, or rename a class that is called train"):
        read(source, tmp_path, by)


@pytest.mark.parametrize("by", ["folder", "prepare"])
def test_val_that_lacks_one_of_two_classes(tmp_path, by):
    tree(tmp_path / "set" / "train", {"a": 2, "b": 2})
    tree(tmp_path / "set" / "val", {"a": 2})
    with pytest.raises(DataError, match="must hold the same classes, but only train/? has (images of )?b;"):
        read(tmp_path / "set", tmp_path, by)


# ---- tars
def test_a_member_that_was_appended_again(source, tmp_path):
    """The last one counts, as tar itself takes it."""
    new = tree(tmp_path / "new", {"a": 1}, ".jpg", first=77) / "a" / "077.jpg"
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(source, "set")
        for path in (source / "a" / "000.jpg", source / "b" / "013.jpg", new):
            tar.add(path, f"set/{path.parent.name}/{'000' if path is new else path.stem}.jpg")
    out = tmp_path / "out"
    said = "; ".join(text for _, text in prepared(tmp_path / "set.tar", out))
    assert "24 images, 2 classes" in said and "3 files that come again under the same name count once" in said
    (source / "a" / "000.jpg").write_bytes(new.read_bytes())
    prepared(source, tmp_path / "folder")
    assert (out / "all-00000.rgb").read_bytes() == (tmp_path / "folder" / "all-00000.rgb").read_bytes()


def test_a_folder_beside_the_tar_it_was_unpacked_from(tmp_path):
    source = tree(tmp_path / "set" / "train", {"a": 4, "b": 4}).parent
    for name in "ab":
        with tarfile.open(source / "train" / f"{name}.tar", "w") as tar:
            for path in sorted((source / "train" / name).iterdir()):
                tar.add(path, path.name)
    tree(source / "val", {"a": 2, "b": 2})
    said = "; ".join(text for _, text in prepared(source, tmp_path / "out"))
    assert "8 train, 4 val" in said and "8 files that come again under the same name count once" in said


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_damaged_compressed_tar(source, tmp_path, kind):
    packed = tmp_path / f"set.tar.{kind}"
    with tarfile.open(packed, f"w:{kind}") as tar:
        tar.add(source, "set")
    whole = packed.read_bytes()
    damaged = {len(whole) // 2: whole[len(whole) // 2] ^ 0xFF, len(whole) - 6: whole[-6] ^ 0xFF}
    if kind == "gz":
        first = whole.index(b"\0", 10) + 1                             # of deflate, behind the file's name
        damaged[first] = whole[first] | 7
    for at, byte in damaged.items():
        packed.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1:])
        with pytest.raises(DataError, match=f"set.tar.{kind} cannot be unpacked .*; it is damaged or was cut short"):
            prepared(packed, tmp_path / "out")
        assert not (tmp_path / "out").exists()


# ---- lists of labels
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name, text", [("val.txt", ilsvrc.by_index("txt")),
                                        ("LOC_val_solution.csv", ilsvrc.kaggle_csv()),
                                        ("val_image_to_1k_label.json", ilsvrc.by_index("json"))])
def test_a_list_with_a_byte_order_mark(tmp_path, name, text, encoding):
    """As editors and shells of Windows write it."""
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {name: text.decode().encode(encoding)})
    prepared(source, tmp_path / "out")
    assert len(open_data(tmp_path / "out").val) == 7


def test_classes_with_a_byte_order_mark(tmp_path):
    names = files.File("x.cls", str(tmp_path / "x.cls"), 0, 6, 0)
    (tmp_path / "x.cls").write_bytes(b"\xef\xbb\xbfcat")
    assert names.text() == "cat"


def test_a_name_with_a_newline_is_one_line_of_the_report(source, tmp_path):
    (source / "a" / "two\nlines.jpg").write_bytes(b"\xff\xd8\xff" + bytes(9))
    prepared(source, tmp_path / "out")
    assert [row[1] for row in report(tmp_path / "out")] == ["all/a/two\\nlines.jpg"]


def test_the_name_of_an_image_left_out_is_no_second_line(source):
    (source / "a" / "two\nlines\t.jpg").write_bytes(b"no image")
    train = open_data(source, size=16).train
    scan(train)
    assert r"a/two\nlines\t.jpg (" in train.report_skipped() and "\n" not in train.report_skipped()
