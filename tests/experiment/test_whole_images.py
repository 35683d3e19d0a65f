"""minicnn train and evaluate on whole images: asked for, or because the set was prepared so; and --augment."""

import json
import os

import pytest
from PIL import Image

from minicnn.cli import main as cli
from minicnn.data.procedural import CLASSES, draw_image
from minicnn.errors import ConfigError
from minicnn.experiment.augmentation import in_words, parsed
from minicnn.train.runs.checkpoint import load_checkpoint

SHAPES = [(60, 44), (40, 70), (48, 48)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photographs of several shapes, and the same set prepared with whole images."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        for number in range(60):
            height, width = SHAPES[number % 3]
            path = root / "photos" / CLASSES[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(7, 80, number)[:height, :width]).save(path)
        arguments = ["prepare", str(root / "photos"), str(root / "shards"), "--short-side", "36", "--keep-aspect"]
        assert cli.main(arguments) == 0
    return root


def train(root, data, *more):
    return cli.main(["train", "cifar_18pct", "--data", str(root / data), "--recipe", "quick", "--epochs", "1",
                     "--warmup", "0", "--batch", "8", "--threads", "1", "--device", "cpu", "--out",
                     str(root / "runs"), *more])


def test_the_same_run_from_the_folder_and_from_shards(place, capsys):
    """Asked for by --keep-aspect, or because they were prepared so: the same weights."""
    how = ["--augment", "scale=34:48,cutout=8,colour=paper"]
    assert train(place, "photos", "--keep-aspect", "--size", "36", "--run-name", "folder", *how, "--results",
                 str(place / "page")) == 0
    out = capsys.readouterr().out
    said = " ".join(out.split())
    for words in ("here: colour shift", "cutout 8", "scale jitter of the short side 34 48",
                  "resized by the short side, all of it kept"):
        assert words in said
    assert train(place, "shards", "--run-name", "shards", *how) == 0
    saved = [load_checkpoint(place / "runs" / name / "last.safetensors") for name in ("folder", "shards")]
    for name, array in saved[0].params.items():
        assert (array == saved[1].params[name]).all(), name
    recipe = saved[0].meta["recipe"]
    assert recipe["augment"]["scale"] == [34, 48] and recipe["preprocess"]["resize"] == "aspect"
    assert recipe["preprocess"]["size"] == 36 and recipe == saved[1].meta["recipe"]
    [report] = json.loads((place / "page.json").read_text())
    assert "--augment=scale=34:48,cutout=8,colour=paper --keep-aspect" in report["command"]
    capsys.readouterr()
    assert cli.main(["evaluate", str(place / "runs/shards"), "--protocol", "dense", "--protocol", "ten-crop"]) == 0
    assert "images, dense, best" in (out := capsys.readouterr().out) and "images, ten crops, best" in out
    assert cli.main(["train", "--resume", str(place / "runs/shards")]) == 0
    photo = str(next((place / "photos" / CLASSES[0]).iterdir()))
    assert cli.main(["predict", str(place / "runs/shards"), photo]) == 0


def test_what_is_asked_for_makes_sense(place, capsys):
    assert parsed("scale=256:480,flip=no,area=none") == {"scale": (256, 480), "flip": False, "area": None}
    for text in ("scale=256:480,flip=no,area=none", "area=0.08:1.0,padding=reflect", ""):
        assert in_words(parsed(text)) == text
    for text, message in [("scal=3", r"--augment: unknown setting 'scal': did you mean 'scale'\?"),
                          ("flip", "--augment: flip has no value; write it as flip=VALUE"),
                          ("scale=480:256", "Augment.scale must be two positive numbers"),
                          ("pad=four", "Augment.pad, in pixels, must be a whole number, got 'four'"),
                          ("flip=yes,flip=no", "--augment: flip is given twice")]:
        with pytest.raises(ConfigError, match=message):
            parsed(text)
    assert train(place, "photos", "--augment", "scale=20:30") == 2
    assert "a crop of 32 does not fit into images of 20x20" in capsys.readouterr().err
