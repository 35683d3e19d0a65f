"""`minicnn look`: a picture for every kind, and one line for a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.experiment.look import WHATS
from tests.cli.test_cli import run
from tests.helpers.small_run import small_trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the small net, and two photographs."""
    folder = tmp_path_factory.mktemp("look")
    small_trainer(folder / "run", images=16).fit(1)
    for name, seed in (("one", 1), ("two", 2)):
        noise = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
        Image.fromarray(noise).resize((40, 35)).save(folder / f"{name}.png")
    return folder


def look(capsys, trained, *arguments, photos=("one",)):
    return run(capsys, "look", str(trained / "run"), *(str(trained / f"{photo}.png") for photo in photos),
               "--device", "reference", "--square", "8", *arguments)


@pytest.mark.parametrize("what", WHATS)
def test_every_picture(capsys, trained, tmp_path, what):
    code, out, err = look(capsys, trained, "--what", what, "--layer", "conv1", "--to", str(tmp_path),
                          photos=("one", "two"))
    paths = [Path(line) for line in out.splitlines()]
    assert code == 0 and not err and len(paths) == (1 if what == "top" else 2)
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        assert path.parent == tmp_path and what in path.name and image.shape[1] == 1350 and image.std() > 5


def test_pictures_are_beside_the_checkpoint_and_named_by_layer_and_unit(capsys, trained):
    code, out, _ = look(capsys, trained, "--layer", "conv1", "--unit", "3")
    assert code == 0 and out.split() == [str(trained / "run" / "look" / "one-deconv-conv1-3.png")]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--layer", "convl"], "no layer is called 'convl'; did you mean 'conv1'?"),
    (["--layer", "conv1", "--unit", "8"], "layer 'conv1' has no unit 8: it has 8, counted from 0; the nearest is 7"),
    (["--what", "decon"], "--what cannot be 'decon': did you mean 'deconv'?"),
    (["--what", "gradcam", "--layer", "fc2"], "Grad-CAM needs a layer with rows and columns"),
    (["--what", "occlusion", "--square", "99"], "expected a square of 1 to 24"),
    (["--what", "occlusion", "--grey", "300"], "--grey must be from 0 to 255"),
    (["--what", "saliency", "--class", "nothing"], "there is no class 'nothing'")])
def test_mistakes(capsys, trained, tmp_path, arguments, words):
    code, out, err = look(capsys, trained, "--to", str(tmp_path / "out"), *arguments)
    assert code == 2 and not out and len(err.splitlines()) == 1 and err.startswith("error: ") and words in err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read(capsys, trained, tmp_path):
    """Photographs and runs; nothing is drawn, not even of the photograph that can be read."""
    (trained / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    cases = [(lambda: look(capsys, trained, "--to", str(tmp_path / "out"), photos=("one", "text")), "cannot read"),
             (lambda: look(capsys, trained, "--to", str(tmp_path / "out"), photos=("gone",)), "gone.png"),
             (lambda: look(capsys, trained, photos=()), "name at least one: minicnn look RUN photo.jpg"),
             (lambda: run(capsys, "look", str(tmp_path / "empty"), "x.png"), "best.safetensors"),
             (lambda: run(capsys, "look", str(tmp_path / "none"), "x.png"), "no such run")]
    for call, words in cases:
        code, out, err = call()
        assert code == 2 and not out and len(err.splitlines()) == 1 and words in err, err
    assert not (tmp_path / "out").exists()
