"""The packaged network: what its file and page say, what it predicts, and that both are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import pretrained
from minicnn.data.loader import Batch
from minicnn.data.procedural import draw_image
from minicnn.errors import ConfigError
from minicnn.evaluate.predict import predict
from minicnn.experiment.trained import load_trained
from minicnn.pretrained.scenes import SCENES
from minicnn.system.files import has_checksums, signed, write_json
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from minicnn.visualize.projection import project
from tests.helpers.small_run import load_example

ROOT = Path(__file__).parents[2]
FILE, PAGE = pretrained.CHECKPOINT, pretrained.CHECKPOINT.with_name("README.md")


@pytest.fixture(scope="module")
def example():
    return load_example("package_pretrained")


def test_the_file():
    saved = load_checkpoint(FILE)
    assert FILE.stat().st_size <= 4e6 and has_checksums(FILE)
    assert not saved.slots and not saved.data and len(saved.state) == 12
    assert sum(array.size for array in saved.params.values()) == 1_971_640
    assert {array.dtype.name for array in saved.params.values() if array.ndim > 1} == {"float16"}
    assert saved.meta["about"]["model"] == "airbench94" and saved.meta["about"]["data"] is None
    assert len(saved.meta["classes"]) == 10 and saved.meta["recipe"]["preprocess"]["std"]
    assert saved.meta["epoch"] == 60 and set(saved.meta["pretrained"]["test_error"]) == {"centre crop", "six views"}


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_what_it_predicts_is_as_committed(device):
    """In float64, when the file was made; the images depend on no library."""
    net, pipeline, meta = load_trained(FILE, device)
    images = np.stack([draw_image(0, 32, number) for number in (0, 3)])
    logits = net.ops.to_host(net(pipeline.evaluation(Batch(images, labels=None, sample_ids=None, indices=None))))
    assert logits.shape == (2, 10) and np.ptp(logits, axis=1).min() > 0.5
    np.testing.assert_allclose(logits, meta["pretrained"]["expected"], atol=1e-4)


def test_the_page_is_of_this_file(example):
    page = PAGE.read_text(encoding="utf-8")
    assert page == example.page(FILE)
    for words in ("JPEG", "Krizhevsky", "60 epochs", "six views", "no photographs"):
        assert words in page


def test_a_run_is_packaged(example, tmp_path, monkeypatch, capsys):
    """From what the packaged file itself holds, given an optimiser's arrays; not before the run has ended."""
    saved = load_checkpoint(FILE)
    slots = {"velocity": saved.params, "average": {}}
    save_checkpoint(tmp_path / "last.safetensors", saved.params, slots, {"mean": np.zeros((32, 32, 3), np.float32)},
                    {name: value for name, value in saved.meta.items() if name != "format"}, state=saved.state)
    assert example.main([str(tmp_path)]) == 2 and "test.json cannot be read" in capsys.readouterr().err
    kept = saved.meta["pretrained"]
    report = {"net": "airbench94", "epochs": 60, "test": kept["test_error"], "training": kept["training_error"], **kept}
    write_json(tmp_path / "test.json", signed({**report, "epochs": 61}, "test"))
    with pytest.raises(ConfigError, match="is of airbench94 after 61 epochs, .* after 60; let the run end"):
        example.package(tmp_path, tmp_path / FILE.name)
    write_json(tmp_path / "test.json", signed(report, "test"))
    example.package(tmp_path, tmp_path / FILE.name)
    assert (tmp_path / FILE.name).read_bytes() == FILE.read_bytes()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_the_accuracy():
    """On the 10,000 test images, as measured when the run ended."""
    assert 1 - load_checkpoint(FILE).meta["pretrained"]["test_error"]["six views"] >= 0.92


def test_what_is_not_python_is_installed():
    """By setup.py, into a wheel: the weights, the page, every sample."""
    found, setup = {}, (ROOT / "setup.py").read_text(encoding="utf-8")
    exec(setup.replace("import find_packages, setup", "import find_packages"), {"setup": found.update})
    files = {str(path.relative_to(FILE.parent)) for path in FILE.parent.rglob("*")
             if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(files) == 2 + len(SCENES)
    assert "minicnn.pretrained" in found["packages"]
    installed = {str(path.relative_to(FILE.parent)) for pattern in found["package_data"]["minicnn.pretrained"]
                 for path in FILE.parent.glob(pattern)}
    assert installed == files


def test_captions_say_that_it_has_no_relu():
    """The rules for ReLU change nothing in a network of GELU, and are not claimed."""
    net, pipeline, _ = load_trained(FILE, "reference")
    x = pipeline.evaluation(Batch(draw_image(0, 32, 0)[None], labels=None, sample_ids=None, indices=None))
    found = {rule: project(net, x, "block3_gelu2", rule=rule) for rule in ("deconvnet", "guided", "backprop")}
    for projection in found.values():
        assert "no ReLU, whose rule this is; GELU by the derivative" in projection.captions[0]
        assert "a ReLU passes" not in projection.captions[0]
        np.testing.assert_array_equal(projection.pixels, found["backprop"].pixels)


# ---- samples
def test_samples_are_what_the_script_draws():
    assert [Path(path).name for path in pretrained.sample_files()] == sorted(f"drawn-{name}.png" for name in SCENES)
    for name, scene in SCENES.items():
        with Image.open(pretrained.SAMPLES / f"drawn-{name}.png") as image:
            assert "not a photograph" in image.info["Source"]
            difference = np.abs(np.asarray(image, int) - scene())
        assert difference.shape == (96, 96, 3) and difference.mean() < 0.5           # Pillow's edges may move


def test_samples_are_recognised():
    net, pipeline, meta = load_trained(FILE, "reference")
    for path, [(name, _)] in predict(net, pipeline, meta["classes"], pretrained.sample_files(), top=1):
        assert Path(path).stem == f"drawn-{name}"
