"""Weights that are not finite: one line that says so, instead of an accuracy or a page."""

import numpy as np
import pytest
from PIL import Image

from minicnn.cli import main as cli
from minicnn.pretrained import CHECKPOINT
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """--data and the checkpoint, as arguments."""
    folder = tmp_path_factory.mktemp("broken")
    saved = load_checkpoint(CHECKPOINT)
    for part in ("train", "test"):
        for name in saved.meta["classes"]:
            (folder / part / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / part / name / "0.png")
            Image.new("RGB", (32, 32), "red").save(folder / part / name / "1.png")
    params = {name: np.full_like(array, np.nan) for name, array in saved.params.items()}
    save_checkpoint(folder / "broken.safetensors", params, {}, saved.data, saved.meta, state=saved.state)
    return [str(folder / "broken.safetensors"), "--data", str(folder), "--device", "cpu"]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("command", "images"), [("evaluate", "test images"), ("report", "held-out images")])
def test_outputs_that_are_not_finite(broken, tmp_path, capsys, command, images):
    if command == "report":
        pytest.importorskip("plotly")
        broken = [*broken, "--out", str(tmp_path / "page.html")]
    assert cli.main([command, *broken]) == 2
    assert capsys.readouterr().err.startswith(f"error: the network's outputs are not finite (NaN or infinity) for "
                                              f"{images}; its training has diverged")
    assert not list(tmp_path.iterdir())
