"""Images that keep their aspect: decoded, kept in memory, batched, prepared into shards, measured."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from minicnn.cli import main as cli
from minicnn.data.images import ASPECT, central_square, load
from minicnn.data.loader import Loader, Photographs
from minicnn.data.prepare.run import prepare
from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.data.statistics import measure
from minicnn.errors import DataError
from tests.helpers.trees import picture

SIZE = 24
SHAPES = [(40, 60), (60, 40), (50, 50), (24, 31), (90, 200), (100, 26)]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def folder(tmp_path):
    """Pictures of many shapes; one cannot be read, and one is too long a strip."""
    for part, count in (("train", 17), ("val", 5)):
        for number in range(count):
            path = tmp_path / "source" / part / "ab"[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(number, *SHAPES[number % len(SHAPES)])).save(path)
    (tmp_path / "source/train/a/08.png").write_text("404")
    Image.fromarray(picture(0, 3, 100)).save(tmp_path / "source/train/b/09.png")
    return tmp_path / "source"


def opened(folder, **options):
    return open_data(folder, size=SIZE, resize=ASPECT, **options)


def test_the_short_side_alone_is_resized(folder):
    train = opened(folder).train
    scan(train, progress=False)
    for i in range(len(train)):
        path = folder / train.path(i)
        with Image.open(path) as image:
            short = min(image.size)
            wanted = np.asarray(image.resize([round(SIZE * side / short) for side in image.size], 3))
        np.testing.assert_array_equal(train.read(i), wanted)
        assert min(train.read(i).shape[:2]) == SIZE and train.read(i).flags.c_contiguous
    assert {train.caption("train/a/08.png"), "train/b/09.png"} == {path for path, _ in train.skipped}
    assert "100 x 3 pixels: one side is more than 20 times the other" in train.skipped[1][1]
    assert train.image_shape == (SIZE, SIZE, 3) and train.keeps_aspect


def test_batches_hold_what_they_say(folder):
    """Images and their sizes, one after the other, without padding."""
    train = opened(folder).train
    scan(train, progress=False)
    [batch] = Loader(train, len(train), workers=2, shuffle=True).epoch(0)
    assert isinstance(batch.images, Photographs) and batch.images.pixels.dtype == np.uint8
    assert batch.images.pixels.size == sum(train.read(i).size for i in range(len(train)))
    some = batch.select([3, 1])
    for k, i in enumerate(batch.indices):
        np.testing.assert_array_equal(batch.images[k], train.read(i))
        assert (batch.image_hw[0][k], batch.image_hw[1][k]) == train.read(i).shape[:2]
    np.testing.assert_array_equal(some.images[0], batch.images[3])
    np.testing.assert_array_equal(some.images[1], batch.images[1])
    assert len(some.images) == 2 and some.labels.tolist() == batch.labels[[3, 1]].tolist()


def test_kept_in_memory_within_the_bytes_allowed(folder, monkeypatch):
    train, square = opened(folder, cache_bytes=0).train, SIZE * SIZE * 3
    assert train.keep_decoded(11 * square) == 10 * square                   # five images of up to two squares
    scan(train, progress=False)
    before = [train.read(i) for i in range(len(train))]
    decoded = []
    monkeypatch.setattr(train, "decode", lambda item: decoded.append(item) or load(str(folder / item), SIZE,
                                                                                   resize=ASPECT))
    for i, image in enumerate(before):
        np.testing.assert_array_equal(train.read(i), image)
    kept = [i for i in range(5) if before[i].nbytes <= 2 * square]
    assert 0 < len(kept) < 5 and len(decoded) == len(train) - len(kept)


@pytest.mark.parametrize("jpeg", [False, True])
def test_prepared_equals_the_folder_it_came_from(folder, tmp_path, jpeg):
    summary = prepare(str(folder), str(tmp_path / "out"), size=SIZE, keep_aspect=True, jpeg=jpeg, per_shard=5,
                      workers=2, progress=False)
    assert summary["resize"] == ASPECT
    there, here = opened(folder), open_data(tmp_path / "out", resize=ASPECT)
    for those, these in ((there.train, here.train), (there.val, here.val)):
        scan(those, progress=False)
        assert these.left_out == those.left_out and these.keeps_aspect
        np.testing.assert_array_equal(these.ids, those.ids)
        for i in range(len(these)):
            found, wanted = these.read(i), those.read(i)
            assert found.shape == wanted.shape
            assert np.abs(found.astype(int) - wanted).mean() < (12 if jpeg else 1e-9)
    known, measured = measure(here.train), measure(there.train, progress=False)
    assert known.mean.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(known.mean, measured.mean)
    squares = np.mean([central_square(there.train.read(i)) for i in range(len(there.train))], axis=0)
    np.testing.assert_allclose(measured.mean, squares, rtol=1e-5)
    again = prepare(str(folder), str(tmp_path / "out"), size=SIZE, keep_aspect=True, jpeg=jpeg, per_shard=5)
    assert again["parts"] == summary["parts"]
    with pytest.raises(DataError, match=rf"other options \(a short side of {SIZE}, .* than .*\({SIZE} x {SIZE}, "):
        prepare(str(folder), str(tmp_path / "out"), size=SIZE, jpeg=jpeg, per_shard=5)


def test_damage_and_the_wrong_recipe_are_noticed(folder, tmp_path, capsys):
    """As in other shards: the command that makes them, the one that checks them, and reading them otherwise."""
    out = tmp_path / "out"
    assert cli.main(["prepare", str(folder), str(out), "--short-side", str(SIZE), "--keep-aspect"]) == 0
    assert "with a short side of 24, 15 train, 5 val" in open_data(out, resize=ASPECT).description
    assert json.loads((out / "prepared.json").read_text())["format"] == "minicnn prepared_aspect 1"
    with pytest.raises(DataError, match="was prepared with aspect and bicubic, short and bicubic was asked for"):
        open_data(out)
    square = prepare(str(folder), str(tmp_path / "square"), size=SIZE, progress=False)
    how = f"prepare its images with --short-side {SIZE} --keep-aspect"
    with pytest.raises(DataError, match=f"aspect and bicubic was asked for; .*, or {how}$"):
        open_data(tmp_path / "square", size=SIZE, resize=ASPECT)
    with pytest.raises(DataError, match=f"at size {SIZE}, and 32 was asked for; {how.replace(str(SIZE), '32')}, or "):
        open_data(out, size=32, resize=ASPECT)
    assert "resize" not in square
    assert cli.main(["verify", str(out)]) == 0
    shard = out / "train-00000.rgb"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 8
    shard.write_bytes(data)
    assert cli.main(["verify", str(out)]) == 1
    assert "1 of 17 images have changed since they were written" in "".join(capsys.readouterr())
    with pytest.raises(DataError, match="have changed since they were written"):
        list(Loader(open_data(out, resize=ASPECT).train, 4).epoch(0))
