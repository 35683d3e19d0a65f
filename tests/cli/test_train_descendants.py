"""minicnn train with the networks that came after AlexNet, by their own recipes: small ones, on a handful of images."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.cli import main as cli
from minicnn.experiment.trained import load_trained
from minicnn.models.registry import MODELS
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.models import change_model
from tests.helpers.small_run import save_tree
from tests.models.families import CASES


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "photos"
    save_tree(folder, per_class=16, size=32)
    return folder


@pytest.mark.parametrize(("case", "name"), [
    ("zfnet", "zfnet"), ("googlenet", "googlenet"), ("resnet18", "resnet18"),
    *(pytest.param(*both, marks=pytest.mark.slow) for both in (
        ("vgg-a-bn", "vgg:a-bn"), ("resnet20", "resnet20"), ("squeezenet", "squeezenet1_1"),
        ("mobilenet", "mobilenet_v2")))])
def test_a_run_and_a_prediction(case, name, photos, tmp_path, monkeypatch, capsys):
    model, _, variant = name.partition(":")
    knobs = CASES[case].knobs
    change_model(monkeypatch, model, **knobs)
    assert cli.main(["train", name, "--data", str(photos), "--size", str(knobs["input_size"] + 4), "--epochs", "1",
                     "--batch", "8", "--threads", "1", "--device", "cpu", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "long, fitted to 2" in printed and MODELS[model].title in printed and "columns" not in printed
    [run] = tmp_path.iterdir()
    assert run.name == f"photos-{name.replace(':', '-') if variant else _whole(model)}-1"
    meta = load_checkpoint(run / "best.safetensors", parts=()).meta
    assert meta["recipe"]["net"]["model"] == model and meta["recipe"]["preprocess"]["crop"] == knobs["input_size"]
    net, _, _ = load_trained(run / "best.safetensors", "cpu")
    assert np.isfinite(net(np.zeros((1, *net.input_shape), np.float32))).all()


def _whole(model: str) -> str:
    """The name of the folder of a model whose variant was not named."""
    return f"{model}-{MODELS[model].default}" if MODELS[model].default else model


@pytest.mark.parametrize(("arguments", "message"), [
    (["resnet18", "--recipe", "caffe"], "unknown recipe 'caffe': expected one of short, long, paper, torchvision"),
    (["vgg17"], "unknown model 'vgg17': did you mean vgg1"),
    (["resnet18:v1.5"], "unknown variant 'v1.5' of resnet18"),
    (["googlenet", "--size", "100"], "a crop of 224 does not fit into images of 100x100; choose a larger size"),
    (["resnet18", "--variant", "a", "--parallel", "columns", "--ranks", "2"], "no rule for splitting Subsample")])
def test_what_goes_wrong_is_one_line(arguments, message, photos, tmp_path, monkeypatch, capsys):
    change_model(monkeypatch, "resnet18", widths=(4, 6, 8, 10))
    assert cli.main(["train", *arguments, "--data", str(photos), "--device", "cpu", "--batch", "8", "--out",
                     str(tmp_path)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
