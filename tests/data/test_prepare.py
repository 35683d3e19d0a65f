"""`minicnn prepare` on a miniature of ILSVRC2012, in every layout."""

import errno
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.data.prepare import labels, run
from minicnn.data.prepare.run import prepare
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.data.statistics import measure
from minicnn.errors import ConfigError, DataError
from tests.data import ilsvrc
from tests.data.trees import tree

SIZE, PER_SHARD = 32, 4
DIFFERS = {"report.tsv", "words.json"}             # an empty class, and words, cannot be told by every layout
SHARED = Path(os.environ.get("MINICNN_SHARED", "")) / "data" / "cats-dogs.tar"


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """Nobody pulls the plug here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


def prepared(source, out, **options):
    """What was said, by label."""
    lines = []
    options = {"size": SIZE, "per_shard": PER_SHARD, "workers": 2, "progress": False, **options}
    prepare(str(source), str(out), say=lambda label, text: lines.append((label, text)), **options)
    return lines


def contents(folder, leave_out=frozenset()):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder) if name not in leave_out}


def report(folder):
    return [tuple(line.split("\t")) for line in (folder / "report.tsv").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The miniature from its original tars."""
    root = tmp_path_factory.mktemp("mini")
    lines = prepared(ilsvrc.originals(root / "source", ilsvrc.generated), root / "out")
    return root / "out", lines


@pytest.mark.parametrize("layout", ilsvrc.LAYOUTS)
def test_same_bytes_from_every_layout(tmp_path, mini, layout):
    source = ilsvrc.LAYOUTS[layout](tmp_path / "source", ilsvrc.generated)
    prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out", DIFFERS) == contents(mini[0], DIFFERS)
    assert os.listdir(tmp_path) == ["source", "out"] or sorted(os.listdir(tmp_path)) == ["out", "source"]
    odd = [row for row in report(tmp_path / "out") if row[0] not in ("empty", "unused")]
    assert odd == [row for row in report(mini[0]) if row[0] not in ("empty", "unused")]


def real_photographs():
    """Photograph n of the first ones in cats-dogs.tar."""
    if "MINICNN_SHARED" not in os.environ or not SHARED.exists():
        pytest.skip("needs real photographs: set MINICNN_SHARED to the folder that holds data/cats-dogs.tar")
    photographs = []
    with tarfile.open(SHARED) as tar:
        while len(photographs) < 40:
            member = tar.next()
            if member.isfile():
                with Image.open(tar.extractfile(member)) as image:
                    photographs.append(image.convert("RGB"))
    return lambda number: photographs[number % len(photographs)]


def test_same_bytes_from_every_layout_of_real_photographs(tmp_path):
    photograph = real_photographs()
    for number, (layout, make) in enumerate(ilsvrc.LAYOUTS.items()):
        prepared(make(tmp_path / f"source{number}", photograph), tmp_path / str(number), size=64)
        assert contents(tmp_path / str(number), DIFFERS) == contents(tmp_path / "0", DIFFERS), layout
    assert [row[0] for row in report(tmp_path / "0")].count("truncated") == 1


# ---- what comes out
def test_what_is_in_the_miniature(mini):
    out, _ = mini
    splits = open_data(out)
    assert splits.classes == list(ilsvrc.WNIDS) and splits.test is None
    assert len(splits.train) == 16 and len(splits.val) == 7                  # 18, less one cut short and one page
    assert [splits.classes[k] for k in splits.val.labels] == sorted(ilsvrc.val_wnids())
    by_path = {splits.val.path(i): splits.classes[splits.val.labels[i]] for i in range(7)}
    for k, wnid in enumerate(ilsvrc.val_wnids(), 1):
        assert by_path[f"val/{wnid}/ILSVRC2012_val_{k:08d}.JPEG"] == wnid
    assert json.loads((out / "words.json").read_text())["n01440764"] == "words of n01440764"
    assert not any("unfinished" in name or name.endswith(".part") for name in os.listdir(out))


