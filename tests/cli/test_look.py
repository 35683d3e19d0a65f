"""`minicnn look`: a picture for every kind, and one line for a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.builder import Builder
from minicnn.experiment import look as experiment_look
from minicnn.experiment.look import TOGETHER, WHATS
from minicnn.experiment.looking import per_set
from minicnn.visualize import style
from tests.cli.test_cli import run
from tests.helpers.small_run import save_tree, small_trainer

BOX = ("--box", "2,3,8,8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a small net with two columns that keeps its weights, its training images, and two photographs."""
    folder = tmp_path_factory.mktemp("look")
    b = Builder((24, 24, 3), name="small")
    b.relu("relu1", input=b.conv("conv1", 8, 5, stride=2))
    b.conv("grouped", 6, 3, groups=2, input=b.lrn("norm1"))
    b.linear("fc2", 16, input=b.flatten(input=b.relu()))
    b.linear("fc3", 4, input=b.relu())
    b.loss()
    small_trainer(folder / "run", images=16, keep_every=1, net=b.net(device="reference")).fit(2)
    save_tree(folder / "tree", 4, classes=4, size=32)
    for name, seed in (("one", 1), ("two", 2)):
        noise = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
        Image.fromarray(noise).resize((40, 35)).save(folder / f"{name}.png")
    return folder


def look(capsys, trained, *arguments, photos=("one",)):
    return run(capsys, "look", str(trained / "run"), *(str(trained / f"{photo}.png") for photo in photos),
               "--device", "reference", "--square", "8", *arguments)


@pytest.mark.parametrize("what", WHATS)
def test_every_picture(capsys, trained, tmp_path, what, monkeypatch):
    monkeypatch.setattr(style, "DPI", 60)                               # of 150, which takes three times as long
    data = ("--data", str(trained / "tree"), "--images", "8") if what == "neighbours" else ()
    data = ("--maps", "1") if what == "evolution" else data
    code, out, err = look(capsys, trained, "--what", what, "--layer", "conv1", "--to", str(tmp_path), *BOX, *data,
                          photos=("one", "two"))
    paths = [Path(line) for line in out.splitlines()]
    assert code == 0 and not err and len(paths) == (1 if what in TOGETHER else 2), err
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        assert path.parent == tmp_path and what in path.name and image.shape[1] == 540 and image.std() > 5


def test_many_units_are_in_several_pictures(capsys, trained, tmp_path, monkeypatch):
    """In one, a layer's 256 would be 200,000 pixels high."""
    monkeypatch.setattr(style, "DPI", 30)
    monkeypatch.setattr(per_set, "ROWS", 2)
    code, out, err = look(capsys, trained, "--what", "top", "--layer", "conv1", "--maps", "3", "--to", str(tmp_path),
                          photos=("one", "two"))
    assert code == 0 and [Path(line).name for line in out.splitlines()] == [
        f"top-conv1-strongest-{number}.png" for number in (1, 2)], err


def test_pictures_are_beside_the_checkpoint_and_named_by_layer_and_unit(capsys, trained):
    code, out, _ = look(capsys, trained, "--layer", "conv1", "--unit", "3")
    assert code == 0 and out.split() == [str(trained / "run" / "look" / "one-deconv-conv1-3.png")]


@pytest.mark.parametrize(("what", "layers"), [("guided", "grouped: similarity"), ("gradcam", "fc3: similarity")])
def test_sanity_checks_are_below_the_picture(capsys, trained, tmp_path, monkeypatch, what, layers):
    """A picture for each stage, from the top down, on a scale of its own."""
    drawn = []
    monkeypatch.setattr(experiment_look, "draw_panels", lambda rows, path, title: drawn.append(rows) or path)
    code, _, _ = look(capsys, trained, "--what", what, "--layer", "grouped", "--sanity", "--to", str(tmp_path))
    (rows,) = drawn
    panels, caption = rows[1]
    assert code == 0 and len(rows) == 2 and "Adebayo et al., 2018" in caption and panels[0].label.startswith(layers)
    assert len(panels) == (2 if what == "guided" else 4)
    assert panels[-1].label.startswith(f"{layers.partition(':')[0]} to conv1: similarity")


@pytest.mark.parametrize(("arguments", "words"), [
    (["--what", "deconv", "--unit", "99"], "has no unit 99"),
    (["--what", "evolution", "--layer", "nothing"], "no layer is called 'nothing'"),
    (["--what", "evolution", "--unit", "99"], "has no unit 99"),
    (["--what", "evolution", "--images", "0"], "--images must be at least 1, got 0"),
    (["--what", "maps", "--layer", "fc2"], "which is no map; the nearest layer with rows and columns is"),
    (["--what", "invariance", "--layer", "con1"], "did you mean 'conv1'?"),
    (["--what", "invariance", "--class", "cat"], "there is no class 'cat'"),
    (["--what", "correspondence"], "name it by --box TOP,LEFT,HEIGHT,WIDTH"),
    (["--what", "correspondence", "--box", "1,2,3"], "--box '1,2,3': expected TOP,LEFT,HEIGHT,WIDTH"),
    (["--what", "correspondence", *BOX], "at least two photographs"),
    (["--what", "correspondence", *BOX, *BOX], "--box was given 2 times for 1 photographs"),
    (["--what", "neighbours"], "does not say where its images are: add --data DIR"),
    (["--what", "top", "--sanity"], "--sanity is for pictures by gradients"),
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
    cases = [(lambda what=what: look(capsys, trained, "--to", str(tmp_path / "out"), "--what", what, *BOX,
                                     photos=("one", "text")), "cannot read")
             for what in ("deconv", "maps", "invariance", "correspondence", "neighbours")]
    cases += [(lambda: look(capsys, trained, "--what", "invariance", photos=()), "--what invariance is of photographs"),
              (lambda: look(capsys, trained, "--to", str(tmp_path / "out"), photos=("gone",)), "gone.png"),
              (lambda: look(capsys, trained, photos=()), "name at least one: minicnn look RUN photo.jpg"),
              (lambda: run(capsys, "look", str(tmp_path / "empty"), "x.png"), "best.safetensors"),
              (lambda: run(capsys, "look", str(tmp_path / "none"), "x.png"), "no such run")]
    for call, words in cases:
        code, out, err = call()
        assert code == 2 and not out and len(err.splitlines()) == 1 and words in err, err
    assert not (tmp_path / "out").exists()


def test_what_a_run_cannot_show(capsys, tmp_path):
    """Without kept weights no evolution, without two groups no columns: one line."""
    small_trainer(tmp_path / "run", images=16).fit(1)
    for what, words in (("evolution", "train with --keep-every EPOCHS"), ("columns", "has no two columns")):
        code, out, err = run(capsys, "look", str(tmp_path / "run"), "--what", what, "--device", "reference")
        assert code == 2 and not out and len(err.splitlines()) == 1 and words in err
