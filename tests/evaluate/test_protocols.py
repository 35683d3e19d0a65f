"""How the papers evaluated: identities of their crops, dense evaluation against a sum over positions, the command."""

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.cli import main as cli
from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.data.preprocess import Preprocess
from minicnn.data.source import open_data
from minicnn.errors import ConfigError
from minicnn.evaluate.crops import grid_crops, one_crop, square_crops, ten_crops
from minicnn.evaluate.evaluate import averaged, evaluate
from minicnn.evaluate.protocols import PROTOCOLS, softmax
from minicnn.train.loop import Trainer
from tests.helpers.small_run import save_tree, small_net, small_recipe
from tests.helpers.trees import picture

CROP, STRIDE, UNSEEN = 24, 4, 3            # of small_net, which does not see the last pixels of a crop
SHAPES = [(40, 60), (60, 40), (33, 48), (40, 60), (32, 32), (64, 64), (32, 70)]


def album(shapes=SHAPES, symmetric=False):
    """Photographs with a short side of 32 or more, all of them readable."""
    images = [picture(n, *shape) for n, shape in enumerate(shapes)]
    if symmetric:
        images = [np.maximum(image, image[:, ::-1]) for image in images]
    found = Dataset("album", list("abcd"), np.arange(len(images)) % 4, range(len(images)), images.__getitem__,
                    size=(min(map(min, shapes)),) * 2)
    found.decoding = ("aspect", "bicubic")
    found._is_expected = lambda image: True
    return found


def pipeline_of(net, **options):
    return InputPipeline(net, Preprocess(size=32, resize="aspect", crop=CROP, mean=(100.0, 90.0, 80.0), **options))


def batch_of(dataset):
    return next(Loader(dataset, len(dataset), workers=1).epoch(0))


def seen(net, dataset, name, **options):
    return evaluate(net, dataset, pipeline_of(net), protocol=PROTOCOLS[name], progress=False, **options).probabilities


@pytest.mark.parametrize("name", PROTOCOLS)
def test_progress_is_of_views_and_ends_with_all_images(name):
    """A batch of 150 crops each may take minutes."""
    net, squares, done = small_net("cpu"), album([(32, 32)] * 3), []
    PROTOCOLS[name].of(net, pipeline_of(net), 3000, seen=done.append)(batch_of(squares))
    views = {"crop": 1, "dense": 2, "six-view": 6, "ten-crop": 10, "resnet": 10, "googlenet-144": 144, "vgg-150": 150}
    assert len(done) == views[name] and sum(done) == pytest.approx(3)


def test_dense_at_the_size_of_the_crop_is_the_crop():
    """On square images, with their mirror images; the paper's identity at 224."""
    net, squares = small_net("cpu"), album([(32, 32), (40, 40), (24, 24)])
    draws = [draw for flip in (0, 1) for draw in one_crop(3, CROP, batch_of(squares).image_hw, CROP)]
    for draw in draws[1:]:
        draw["flip"] += 1
    both = [softmax(net(x)) for x in pipeline_of(net).views(batch_of(squares), draws)]
    assert np.abs(both[0] - both[1]).max() > 1e-3
    np.testing.assert_allclose(seen(net, squares, "dense", scales=[CROP]), np.mean(both, axis=0), rtol=1e-4)


