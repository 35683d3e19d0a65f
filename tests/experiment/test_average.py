"""Runs are averaged on the same images, wherever their folders lie."""

import shutil

from PIL import Image

from minicnn.data.scan import scan
from minicnn.data.source import open_data
from minicnn.experiment.evaluation import _same_images
from tests.helpers.trees import picture, tree


def test_the_images_decide_not_the_folders(tmp_path):
    tree(tmp_path / "set", {"a": 12, "b": 12})
    held_out = open_data(tmp_path / "set", size=16).test
    scan(held_out, progress=False)
    other = shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert _same_images(held_out, open_data(other, size=16))
    path = other / held_out.path(0)
    path.unlink()
    Image.fromarray(picture(99)).save(path)
    assert not _same_images(held_out, open_data(other, size=16))
