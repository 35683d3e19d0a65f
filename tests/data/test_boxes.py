"""Boxes of training images: what is drawn, that it depends on nothing else, and what the pipeline cuts."""

import json

import numpy as np
import pytest
from PIL import Image

from minicnn.data.augment import Augment, box, central_box, fixed_box, rescaled
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch, Photographs
from minicnn.data.preprocess import Preprocess
from minicnn.errors import ConfigError
from tests.helpers.small_run import small_net
from tests.helpers.trees import picture

IDS = np.arange(20_000, dtype=np.uint32)
HW = (np.where(IDS % 2, 512, 600), np.where(IDS % 3, 512, 683))
KINDS = [Augment(crop=224), Augment(crop=224, scale=(256, 480)), Augment(crop=224, area=(0.08, 1.0)),
         Augment(crop=32, pad=4), Augment(crop=224, cutout=60), Augment(crop=224, alternate=True)]
# Seed 7, epoch 3.
TURNED, TOPS = [3, 0, 5, 0, 2, 7], [13, 4, 31, 9, 30, 27]
SCALES, AREAS = [406, 401, 258], [[173.0, 413.0, 244.0], [148.0, 405.0, 284.0]]
CUTOUTS = [[3, 223, 83], [151, 138, 94]]


def drawn(augment, epoch=0, ids=IDS, hw=HW, seed=0):
    hw = (32, 32) if augment.pad else tuple(side[ids] for side in hw)
    return augment.draw(seed, epoch, ids, hw, crop=augment.crop) | {
        f"cutout {name}": array for name, array in augment.draw_cutout(seed, epoch, ids, 224).items()}


@pytest.mark.parametrize("augment", KINDS, ids=["crop", "scale", "area", "pad", "cutout", "alternate"])
def test_a_draw_depends_on_seed_epoch_and_id_only(augment):
    whole, one = drawn(augment, epoch=3), drawn(augment, epoch=3, ids=IDS[70:71])
    for name, values in whole.items():
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(values[70:71], one[name])
    for other in (drawn(augment, epoch=4), drawn(augment, epoch=3, seed=1)):
        assert not np.array_equal(other["top"], whole["top"]) and not np.array_equal(other["flip"], whole["flip"])
    assert Augment(**{name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(
        json.dumps(vars(augment))).items()}) == augment


