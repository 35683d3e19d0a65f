"""A run goes on with the images it was trained on, wherever they lie and whatever their folder is called."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from minicnn.data import scan
from minicnn.data.prepare.run import prepare
from minicnn.data.source import open_data
from minicnn.errors import CheckpointError
from minicnn.train.loop import Trainer
from minicnn.train.runs import checkpoint
from tests.helpers.small_run import small_net, small_recipe
from tests.helpers.trees import tree


def trainer(data, run):
    splits = open_data(data, size=32)
    return Trainer(small_net(classes=2), small_recipe(), splits.train, splits.val, run, progress=False, say=None)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A set in ImageNet's layout, one without a split, and the runs of each."""
    root = tmp_path_factory.mktemp("begun")
    tree(root / "parts" / "train", {"a": 8, "b": 8})
    tree(root / "parts" / "val", {"a": 2, "b": 2}, first=50)
    tree(root / "flat", {"a": 12, "b": 12}, ".jpg")
    for name in ("parts", "flat"):
        trainer(root / name, root / f"run of {name}").fit(1)
    return root


@pytest.fixture
def here(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "here")


@pytest.fixture
def passes(monkeypatch):
    """The images that are read."""
    read, real = [], scan.prefetched
    monkeypatch.setattr(scan, "prefetched", lambda function, items, *more: real(
        lambda item: read.append(item) or function(item), items, *more))
    return read


@pytest.mark.parametrize("name", ["parts", "flat"])
def test_a_folder_that_was_renamed_or_linked(here, name, passes):
    run = here / f"run of {name}"
    (here / name).rename(here / "moved")
    assert trainer(here / "moved", run).resume().epoch == 1
    os.symlink(here / "moved", here / "link")
    assert trainer(here / "link", run).resume().epoch == 1
    assert not passes                                       # the same files as they were: nothing is read


@pytest.mark.parametrize("name", ["parts", "flat"])
def test_copied_and_renamed_files_are_compared_in_one_pass(here, name, passes):
    copied = shutil.copytree(here / name, here / "copied", copy_function=shutil.copyfile)
    for path in sorted(copied.rglob("*.*g")):
        path.rename(path.with_name(f"x{path.name}"))        # in the same order
    resumed = trainer(copied, here / f"run of {name}").resume()
    assert len(passes) == len(resumed.train) + len(resumed.state.val)
    resumed.state.save(lambda: (0, None))
    passes.clear()
    trainer(copied, here / f"run of {name}").resume()       # they are known now
    assert not passes


@pytest.mark.parametrize("part", ["train", "val"])
def test_another_image_under_the_same_name(here, part):
    path = next(here.glob(f"parts/{part}/b/*"))
    about = path.stat()
    Image.fromarray(np.full((40, 48, 3), 7, np.uint8)).save(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(CheckpointError, match=rf"its run had data.{part} = parts.*, this one .* with other images"):
        trainer(here / "parts", here / "run of parts").resume()


def test_images_in_other_classes(here):
    """The same images, but two have changed places."""
    a, b = here / "parts/train/a/000.png", here / "parts/train/b/008.png"
    a.rename(here / "x")
    b.rename(a)
    (here / "x").rename(b)
    with pytest.raises(CheckpointError, match="its run had data.train"):
        trainer(here / "parts", here / "run of parts").resume()


@pytest.mark.parametrize("name", ["parts", "flat"])
def test_a_prepared_set_has_the_same_images(here, name, passes):
    """A run goes on with the set that its folder was prepared into, and the other way round."""
    prepare(str(here / name), str(here / "prepared"), size=32, progress=False)
    passes.clear()
    assert trainer(here / "prepared", here / f"run of {name}").resume().epoch == 1
    assert not passes                                       # its checksums are known
    trainer(here / "prepared", here / "second").fit(1)
    assert trainer(here / name, here / "second").resume().epoch == 1


def test_the_fingerprints_of_0_1_0(begun):
    """As that version computed them."""
    for name, wanted in (("parts", ("661658f6c593", "6f9ffb9d6a32")), ("flat", ("e80c92807434", "23945bf5cf3b"))):
        splits = open_data(begun / name, size=32)
        assert tuple(d.former_fingerprint(d.name)[:12] for d in (splits.train, splits.val)) == wanted


def as_written_by_0_1_0(run, data):
    """The checkpoint as that version wrote it: a fingerprint of name and listing, and nothing of the images."""
    saved = checkpoint.load_checkpoint(run / "last.safetensors")
    splits = open_data(data, size=32)
    for part, dataset in (("train", splits.train), ("val", splits.val)):
        words = saved.meta["identity"]["data"][part].rpartition(", ")[0]
        saved.meta["identity"]["data"][part] = f"{words}, {dataset.former_fingerprint(dataset.name)[:12]})"
    del saved.meta["images"]
    checkpoint.save_checkpoint(run / "last.safetensors", saved.params, saved.slots, saved.data, saved.meta)


@pytest.mark.parametrize("name", ["parts", "flat"])
def test_runs_of_0_1_0_go_on(here, name):
    run = here / f"run of {name}"
    as_written_by_0_1_0(run, here / name)
    (here / name).rename(here / "moved")
    resumed = trainer(here / "moved", run).resume()
    resumed.state.save(lambda: (0, None))
    os.utime(next((here / "moved").rglob("*.*g")), (1, 1))
    assert trainer(here / "moved", run).resume().epoch == 1
    next((here / "moved").rglob("*.*g")).unlink()
    with pytest.raises(CheckpointError, match="its run had data.train"):
        trainer(here / "moved", run).resume()