def test_report(mini):
    out, lines = mini
    assert [(kind, file) for kind, file, _ in report(out)] == [
        ("CMYK", "train/n01440764/n01440764_31.JPEG"),
        ("misnamed", "train/n02105855/n02105855_10.JPEG"), ("truncated", "train/n02105855/n02105855_115.JPEG"),
        ("grey", "train/n03000684/n03000684_3.JPEG"), ("unreadable", "train/n03000684/n03000684_66.JPEG"),
        ("CMYK", "val/n02105855/ILSVRC2012_val_00000004.JPEG"), ("empty", "train/n02500267")]
    assert dict((kind, what) for kind, _, what in report(out))["misnamed"] == "is PNG"
    [said] = [text for label, text in lines if label == "report"]
    assert said.startswith("left out: 1 truncated, 1 unreadable; used, converted where needed: 2 CMYK, 1 grey, "
                           "1 misnamed; not used: 1 empty; each is named in ")


def test_counts_and_space_are_said(mini):
    said = dict(mini[1])
    assert said["counts"].startswith("not those of ILSVRC2012: 18 train images, 1,281,149 fewer than 1,281,167; "
                                     "7 val images, 49,993 fewer than 50,000; 3 classes")
    assert said["empty"].startswith("train/n02500267: no images")
    assert said["space"].startswith("78 kB as uint8 of 32 x 32; 78 kB to write, ")
    sources = [text for label, text in mini[1] if label == "source"]
    assert any(text.startswith("ILSVRC2012's original tars in ") and "18 train, 7 val, 3 classes" in text
               for text in sources)
    assert any("ILSVRC2012_devkit_t12" in text for text in sources)


def test_imagenets_space_and_counts(monkeypatch, tmp_path):
    """The whole of it, with files that are not read."""
    from minicnn.data.prepare.files import File
    from minicnn.data.prepare.layout import Photo, Source

    wnids = [f"n{k:08d}" for k in range(1000)]
    one = File("x.JPEG", "x", 0, 1, 0)
    each = [Photo(wnid, "x", one) for wnid in wnids]
    parts = {"train": 1281 * each + each[:167], "val": 50 * each}
    monkeypatch.setattr(run, "open_source", lambda *_: Source("class folders", parts, wnids, True))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 200 * 10**9))
    lines = []
    with pytest.raises(DataError, match="has room for 200 GB, and 264 GB are needed; .* or use --jpeg, .* about 40 GB"):
        prepare("x", str(tmp_path / "out"), progress=False, say=lambda label, text: lines.append((label, text)))
    assert dict(lines)["counts"].startswith("those of ILSVRC2012: 1,281,167 train and 50,000 val")
    assert dict(lines)["space"].startswith("264 GB as uint8 of 256 x 256; 264 GB to write, 200 GB free")
    assert not (tmp_path / "out").exists()


def test_prepared_equals_the_folder_it_came_from(tmp_path, mini):
    """Same images, numbers, labels and statistics as when the tree is decoded on the fly: the same training run."""
    folder = open_data(ilsvrc.class_folders(tmp_path / "tree", ilsvrc.generated), size=SIZE)
    splits = open_data(mini[0])
    for there, here in ((folder.train, splits.train), (folder.val, splits.val)):
        scan(there, progress=False)
        assert there.left_out == here.left_out and there.classes == here.classes
        np.testing.assert_array_equal(there.ids, here.ids)
        np.testing.assert_array_equal(there.labels, here.labels)
        for i in range(len(here)):
            np.testing.assert_array_equal(there.read(i), here.read(i))
            assert there.path(i) == here.path(i)
    measured, known = measure(folder.train, progress=False), measure(splits.train)
    assert known.count == 16
    for name in ("mean", "eigenvalues", "eigenvectors"):
        np.testing.assert_array_equal(getattr(measured, name), getattr(known, name))