def test_one_knob_does_not_move_another():
    """Every way to draw a crop uses the same numbers for its place; mirrors and cutout do not depend on it."""
    plain = drawn(KINDS[0])
    for augment in KINDS[1:5]:
        np.testing.assert_array_equal(drawn(augment)["flip"], plain["flip"])
        np.testing.assert_array_equal(drawn(augment)["cutout top"] + augment.cutout // 2, plain["cutout top"])
    fixed = drawn(Augment(crop=224, scale=(512, 512)))                     # resized to what it is
    np.testing.assert_array_equal(fixed["top"][1::2], plain["top"][1::2])
    assert set(fixed["height"][1::2]) == {224.0}
    everything = drawn(Augment(crop=224, scale=(256, 480), cutout=9, updown=True, transpose=True))
    for name in ("top", "left", "height"):
        np.testing.assert_array_equal(everything[name], drawn(KINDS[1])[name])


def test_scales_are_uniform_whole_numbers_and_crops_lie_inside():
    draw = drawn(Augment(crop=224, scale=(256, 480)))
    short = np.minimum(*HW)
    sizes = 224 * short / draw["height"]
    np.testing.assert_allclose(sizes, np.rint(sizes))
    counts = np.bincount(np.rint(sizes).astype(int), minlength=481)[256:]
    assert len(counts) == 225 and counts.min() > 0 and abs(np.rint(sizes).mean() - 368) < 2
    np.testing.assert_array_equal(draw["height"], draw["width"])
    assert draw["top"].min() == draw["left"].min() == 0
    assert (draw["top"] + draw["height"] - HW[0]).max() < 1e-9 > (draw["left"] + draw["width"] - HW[1]).max()
    rows = (HW[0] * np.rint(sizes) // short - 224) * short / np.rint(sizes)
    assert np.isclose(draw["top"], rows).any()                             # the last place occurs, too


def test_areas_are_those_of_torchvision():
    """8 to 100 % of the area, even; aspect even on a logarithmic scale; whole pixels inside the image."""
    draw = drawn(Augment(crop=224, area=(0.08, 1.0)), hw=(np.full(len(IDS), 400), np.full(len(IDS), 500)))
    top, left, height, width = (draw[name] for name in ("top", "left", "height", "width"))
    for numbers in (top, left, height, width):
        np.testing.assert_array_equal(numbers, np.rint(numbers))
    assert min(top.min(), left.min()) == 0 and (top + height).max() == 400 and (left + width).max() == 500
    small = height * width < 0.4 * 400 * 500                               # these fit at once, whatever their aspect
    area, aspect = (height * width / 200_000)[small], np.log(width / height)[small]
    assert 0.079 < area.min() < 0.081 and abs(area.mean() - 0.24) < 0.003
    assert abs(aspect.mean()) < 0.005 and np.abs(aspect).max() < np.log(4 / 3) + 0.02
    assert abs(aspect.std() - np.log(4 / 3) / np.sqrt(3)) < 0.005
    wide = Augment(crop=9, area=(0.1, 0.2), aspect=(1.5, 2.0)).draw(0, 0, IDS[:50], (400, 400))
    assert (wide["width"] > 1.4 * wide["height"]).all()                    # width / height


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (2, 2), (3, 1)])
def test_areas_of_tiny_images_have_a_pixel(hw):
    """8 % of one pixel would be none."""
    draw = drawn(Augment(crop=9, area=(0.01, 1.0)), hw=(np.full(len(IDS), hw[0]), np.full(len(IDS), hw[1])))
    assert draw["height"].min() == draw["width"].min() == 1
    assert (draw["top"] + draw["height"]).max() <= hw[0] and (draw["left"] + draw["width"]).max() <= hw[1]


@pytest.mark.parametrize(("hw", "wanted"), [((100, 1000), (0, 433, 100, 133)), ((1000, 100), (433, 0, 133, 100)),
                                            ((100, 120), (0, 0, 100, 120))])
def test_where_no_area_fits_it_is_the_largest_central_box_of_an_allowed_aspect(hw, wanted):
    augment = Augment(crop=9, area=(0.999, 1.0), aspect=(3 / 4, 4 / 3) if hw != (100, 120) else (1.0, 1.3))
    draw = augment.draw(0, 0, IDS[:50], hw)
    boxes = np.stack([draw[name] for name in ("top", "left", "height", "width")], axis=1)
    assert wanted in {tuple(map(int, row)) for row in boxes}
    if hw != (100, 120):
        assert len(np.unique(boxes, axis=0)) == 1


def test_padded_crops_reach_every_place():
    draw = drawn(Augment(crop=32, pad=4, padding="reflect"))
    assert set(draw["top"]) == set(draw["left"]) == set(range(-4, 5)) and draw["border"] == "reflect"
    assert set(draw["height"]) == set(draw["width"]) == {32.0}


def test_mirrors_alternate():
    """Random in the first epoch, then each image is mirrored in every second one."""
    flips = [drawn(Augment(crop=224, alternate=True), epoch=epoch)["flip"] for epoch in range(4)]
    assert abs(flips[0].mean() - 0.5) < 0.02
    np.testing.assert_array_equal(flips[0], 1 - flips[1])
    np.testing.assert_array_equal(flips[0], flips[2])
    np.testing.assert_array_equal(flips[0], drawn(KINDS[0])["flip"])


def test_cutout_squares_have_their_centre_anywhere():
    squares = drawn(Augment(crop=224, cutout=60))
    assert set(squares["cutout top"]) == set(squares["cutout left"]) == set(range(-30, 194))
    assert set(squares["cutout height"]) == {60}


