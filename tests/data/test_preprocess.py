"""Preprocessing as data, and what reaches the network, against NumPy written out here."""

import json

import numpy as np
import pytest
from PIL import Image

from minicnn.data.augment import Augment
from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch
from minicnn.data.preprocess import CAFFE, TORCHVISION, Preprocess
from minicnn.data.source import open_data
from minicnn.errors import ConfigError, DataError
from minicnn.evaluate.predict import predict
from tests.helpers.small_run import save_tree, small_net

SIZE, CROP, MARGIN = 32, 24, 4
MEANS = (0.4, 0.5, 0.6)                                    # of 0..1, in the net's channel order
STDS = (0.2, 0.25, 0.5)


@pytest.fixture
def batch(rng):
    return Batch(rng.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8), np.zeros(5, np.int32),
                 np.arange(5, dtype=np.uint32), np.arange(5))


@pytest.fixture
def mean_image(rng):
    """RGB, 0..255."""
    return rng.uniform(50, 200, (SIZE, SIZE, 3)).astype(np.float32)


def expected(images, preprocess, mean_image):
    """In float64, step after step as the documentation says: channel order, range, mean, standard deviation, crop."""
    x, mean = images.astype(np.float64), preprocess.mean
    x = x[..., [2, 1, 0]] if preprocess.order == "bgr" else x
    x = x * (preprocess.range / 255)
    if mean == "image":
        image = mean_image[..., [2, 1, 0]] if preprocess.order == "bgr" else mean_image
        x = x - image.astype(np.float64) * (preprocess.range / 255)
    elif mean is not None:
        x = x - np.array(mean)
    if preprocess.std is not None:
        x = x / np.array(preprocess.std)
    return x[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("range_, mean, std", [
    (255, "image", None), (1, "image", None), (255, "image", STDS), (1, MEANS, STDS), (1, MEANS, None),
    (255, tuple(255 * m for m in MEANS), None), (255, None, None), (1, None, STDS)])
def test_pixels(batch, mean_image, order, range_, mean, std):
    preprocess = Preprocess(size=SIZE, crop=CROP, order=order, range=range_, mean=mean, std=std)
    x = InputPipeline(small_net(), preprocess, mean_image).evaluation(batch)
    wanted = expected(batch.images, preprocess, mean_image)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_the_default_is_exact(batch, mean_image):
    """The paper's preprocessing is one subtraction in float32, as it always was."""
    x = InputPipeline(small_net(), Preprocess(size=SIZE, crop=CROP), mean_image).evaluation(batch)
    cut = slice(MARGIN, -MARGIN)
    np.testing.assert_array_equal(x, batch.images[:, cut, cut].astype(np.float32) - mean_image[cut, cut])


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_training_sees_the_same_values(batch, mean_image, device):
    """Crop, flip and colour shift of the drawn numbers; the shift is of RGB in 0..255, before the scale."""
    pca = (np.array([0.2, 0.02, 0.005]), np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    preprocess = Preprocess(size=SIZE, crop=CROP, order="bgr", range=1, mean=MEANS, std=STDS)
    augment = Augment(colour="paper")
    x = InputPipeline(small_net(device), preprocess, augment=augment, pca=pca, seed=7).train(batch, epoch=3)
    draw = augment.draw(7, 3, batch.sample_ids, (SIZE, SIZE), pca, crop=CROP)
    assert set(draw["flip"]) == {0, 1} and np.abs(draw["shift"]).max() > 1
    for n, image in enumerate(batch.images):
        top, left = draw["top"][n], draw["left"][n]
        pixels = image[top:top + CROP, left:left + CROP].astype(np.float64)
        pixels = (pixels[:, ::-1] if draw["flip"][n] else pixels) + draw["shift"][n]
        np.testing.assert_allclose(x[n], (pixels[..., ::-1] / 255 - MEANS) / STDS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_the_authors_factor_reaches_training_and_nothing_else(batch, mean_image, device):
    """Their training images are divided by 1.1; their test images, and all images of other recipes, are not."""
    pca = (np.zeros(3), np.eye(3))                             # no colour shift
    authors, other = (InputPipeline(small_net(device), Preprocess(size=SIZE, crop=CROP), mean_image, pca=pca, seed=7,
                                    augment=Augment(colour=colour)) for colour in ("authors", None))
    np.testing.assert_allclose(authors.train(batch, 3), other.train(batch, 3) / np.float32(1.1), rtol=1e-6)
    np.testing.assert_array_equal(authors.evaluation(batch), other.evaluation(batch))
    cut = slice(MARGIN, -MARGIN)
    np.testing.assert_array_equal(authors.evaluation(batch), batch.images[:, cut, cut] - mean_image[cut, cut])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("mean", ["image", "channel", (1.0, 2.0, 3.0)])
def test_the_whole_preprocessing_is_enough(batch, mean_image, order, mean):
    """What another program is given makes the same pixels, without the training set."""
    ours = InputPipeline(small_net(), Preprocess(size=SIZE, crop=CROP, order=order, range=1, mean=mean, std=STDS),
                         mean_image)
    preprocess, image = ours.whole_preprocess()
    theirs = InputPipeline(small_net(), preprocess, image)
    np.testing.assert_allclose(theirs.evaluation(batch), ours.evaluation(batch), rtol=1e-6, atol=1e-6)
    assert preprocess.mean != "channel" and (image is not None) == (mean == "image")


def test_it_survives_json():
    for preprocess in (Preprocess(), TORCHVISION, CAFFE, Preprocess(size=None, mean=None, std=(1, 2, 3))):
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_published_ones():
    assert (TORCHVISION.size, TORCHVISION.crop, TORCHVISION.range) == (256, 224, 1)
    assert CAFFE.order == "bgr" and CAFFE.resize == "squash" and CAFFE.range == 255
    assert Preprocess() == Preprocess(256, "short", "bicubic", 224, "rgb", 255, "image", None)


@pytest.mark.parametrize("settings, message", [
    ({"resize": "squish"}, "resize cannot be 'squish': did you mean 'squash'?"),
    ({"interpolation": "cubic"}, "interpolation cannot be 'cubic': did you mean 'bicubic'?"),
    ({"order": "bgra"}, "order cannot be 'bgra': did you mean 'bgr'?"),
    ({"range": 256}, "range must be 255, for pixels in 0..255, or 1"),
    ({"crop": 300}, "a crop of 300 does not fit into images of 256x256"),
    ({"mean": "images"}, "mean must be 'image', 'channel', None or three numbers, one a channel, not 'images'"),
    ({"mean": (1.0, 2.0)}, "mean must be 'image', 'channel', None or three numbers"),
    ({"std": 0.5}, "std must be None or three numbers"),
    ({"std": (1.0, 0.0, 1.0)}, "std must be positive for every channel")])
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("?", r"\?")):
        Preprocess(**settings)


def test_an_unknown_setting_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no setting 'interpolate': did you mean 'interpolation'\?"):
        Preprocess.from_dict({"interpolate": "bilinear"})


def test_a_mean_image_that_is_not_there_or_does_not_fit():
    with pytest.raises(ConfigError, match="subtracts the mean image of the training set, and none was given"):
        InputPipeline(small_net(), Preprocess(size=SIZE, crop=CROP))
    with pytest.raises(ConfigError, match="mean image is 40 x 40 x 3, expected .*: 24 x 24 x 3 or 32 x 32 x 3"):
        InputPipeline(small_net(), Preprocess(size=SIZE, crop=CROP), np.zeros((40, 40, 3)))


# ---- files
@pytest.fixture
def photo(tmp_path):
    """A smooth picture of 60 x 90 pixels, so that different filters agree to a few grey levels."""
    y, x = np.mgrid[:60, :90]
    pixels = np.stack([2.5 * x, 4 * y, 255 - 2 * x], axis=-1).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png"), pixels


def test_squashed_or_short_side(photo):
    path, pixels = photo
    squashed = Preprocess(size=30, crop=30, resize="squash").load(path)
    blocks = pixels.reshape(30, 2, 30, 3, 3).mean(axis=(1, 3))               # (60, 90, 3) -> (30, 30, 3)
    assert squashed.shape == (30, 30, 3)
    np.testing.assert_allclose(squashed, blocks, atol=3)
    short = Preprocess(size=30, crop=30).load(path)
    np.testing.assert_allclose(short, pixels[:, 15:75].reshape(30, 2, 30, 2, 3).mean(axis=(1, 3)), atol=3)
    assert np.abs(squashed.astype(int) - short).max() > 20


def test_interpolation(photo):
    path, pixels = photo
    for name in ("bicubic", "bilinear", "lanczos", "box", "nearest"):
        theirs = Image.fromarray(pixels).resize((20, 20), Image.Resampling[name.upper()])
        found = Preprocess(size=20, crop=20, resize="squash", interpolation=name).load(path)
        np.testing.assert_array_equal(found, np.asarray(theirs))
    assert (found != Preprocess(size=20, crop=20, resize="squash").load(path)).any()


def test_sets_are_opened_by_it(tmp_path):
    """The images are resized so, the fingerprint says so, and a recipe that says otherwise is refused."""
    save_tree(tmp_path / "photos", per_class=6, size=48)
    squash = Preprocess(size=SIZE, crop=CROP, resize="squash", interpolation="bilinear")
    usual = open_data(tmp_path / "photos", size=SIZE)
    squashed = open_data(tmp_path / "photos", size=SIZE, resize="squash", interpolation="bilinear")
    first = tmp_path / "photos" / squashed.train.path(0)
    np.testing.assert_array_equal(squashed.train.read(0), squash.load(str(first)))
    assert (usual.train.read(0) != squashed.train.read(0)).any()
    assert usual.train.fingerprint != squashed.train.fingerprint
    assert squash.of(squashed.train) == squash and Preprocess(size=None, crop=CROP).of(usual.train).size == SIZE
    with pytest.raises(ConfigError, match="by .squash. and .bilinear., those of .* were by .short. and .bicubic.;"):
        squash.of(usual.train)
    with pytest.raises(ConfigError, match="resizes images to 256 x 256, those of .* are 32 x 32; open the data with"):
        Preprocess().of(usual.train)


def test_a_prepared_set_is_as_it_was_prepared(tmp_path):
    from minicnn.data.prepare.run import prepare

    save_tree(tmp_path / "photos", per_class=6, size=48)
    prepare(tmp_path / "photos", tmp_path / "prepared", size=SIZE, progress=False)
    assert Preprocess(size=SIZE, crop=CROP).of(open_data(tmp_path / "prepared").train).size == SIZE
    with pytest.raises(DataError, match="was prepared with short and bicubic, squash and bicubic was asked for"):
        open_data(tmp_path / "prepared", resize="squash")


def test_sets_that_were_not_decoded_have_only_a_size():
    drawn = Dataset("drawn", "ab", [0, 1], [0, 1], np.zeros, size=(SIZE, SIZE))
    assert Preprocess(size=None, crop=CROP, resize="squash").of(drawn).resize == "squash"


def test_predict_uses_it(photo):
    path, _ = photo
    preprocess, net = Preprocess(size=SIZE, crop=CROP, resize="squash", order="bgr", range=1, mean=MEANS, std=STDS), \
        small_net()
    [(_, guesses)] = predict(net, InputPipeline(net, preprocess), "abcd", [path])
    logits = net.forward(expected(preprocess.load(path)[None], preprocess, None).astype(np.float32)).astype(np.float64)
    found = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert [name for name, _ in guesses] == ["abcd"[k] for k in np.argsort(-found)]
    np.testing.assert_allclose([share for _, share in guesses], np.sort(found)[::-1], rtol=1e-3)
    unsized = InputPipeline(net, Preprocess(size=None, crop=CROP, mean=None))
    with pytest.raises(ConfigError, match="size to which photographs are resized is not known"):
        next(predict(net, unsized, "abcd", [path]))