def test_training_on_shards_is_training_on_the_folder(tmp_path):
    """The same weights, bit for bit."""
    from minicnn.train.checkpoint import load_checkpoint
    from minicnn.train.loop import Trainer
    from tests.train.small_run import small_net, small_recipe

    tree(tmp_path / "folder" / "train", {"a": 9, "b": 8}, ".jpg")
    tree(tmp_path / "folder" / "val", {"a": 3, "b": 3}, ".jpg", first=50)
    (tmp_path / "folder" / "train" / "a" / "004.jpg").write_text("404")
    prepared(tmp_path / "folder", tmp_path / "out")
    weights = []
    for source in ("folder", "out"):
        splits = open_data(tmp_path / source, size=SIZE)
        Trainer(small_net(classes=2), small_recipe(batch=4), splits.train, splits.val, tmp_path / f"{source} run",
                progress=False, say=None).fit(2)
        weights.append(load_checkpoint(tmp_path / f"{source} run" / "last.safetensors").params)
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_a_set_without_parts_is_cut_as_its_folder(tmp_path):
    tree(tmp_path / "cells", {"a": 20, "b": 30})
    prepared(tmp_path / "cells", tmp_path / "out")
    folder, splits = open_data(tmp_path / "cells", size=SIZE), open_data(tmp_path / "out")
    for part in ("train", "val", "test"):
        there, here = getattr(folder, part), getattr(splits, part)
        np.testing.assert_array_equal(there.ids, here.ids)
        np.testing.assert_array_equal(there.read(0), here.read(0))
    assert measure(splits.train, progress=False).count == 40                  # of train alone


def test_without_val_a_tenth_is_set_apart(tmp_path):
    tree(tmp_path / "pets" / "train", {"a": 20, "b": 10})
    prepared(tmp_path / "pets", tmp_path / "out")
    splits = open_data(tmp_path / "out")
    assert len(splits.train) == 27 and len(splits.val) == 3 and "no val/" in splits.description
    assert measure(splits.train, progress=False).count == 27