def test_what_makes_no_sense_is_refused():
    for settings, message in [({"scale": (480, 256)}, "scale must be two positive numbers, the smaller one first"),
                              ({"scale": 256}, "scale must be two positive"), ({"area": (0, 1)}, "area must be two"),
                              ({"area": (0.5, 1.5)}, "no more than 1 of its area"), ({"pad": -1}, "must be at least 0"),
                              ({"pad": 1.5}, "must be a whole number"), ({"cutout": float("nan")}, "whole number"),
                              ({"colour_std": float("nan")}, "a finite number"), ({"flip": 2}, "on or off"),
                              ({"flip": "maybe"}, "on or off"),
                              ({"scale": (256, 512), "pad": 4}, "scale and Augment.pad are two ways to draw a crop"),
                              ({"padding": "edge"}, "no padding augmentation 'edge'; expected one of zero, reflect"),
                              ({"alternate": True, "flip": False}, "flip is off")]:
        with pytest.raises(ConfigError, match=message):
            Augment(**settings)
    with pytest.raises(ConfigError, match="a crop of 224 does not fit into images of 200x200"):
        drawn(Augment(crop=224, scale=(200, 480)))
    with pytest.raises(ConfigError, match="images of 4x4 cannot be padded by 4 pixels"):
        Augment(crop=4, pad=4).draw(0, 0, IDS[:2], (4, 4))


# ---- what the network gets
CROP = 24                      # of small_net
SHAPES = [(40, 60), (33, 31), (32, 32), (64, 50), (32, 90)]


def album(shapes=SHAPES):
    images = [picture(n, *shape) for n, shape in enumerate(shapes)]
    return Batch(Photographs.of(images), np.zeros(len(images), np.int32), np.arange(len(images), dtype=np.uint32),
                 np.arange(len(images)))


