"""Reading a prepared set: its images, its memory, and that damage is noticed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from minicnn.data.dataset import ImageError
from minicnn.data.loader import Loader
from minicnn.data.prepare.run import prepare
from minicnn.data.prepared import read_summary
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.errors import DataError
from tests.helpers.trees import tree


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """No power failure is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module", params=[False, True], ids=["rgb", "jpeg"])
def whole(request, tmp_path_factory):
    """A small prepared set."""
    root = tmp_path_factory.mktemp("prepared")
    tree(root / "source" / "train", {"a": 9, "b": 8})
    tree(root / "source" / "val", {"a": 2, "b": 3}, first=50)
    prepare(str(root / "source"), str(root / "out"), size=32, per_shard=5, jpeg=request.param, progress=False)
    return root / "out"


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def shard(folder, part="train", number=1):
    return next(folder.glob(f"{part}-{number:05d}.*"))


def read_all(folder):
    splits = open_data(folder)
    for dataset in (splits.train, splits.val):
        for batch in Loader(dataset, 4, shuffle=True, workers=2).epoch(0):
            assert batch.images.shape[1:] == (32, 32, 3)


def test_order_depends_on_seed_and_epoch_alone(whole):
    def order(seed, epoch, workers):
        loader = Loader(open_data(whole).train, 4, seed=seed, shuffle=True, workers=workers)
        return [batch.sample_ids.tolist() for batch in loader.epoch(epoch)]

    assert order(1, 2, 1) == order(1, 2, 3) != order(1, 3, 1)
    assert order(1, 2, 1) != order(2, 2, 1)
    assert sorted(sum(order(1, 2, 1), [])) == list(range(17))


def test_nothing_is_read_before_training_and_nothing_kept(whole, monkeypatch):
    splits = open_data(whole)
    if splits.train.in_memory:
        assert splits.keep_decoded(10**9) == 0
    monkeypatch.setattr(type(splits.train), "read_at", lambda *_: pytest.fail("read"))
    assert scan(splits.val, progress=False) == []


def test_size(whole):
    assert open_data(whole, size=32).train.image_shape == (32, 32, 3)
    jpeg = " --jpeg" * (read_summary(whole)["encoding"] == "jpeg")
    with pytest.raises(DataError, match=f"at size 32, and 64 was asked for; prepare its images with --size 64{jpeg}, "):
        open_data(whole, size=64)


@pytest.mark.parametrize("bit", [0, 1999, -1])
def test_one_flipped_bit_is_noticed(copy, bit):
    path = shard(copy)
    data = bytearray(path.read_bytes())
    data[bit % len(data)] ^= 8
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"train-00001.*the bytes of image \d \(train/[ab]/.*have changed since"):
        read_all(copy)


def test_every_flipped_byte_of_the_small_files_is_noticed(copy):
    """prepared.json, the index, the statistics: each damaged at several places."""
    for name in ("prepared.json", "train.index", "val.index", "statistics.safetensors"):
        path = copy / name
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 7)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
            with pytest.raises(DataError, match=name):
                read_all(copy)
        path.write_bytes(data)
    read_all(copy)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_shard_cut_short(copy, part):
    path = shard(copy, part, 0)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(DataError, match=f"{part}-00000.* has {size - 1:,} bytes, expected {size:,}; it was cut short"):
        open_data(copy)


def test_files_that_are_gone(copy):
    for name in [shard(copy).name, "val.index", "statistics.safetensors"]:
        data = (copy / name).read_bytes()
        (copy / name).unlink()
        with pytest.raises(DataError, match=f"{name}: No such file or directory; the set is incomplete"):
            open_data(copy)
        (copy / name).write_bytes(data)
    (copy / "prepared.json").unlink()
    with pytest.raises(DataError, match="copy holds no images|copy has"):
        open_data(copy)                                                       # an ordinary folder


def test_a_shard_removed_or_cut_while_training(copy):
    train = open_data(copy).train
    train.read(0)
    shard(copy, number=0).unlink()
    train.read(1)                                                             # mapped: the system keeps it
    shard(copy, number=1).unlink()
    with pytest.raises(DataError, match="train-00001.* cannot be read|train-00001.*No such file"):
        train.read(5)
    os.truncate(shard(copy, number=2), 100)
    with pytest.raises(DataError, match="train-00002.* has 100 bytes, expected"):
        train.read(10)


def test_another_format(copy):
    summary = json.loads((copy / "prepared.json").read_text())
    (copy / "prepared.json").write_text(json.dumps(summary | {"format": "minicnn prepared 9"}))
    with pytest.raises(DataError, match="is in the format 'minicnn prepared 9', this minicnn reads"):
        open_data(copy)


PROGRAM = """
import re, sys
from pathlib import Path
from minicnn.data.loader import Loader
from minicnn.data.source import open_data
from minicnn.data.statistics import measure

splits = open_data(sys.argv[1])
measure(splits.train)
for number, batch in enumerate(Loader(splits.train, 48, shuffle=True, drop_last=True).epoch(0)):
    if number == 12:
        print(len(splits.train), re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
        break
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_set(tmp_path):
    """150,000 images, 29 GB in files with holes, against 640: the loader's own memory stays within 500 MB."""
    from minicnn.data.prepare import run
    from minicnn.data.prepare.shards import Settings

    tree(tmp_path / "source" / "train", {"a": 1, "b": 1})
    tree(tmp_path / "source" / "val", {"a": 1, "b": 1})
    prepare(str(tmp_path / "source"), str(tmp_path / "out"), progress=False)
    small = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert Settings(256, "rgb", run.PER_SHARD).image_bytes == 196_608
    used = {}
    for count in (640, 150_000):
        used[count] = anonymous(tmp_path / str(count), tmp_path / "out", small, count)
    assert used[150_000] < 500_000 and used[150_000] < used[640] + 100_000, used


def anonymous(folder, pattern, summary, count):
    """kB of anonymous memory in the middle of an epoch over a set of `count` black images."""
    import zlib

    from safetensors.numpy import save

    from minicnn.data.prepared import write_summary

    shutil.copytree(pattern, folder)
    shards = []
    for number, first in enumerate(range(0, count, 2048)):
        images = min(2048, count - first)
        name = f"train-{number:05d}.rgb"
        with open(folder / name, "wb") as file:
            file.truncate(images * 196_608)
        shards.append({"file": name, "bytes": images * 196_608})
    index = save({"labels": np.arange(count, dtype=np.int32) % 2, "names": np.full(20 * count, ord("x"), np.uint8),
                  "name_ends": 20 * np.arange(1, count + 1), "left_out": np.frombuffer(b"{}", np.uint8),
                  "crc32": np.full(count, zlib.crc32(bytes(196_608)), np.uint32)})
    (folder / "train.index").write_bytes(index)
    body = {name: value for name, value in summary.items() if name not in ("crc32", "format")}
    body["parts"]["train"] = {"images": count, "left_out": 0, "shards": shards, "index_crc32": zlib.crc32(index)}
    write_summary(str(folder / "prepared.json"), body)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], check=True, capture_output=True, text=True,
                          timeout=300)
    length, used = done.stdout.split()
    assert int(length) == count
    return int(used)