def test_jpeg_shards(tmp_path, mini):
    prepared(ilsvrc.originals(tmp_path / "source", ilsvrc.generated), tmp_path / "out", jpeg=True)
    raw, small = open_data(mini[0]).train, open_data(tmp_path / "out").train
    assert (tmp_path / "out" / "train-00000.jpegs").stat().st_size < (mini[0] / "train-00000.rgb").stat().st_size
    assert raw.left_out == small.left_out
    for i in range(len(raw)):
        difference = np.abs(raw.read(i).astype(int) - small.read(i))
        assert small.read(i).shape == (SIZE, SIZE, 3) and difference.mean() < 12


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_do_not_matter(tmp_path, mini, workers):
    prepared(ilsvrc.originals(tmp_path / "source", ilsvrc.generated), tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(mini[0])


# ---- going on, and running out of room
def test_again_does_nothing(tmp_path):
    source = ilsvrc.class_folders(tmp_path / "source", ilsvrc.generated)
    prepared(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    [(label, text)] = prepared(source, tmp_path / "out")
    assert label == "prepared" and "is finished already: 18 train, 7 val" in text
    assert contents(tmp_path / "out") == before
    with pytest.raises(DataError, match="holds a set prepared with .*size=32.*, not .*size=48"):
        prepared(source, tmp_path / "out", size=48)


@pytest.mark.parametrize("function", ["pwrite", "fsync", "replace"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, mini, monkeypatch, function):
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    with monkeypatch.context() as patch:
        calls, real = [], getattr(os, function)

        def full(*arguments):
            calls.append(arguments)
            if len(calls) > 9:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        patch.setattr(os, function, full)
        with pytest.raises(DataError, match="cannot be written: No space left on device; make room and run the same"):
            prepared(source, tmp_path / "out", workers=1)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.rgb")}
    assert finished
    with pytest.raises(DataError, match="is not fully prepared; run the same `minicnn prepare` again"):
        open_data(tmp_path / "out")
    assert "shards are finished already" in dict(prepared(source, tmp_path / "out"))["space"]
    assert contents(tmp_path / "out") == contents(mini[0])
    assert sum(path.stat().st_mtime_ns == then for path, then in finished.items()) >= len(finished) - 1


def test_a_source_that_changed_meanwhile(tmp_path, monkeypatch):
    """Stopped in val; then a training image is replaced: only its shard is made again."""
    source = tree(tmp_path / "source" / "train", {"a": 8, "b": 8}).parent
    tree(source / "val", {"a": 2, "b": 2}, first=50)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_complete", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(DataError, match="full"):
            prepared(source, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.rgb")}
    Image.fromarray(np.full((50, 60, 3), 9, np.uint8)).save(source / "train" / "b" / "009.png")
    prepared(source, tmp_path / "out")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.rgb")}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["train-00002.rgb"]
    assert (open_data(tmp_path / "out").train.read(9) == 9).all()


def test_two_at_once(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", {"a": 3, "b": 3})

    def meanwhile(*_):
        with pytest.raises(DataError, match="is being prepared by another process"):
            prepared(source, tmp_path / "out")
        raise DataError("enough")

    monkeypatch.setattr(run, "_introduce", meanwhile)
    with pytest.raises(DataError, match="enough"):
        prepared(source, tmp_path / "out")


# ---- strict
def test_strict_names_everything_and_goes_on_after_repair(tmp_path):
    images = {"a": 6, "b": 6}
    source = tree(tmp_path / "source", images, ".jpg")
    bad = source / "b" / "007.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(DataError, match=r"--strict: 1 images cannot be read, the first is all/b/007.jpg \(.*[Tt]runc"):
        prepared(source, tmp_path / "out", strict=True)
    assert [row[:2] for row in report(tmp_path / "out")] == [("truncated", "all/b/007.jpg")]
    bad.write_bytes(whole)
    assert "2 of 3 shards are finished already" in dict(prepared(source, tmp_path / "out", strict=True))["space"]


def test_strict_compares_counts_before_any_work(tmp_path):
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    with pytest.raises(DataError, match="--strict: .* 18 train images, 1,281,149 fewer .* 1 empty classes"):
        prepared(source, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


# ---- labels of validation images
def test_numbers_alone_are_refused(tmp_path):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {})
    (tmp_path / "numbers.txt").write_text("3\n" * 7)
    with pytest.raises(DataError, match="is a column of numbers, which may be places in the sorted list or the devkit"):
        prepared(source, tmp_path / "out", labels=str(tmp_path / "numbers.txt"))
    (source / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n" * 7)
    with pytest.raises(DataError, match=r"only its data/meta.mat turns into wnids"):
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
    with pytest.raises(DataError, match="val has 7 images in one folder, and nothing says what they show; expected"):
        prepared(source, tmp_path / "out")
    monkeypatch.setattr(labels, "_package", lambda: str(tmp_path / "package"))
    prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out", DIFFERS) == contents(mini[0], DIFFERS)


def test_a_missing_validation_image_shifts_no_label(tmp_path):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, ilsvrc.devkit())
    (source / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    prepared(source, tmp_path / "out")
    val = open_data(tmp_path / "out").val
    assert len(val) == 6
    for i in range(6):
        number = int(val.path(i)[-13:-5])
        assert val.classes[val.labels[i]] == ilsvrc.val_wnids()[number - 1]


def test_places_need_all_classes(tmp_path):
    source = ilsvrc.flat_val(tmp_path / "source", ilsvrc.generated, {"val.txt": ilsvrc.by_index("txt")})
    shutil.rmtree(source / "train" / ilsvrc.WNIDS[2])
    with pytest.raises(DataError, match="val.txt numbers its classes 0 to 3, but there are 3; the places"):
        prepared(source, tmp_path / "out")


def test_without_scipy(tmp_path, monkeypatch):
    source = ilsvrc.originals(tmp_path / "source", ilsvrc.generated)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"needs scipy: pip install 'minicnn\[imagenet\]'; or put LOC_val_solution.csv"):
        prepared(source, tmp_path / "out")


# ---- sources that cannot be used
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
    """Unpacked, with the tars still there: the folders are used, and that is said."""
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