def by_pillow(image, top, left, height, width, size=(CROP, CROP)):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR,
                                                    box=(left, top, left + width, top + height)), np.float64)


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_images_that_keep_their_aspect(device, order):
    """Training by drawn boxes, evaluation by the central crop at a short side of 27; equal to Pillow's."""
    preprocess = Preprocess(size=32, resize="aspect", crop=CROP, mean=(9.0, 5.0, 1.0), std=(2.0, 4.0, 8.0), order=order)
    batch, turn = album(), slice(None, None, -1 if order == "bgr" else 1)
    for augment in (Augment(scale=(25, 40)), Augment(area=(0.08, 1.0)), Augment()):
        pipeline = InputPipeline(small_net(device), preprocess, augment=augment, seed=3)
        draw = augment.draw(3, 2, batch.sample_ids, batch.image_hw, crop=CROP, short=27)
        assert set(draw["flip"]) == {0, 1}
        for x, draws in ((pipeline.train(batch, 2).copy(), draw), (pipeline.evaluation(batch), None)):
            for n, shape in enumerate(SHAPES):
                place = [draw[name][n] for name in ("top", "left", "height", "width")]
                if draws is None:
                    ratio = min(shape) / 27
                    top, left = ((side * 27 // min(shape) - CROP) // 2 * ratio for side in shape)
                    place = [top, left, CROP * ratio, CROP * ratio]
                wanted = by_pillow(batch.images[n], *place)
                wanted = wanted[:, ::-1] if draws is not None and draw["flip"][n] else wanted
                pixels = x[n] * preprocess.std + preprocess.mean
                np.testing.assert_allclose(pixels, wanted[..., turn], atol=1.001)


def test_squares_resized_to_what_they_are_are_cropped_as_before(rng):
    """The box of whole pixels and the crop give the same bits, mean image included."""
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    batch = Batch(images, np.zeros(4, np.int32), np.arange(4, dtype=np.uint32), np.arange(4))
    mean = rng.uniform(0, 255, (32, 32, 3)).astype(np.float32)
    crops, boxes = (InputPipeline(small_net("cpu"), Preprocess(size=32, crop=CROP, test_size=size), mean, seed=1,
                                  augment=Augment(scale=size and (32, 32))) for size in (None, 32))
    np.testing.assert_array_equal(crops.train(batch, 5), boxes.train(batch, 5))
    np.testing.assert_array_equal(crops.evaluation(batch), boxes.evaluation(batch))


def test_padding_is_by_the_mean_and_cutout_to_it(rng):
    """Zeros beside the image after the mean image is subtracted, and zeros in a square."""
    images = rng.integers(0, 256, (6, CROP, CROP, 3)).astype(np.uint8)
    batch = Batch(images, np.zeros(6, np.int32), np.arange(6, dtype=np.uint32), np.arange(6))
    mean = rng.integers(0, 255, (CROP, CROP, 3)).astype(np.float32)
    augment = Augment(pad=4, flip=False, cutout=5)
    x = InputPipeline(small_net("cpu"), Preprocess(size=CROP, crop=CROP), mean, augment=augment, seed=1).train(batch, 0)
    draw = augment.draw(1, 0, batch.sample_ids, (CROP, CROP), crop=CROP)
    square = augment.draw_cutout(1, 0, batch.sample_ids, CROP)
    for n, image in enumerate(images - mean):
        top, left = int(draw["top"][n]) + 4, int(draw["left"][n]) + 4
        wanted = np.pad(image, [(4, 4), (4, 4), (0, 0)])[top:top + CROP, left:left + CROP]
        row, column = square["top"][n], square["left"][n]
        wanted[max(row, 0):max(row + 5, 0), max(column, 0):max(column + 5, 0)] = 0
        np.testing.assert_array_equal(x[n], wanted)


def test_the_mean_colour_and_the_mean_image_of_other_sizes(rng):
    """"channel" is the mean over the image's pixels; a mean image follows the size of what is cut."""
    batch, mean = album(), np.broadcast_to(np.linspace(0, 200, 32, dtype=np.float32)[:, None, None], (32, 32, 3))
    parts = {"size": 32, "resize": "aspect", "crop": CROP}
    plain, channel, image = (InputPipeline(small_net(), Preprocess(**parts, mean=kind), mean).evaluation(batch)
                             for kind in (None, "channel", "image"))
    np.testing.assert_allclose(plain - channel, 100.0, atol=1e-3)
    np.testing.assert_allclose((plain - image)[0, 1:-1, 0, 0], np.linspace(0, 200, 32)[0] + (
        (np.arange(CROP)[1:-1] + 0.5) * 32 / CROP - 0.5) * 200 / 31, rtol=0.01)


def test_whole_images_at_a_size_of_their_own(rng):
    batch = album([(40, 60)] * 2)
    pipeline = InputPipeline(small_net("cpu"), Preprocess(size=32, resize="aspect", crop=CROP, mean=None))
    (rows, columns), _ = rescaled((40, 60), 30)
    draw = fixed_box(2, 0, 0, (40, 60), 1.0, flip=1)
    [x] = pipeline.views(batch, [draw], (int(rows), int(columns)))
    assert x.shape == (2, 30, 45, 3)
    np.testing.assert_allclose(x[1, :, ::-1], by_pillow(batch.images[1], 0, 0, 40, 60, (30, 45)), atol=1.0)
    assert central_box(1, 24, (40, 60), 30)["top"] == [4.0] and box(1.0, 2.0, 3, 2.0)["left"] == 4.0


def test_draws_are_fixed_across_versions():
    """Each unit has its place: a new kind of draw changes no old one."""
    turned = Augment(crop=224, updown=True, transpose=True).draw(7, 3, IDS[:6], (256, 256))
    assert turned["flip"].tolist() == TURNED and turned["top"].tolist() == TOPS
    scaled = Augment(crop=224, scale=(256, 480)).draw(7, 3, IDS[:3], (512, 512))
    np.testing.assert_allclose(224 * 512 / scaled["height"], SCALES)
    areas = Augment(crop=224, area=(0.08, 1.0)).draw(7, 3, IDS[:3], (512, 512))
    assert [areas["height"].tolist(), areas["width"].tolist()] == AREAS
    squares = Augment(cutout=1).draw_cutout(7, 3, IDS[:3], 224)
    assert [squares["top"].tolist(), squares["left"].tolist()] == CUTOUTS
