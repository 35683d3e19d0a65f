"""minicnn predict: from a checkpoint and a file to the five best guesses."""

import numpy as np
import pytest
from PIL import Image

from minicnn.cli import main as cli
from minicnn.data.augment import Augment
from minicnn.data.images import load
from minicnn.data.input import InputPipeline
from minicnn.data.preprocess import Preprocess
from minicnn.data.procedural import CLASSES, draw_image, procedural_sets
from minicnn.evaluate.predict import predict
from minicnn.train.loop import Trainer
from minicnn.train.recipe import Recipe, SGDRecipe
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.small_run import small_net


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of one epoch of a small net, which no model is called; and photographs of each class."""
    root = tmp_path_factory.mktemp("predict")
    train, val, _ = procedural_sets((64, 16, 4), seed=3, size=32)
    recipe = Recipe(net={"model": "small", "classes": 4}, augment=Augment(crop=24),
                    optimiser=SGDRecipe(lr=0.002, batch=8))
    Trainer(small_net(), recipe, train, val, root / "run", progress=False, say=None).fit(1)
    for number in range(4):
        Image.fromarray(draw_image(3, 90, 900 + number)).save(root / f"{number}.png")
    (root / "page.jpg").write_text("404")
    return root


def guesses(text):
    return [(line.split("%")[1].strip(), float(line.split("%")[0])) for line in text.splitlines() if " % " in line]


@pytest.mark.parametrize("ten_crop", [False, True])
def test_the_most_probable_first(run_dir, capsys, ten_crop):
    files = [str(run_dir / f"{number}.png") for number in (0, 1)]
    extra = ["--ten-crop"] if ten_crop else []
    assert cli.main(["predict", str(run_dir / "run"), *files, "--device", "reference", *extra]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if " % " not in line] == files
    for found in (guesses(out)[:4], guesses(out)[4:]):
        assert {name for name, _ in found} == set(CLASSES)                    # four classes: no fifth guess
        assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
        assert abs(sum(share for _, share in found) - 100) < 0.5


def test_as_the_net_computes_it(run_dir, capsys):
    """Centre crop of the photograph at the size of the mean image, minus that mean."""
    saved = load_checkpoint(run_dir / "run" / "best.safetensors")
    net = small_net()
    net.load_arrays(saved.params, "test")
    x = load(str(run_dir / "2.png"), 32).astype(np.float32) - saved.data["mean"]
    logits = np.asarray(net.forward(x[None, 4:28, 4:28]), np.float64)[0]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    cli.main(["predict", str(run_dir / "run"), str(run_dir / "2.png"), "--device", "reference"])
    for name, share in guesses(capsys.readouterr().out):
        assert abs(share - 100 * expected[CLASSES.index(name)]) < 0.06


def test_five_guesses_of_many_classes(tmp_path):
    net = small_net("reference", classes=8)
    Image.fromarray(draw_image(0, 40, 1)).save(tmp_path / "a.png")
    pipeline = InputPipeline(net, Preprocess(size=40, crop=net.input_shape[0], mean=(120.0,) * 3))
    [(_, found)] = predict(net, pipeline, list("abcdefgh"), [str(tmp_path / "a.png")])
    assert len(found) == 5 and found == sorted(found, key=lambda guess: -guess[1])


def test_words(run_dir, capsys):
    (run_dir / "words.json").write_text('{"rings": "circles, one in the other"}')
    arguments = ["predict", str(run_dir / "run"), str(run_dir / "2.png"), "--device", "reference", "--words"]
    assert cli.main([*arguments, str(run_dir / "words.json")]) == 0
    assert "%  rings circles, one in the other\n" in capsys.readouterr().out
    assert cli.main([*arguments, str(run_dir / "2.png")]) == 2
    assert "2.png cannot be read as words" in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite(run_dir, tmp_path, capsys, value):
    saved = load_checkpoint(run_dir / "run" / "best.safetensors")
    params = {name: np.full_like(array, value) for name, array in saved.params.items()}
    save_checkpoint(tmp_path / "broken.safetensors", params, {}, saved.data, saved.meta)
    assert cli.main(["predict", str(tmp_path / "broken.safetensors"), str(run_dir / "0.png"), "--device",
                     "reference"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: the network's outputs are not finite (NaN or infinity) for this "
                                      f"photograph, {run_dir / '0.png'}; ") and err.count("\n") == 1


def test_errors(run_dir, capsys):
    assert cli.main(["predict", str(run_dir / "run"), str(run_dir / "page.jpg"), str(run_dir / "0.png"),
                     "--device", "reference"]) == 2
    out, err = capsys.readouterr()
    assert "0.png" in out and "page.jpg: not an image in a known format" in err    # the others are still told
    assert cli.main(["predict", str(run_dir / "nowhere"), "x.jpg"]) == 2
    assert "no such run; expected a checkpoint" in capsys.readouterr().err
