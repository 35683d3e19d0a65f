"""`minicnn prepare` gives the same bytes from every layout of ILSVRC2012, and they are what the images hold."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.data.prepare import run
from minicnn.data.prepare.report import write_report
from minicnn.data.prepare.run import prepare
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.data.statistics import measure
from minicnn.errors import DataError
from tests.data.prepare.preparing import DIFFERS, SIZE, contents, prepared, report
from tests.helpers import ilsvrc
from tests.helpers.trees import tree

SHARED = Path(os.environ.get("MINICNN_SHARED", "")) / "data" / "cats-dogs.tar"


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


def test_a_line_a_file_in_the_report_whatever_its_name(tmp_path):
    names = ["two\nlines", "a\ttab", "a\rreturn", "caf\udce9", "no-break\N{NO-BREAK SPACE}space"]
    write_report(tmp_path / "report.tsv", [("unreadable", name, "why") for name in names])
    lines = (tmp_path / "report.tsv").read_bytes().split(b"\n")
    assert [line.split(b"\t")[1] for line in lines[1:-1]] == [
        rb"two\nlines", rb"a\ttab", rb"a\rreturn", b"caf\xe9", "no-break\N{NO-BREAK SPACE}space".encode()]


def test_counts_and_space_are_reported(mini):
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
    """All of ILSVRC2012, as a listing whose files are not read."""
    from minicnn.data.prepare.classes import Photo, Source
    from minicnn.data.prepare.files import File

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
    from minicnn.train.loop import Trainer
    from minicnn.train.runs.checkpoint import load_checkpoint
    from tests.helpers.small_run import small_net, small_recipe

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


def test_a_set_without_parts_is_split_as_its_folder(tmp_path):
    tree(tmp_path / "cells", {"a": 20, "b": 30})
    prepared(tmp_path / "cells", tmp_path / "out")
    folder, splits = open_data(tmp_path / "cells", size=SIZE), open_data(tmp_path / "out")
    for part in ("train", "val", "test"):
        there, here = getattr(folder, part), getattr(splits, part)
        np.testing.assert_array_equal(there.ids, here.ids)
        np.testing.assert_array_equal(there.read(0), here.read(0))
    assert measure(splits.train, progress=False).count == 40                  # of train alone


def test_without_val_a_tenth_is_held_out(tmp_path):
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
def test_the_number_of_threads_does_not_matter(tmp_path, mini, workers):
    prepared(ilsvrc.originals(tmp_path / "source", ilsvrc.generated), tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(mini[0])