def test_dense_averages_logits_over_positions_and_softmax_over_mirrors_and_sizes():
    net, photographs = small_net("cpu"), album()
    found = seen(net, photographs, "dense", scales=[32, 40])
    for n, image in enumerate(map(photographs.read, range(len(SHAPES)))):
        outputs = []
        for size in (32, 40):
            rows, columns = (side * size // min(image.shape[:2]) for side in image.shape[:2])
            one, pipeline = album([image.shape[:2]]), pipeline_of(net)
            one.decode = lambda item, image=image: image
            batch = batch_of(one)
            draw = one_crop(1, CROP, batch.image_hw, 32)[0] | {
                name: np.array([value], np.float64) for name, value in
                (("top", 0), ("left", 0), ("height", image.shape[0]), ("width", image.shape[1]))}
            [x] = pipeline.views(batch, [draw], (rows, columns))
            for y in (x, x[:, :, ::-1]):
                y = np.pad(y, [(0, 0), (0, UNSEEN), (0, UNSEEN), (0, 0)])
                places = [np.ascontiguousarray(y[:, p:p + CROP, q:q + CROP])
                          for p in range(0, y.shape[1] - CROP + 1, STRIDE)
                          for q in range(0, y.shape[2] - CROP + 1, STRIDE)]
                outputs.append(softmax(np.mean([net(part) for part in places], axis=0)))
        np.testing.assert_allclose(found[n], np.mean(outputs, axis=0)[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["dense", "crop", "googlenet-144"])
def test_the_batch_does_not_matter(name):
    """Images of many shapes, one by one or together, with the memory of one crop or of many."""
    net, photographs = small_net("cpu"), album()
    for batch in (2, 7):
        np.testing.assert_allclose(seen(net, photographs, name, batch=batch), seen(net, photographs, name, batch=1),
                                   rtol=1e-4)


def test_a_net_that_averages_globally_is_dense_already():
    b = Builder((CROP, CROP, 3))
    b.conv("conv1", 8, 5, stride=2)
    b.relu()
    b.global_avgpool()
    b.linear("fc", 4)
    b.loss()
    net = b.net(device="cpu")
    whole = seen(net, album(), "resnet")
    assert whole.shape == (7, 4) and not np.allclose(whole, seen(net, album(), "crop"), rtol=1e-3)
    np.testing.assert_allclose(whole, seen(net, album(), "dense", scales=[24, 27, 41, 51, 69]), rtol=1e-6)


@pytest.mark.parametrize("hw", [(256, 256), (300, 300), (256, 341), (500, 375), (256, 2560)])
def test_googlenets_144_crops(hw):
    """144 for any aspect; three equal squares when the image is square; all inside, the resized square included."""
    draws = [draw for size in PROTOCOLS["googlenet-144"].scales for draw in square_crops(1, 224, hw, size)]
    boxes = [tuple(float(draw[name][0]) for name in ("top", "left", "height", "width", "flip")) for draw in draws]
    assert len(boxes) == 144
    for top, left, height, width, _ in boxes:
        assert min(top, left) >= 0 and top + height < hw[0] + 1e-9 and left + width < hw[1] + 1e-9
    short = min(hw)
    assert sum(box[2] == pytest.approx(short) for box in boxes) == 24      # three squares, mirrored, at four sizes
    assert len(set(boxes[:36])) == (12 if hw[0] == hw[1] else 36)
    if hw[0] == hw[1]:
        assert boxes[:12] == boxes[12:24] == boxes[24:36]
    firsts, lasts = boxes[0], boxes[28]
    assert firsts[:2] == (0, 0)
    np.testing.assert_allclose(np.add(lasts[:2], lasts[2:4]) * 256 / short,
                               [side * 256 // short for side in hw], rtol=1e-9)


def test_vggs_150_crops():
    hw = (256, 341)
    draws = [draw for size in PROTOCOLS["vgg-150"].scales for draw in grid_crops(1, 224, hw, size)]
    boxes = {tuple(float(draw[name][0]) for name in ("top", "left", "height", "flip")) for draw in draws}
    assert len(draws) == 150 and len(boxes) == 150
    first = [(int(draw["top"][0]), int(draw["left"][0])) for draw in draws[:25]]
    assert first[0] == (0, 0) and first[4] == (0, 117) and first[24] == (32, 117) and first[12] == (16, 58)
    np.testing.assert_allclose(max(box[0] + box[2] for box in boxes), 256)


def test_ten_crops_of_a_symmetric_image_are_five():
    """A mirrored corner is the other corner. And those of a square are what they always were."""
    net, photographs = small_net("cpu"), album([(40, 60), (32, 48), (32, 32)], symmetric=True)
    pipeline, batch = pipeline_of(net, test_size=28), batch_of(photographs)
    found = evaluate(net, photographs, pipeline, ten_crop=True, progress=False).probabilities
    draws = ten_crops(3, CROP, batch.image_hw, 28)
    five = [softmax(net(x)) for x in pipeline.views(batch, draws[:5])]
    assert np.abs(five[0] - five[2]).max() > 1e-3
    np.testing.assert_allclose(found, np.mean(five, axis=0), rtol=1e-4)
    for plain, resized in zip(ten_crops(1, 224, (256, 256)), ten_crops(1, 224, (256, 256), 256), strict=True):
        assert [int(resized[name][0]) for name in ("top", "left", "flip")] == [
            int(plain[name][0]) for name in ("top", "left", "flip")]


def test_sizes_too_small_and_names_unknown(capsys):
    net = small_net("cpu")
    with pytest.raises(ConfigError, match="dense: the net takes crops of 24, and images were to be resized to a short "
                                          "side of 20; choose larger sizes"):
        seen(net, album(), "dense", scales=[20, 32])
    assert cli.main(["evaluate", "somewhere", "--protocol", "dens"]) == 2
    assert "unknown protocol 'dens': did you mean 'dense'?" in capsys.readouterr().err
    assert cli.main(["evaluate", "somewhere", "--scales", "a"]) == 2
    assert "--scales a: expected sizes of the short side" in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    """Several protocols of two runs: a line each, and their average by each."""
    save_tree(tmp_path / "photos", per_class=10, classes=4, size=40)
    splits = open_data(tmp_path / "photos", size=32)
    for seed in (1, 2):
        Trainer(small_net("cpu", seed=seed), small_recipe(), splits.train, splits.val, tmp_path / str(seed),
                progress=False, say=None).fit(1)
    runs = [str(tmp_path / str(seed)) for seed in (1, 2)]
    arguments = ["evaluate", *runs, "--data", str(tmp_path / "photos"), "--device", "cpu", "--batch", "8"]
    assert cli.main([*arguments, "--protocol", "dense", "--protocol", "vgg-150", "--scales", "26,32"]) == 0
    out = capsys.readouterr().out
    assert out.count("images, dense at 26, 32, best") == 2 == out.count("images, 150 crops at 26, 32, best")
    assert "2 networks, dense at 26, 32" in out and "2 networks, 150 crops at 26, 32" in out


def test_an_ensemble_of_dense_evaluations():
    nets = [small_net("cpu", seed=seed) for seed in (1, 2)]
    results = [evaluate(net, album(), pipeline_of(net), protocol=PROTOCOLS["dense"], progress=False) for net in nets]
    mean = (results[0].probabilities + results[1].probabilities) / 2
    np.testing.assert_array_equal(averaged(results).probabilities, mean)
