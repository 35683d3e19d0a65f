"""Occlusion, and the strongest images of a set, against loops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.preprocess import Preprocess
from minicnn.errors import ConfigError
from minicnn.visualize.occlusion import occlusion
from minicnn.visualize.panels import COLOURS, class_colours, mosaic, on_grey
from minicnn.visualize.projection import project
from minicnn.visualize.top import top_images, top_patches
from minicnn.visualize.views import grey_input, in_pixels, photographs, views
from tests.helpers.graphs import small


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("batch", [1, 4])
def test_occlusion_is_a_forward_pass_for_each_position(batch):
    net, x = small("reference"), np.random.default_rng(3).standard_normal((9, 9, 3))
    fill = np.full((9, 9, 3), 0.25)
    found = occlusion(net, x, 2, layer="relu2", unit=4, square=4, step=2, fill=fill, fill_words="a quarter",
                      batch=batch, progress=False)
    assert found.tops.tolist() == found.lefts.tolist() == [0, 2, 4] and found.place == (1, 1, 7, 7)
    for i, j in np.ndindex(3, 3):
        covered = x.copy()
        covered[2 * i:2 * i + 4, 2 * j:2 * j + 4] = 0.25
        chances = softmax(net(covered[None])[0])
        assert found.probability[i, j] == pytest.approx(chances[2], rel=1e-12)
        assert found.best[i, j] == chances.argmax()
        expected = net.trace(covered[None], "relu2")["relu2"][0, ..., 4].sum()
        assert found.activation[i, j] == pytest.approx(expected, rel=1e-12)
    assert found.clean[1] == pytest.approx(softmax(net(x[None])[0])[2])
    assert np.ptp(found.probability) > 0 and "4 x 4 pixels, moved by 2, filled with a quarter: 9" in found.caption


def test_occlusion_of_the_strongest_map_and_class_by_default():
    net, x = small("reference"), np.random.default_rng(3).standard_normal((9, 9, 3))
    found = occlusion(net, x, square=9, progress=False)
    assert found.layer == "relu2" and found.label == net(x[None]).argmax()
    assert found.unit == net.trace(x[None], "relu2")["relu2"].max(axis=(0, 1, 2)).argmax()
    one = occlusion(net, x, 1, square=1, step=1, progress=False).probability
    pixel = x.copy()
    pixel[3, 5] = 0                                                     # what covers unless asked otherwise
    assert one.shape == (9, 9) and one[3, 5] == pytest.approx(softmax(net(pixel[None])[0])[1])
    for wrong, message in [({"square": 10}, "a square of 1 to 9"), ({"step": 0}, "a step of at least 1"),
                           ({"layer": "fc3"}, "the nearest one with rows and columns is 'relu2'"),
                           ({"label": 7, "square": 9}, "no unit 7"), ({"unit": 6}, "no unit 6")]:
        with pytest.raises(ConfigError, match=message):
            occlusion(net, x, **{"progress": False, **wrong})


def a_set(net, count: int = 11):
    """A set of random images, two of them equal, and its pipeline."""
    images = np.random.default_rng(0).integers(0, 256, (count, 11, 11, 3), np.uint8)
    images[7] = images[2]
    dataset = Dataset("noise", ["one"], np.zeros(count, int), range(count), images.__getitem__, size=(11, 11))
    return InputPipeline(net, Preprocess(size=11, crop=9, range=1, mean=(0.5, 0.4, 0.3))), dataset, images


@pytest.mark.parametrize("layer", ["relu2", "fc4"])
def test_the_strongest_images_of_a_stream(layer):
    """Whatever the batch: equal to all activations at once; of equal images the earlier one is first."""
    net = small("reference")
    pipeline, dataset, images = a_set(net)
    x = images[:, 1:10, 1:10] / 255 - (0.5, 0.4, 0.3)
    outputs = net.trace(x, layer)[layer]
    best = outputs.reshape(len(x), -1, outputs.shape[-1]).max(axis=1)                            # (images, units)
    for batch in (2, 5, 64):
        found = top_images(net, pipeline, dataset, layer, [3, 0], count=4, batch=batch, progress=False)
        for row, unit in enumerate((3, 0)):
            order = np.argsort(-best[:, unit], kind="stable")[:4]
            assert found.images[row].tolist() == order.tolist()
            np.testing.assert_allclose(found.values[row], best[order, unit], rtol=1e-12)
            if layer == "relu2":
                at = [np.unravel_index(outputs[n, ..., unit].argmax(), outputs.shape[1:3]) for n in order]
                assert found.positions[row].tolist() == [list(map(int, place)) for place in at]
    assert top_images(net, pipeline, dataset, layer, count=99, progress=False).values.shape == (outputs.shape[-1], 11)
    with pytest.raises(ConfigError, match="has no unit 77"):
        top_images(net, pipeline, dataset, layer, [77], progress=False)


def test_patches_are_what_the_receptive_field_cuts():
    net = small("reference")
    pipeline, dataset, images = a_set(net)
    top = top_images(net, pipeline, dataset, "conv1", [2], count=3, progress=False)
    found = top_patches(net, pipeline, dataset, top, 2)
    for n, index in enumerate(top.images[0]):
        crop = images[index, 1:10, 1:10]
        got = project(net, (crop / 255 - (0.5, 0.4, 0.3))[None], "conv1", 2)
        box_top, left, bottom, right = got.boxes[0]
        assert (bottom - box_top, right - left) == (3, 3) and got.positions[0].tolist() == top.positions[0, n].tolist()
        np.testing.assert_array_equal(found.patches[n], crop[box_top:bottom, left:right])
        np.testing.assert_allclose(found.projections[n], got.pixels[0, box_top:bottom, left:right], rtol=1e-9)
    assert "The 3 of 11 images with the largest activations" in found.caption and "Deconvnet: a ReLU" in found.caption
    top = top_images(net, pipeline, dataset, "fc4", [1], count=2, progress=False)
    np.testing.assert_array_equal(top_patches(net, pipeline, dataset, top, 1).patches[0],
                                  images[top.images[0, 0], 1:10, 1:10])


def test_parts_of_the_pictures():
    sheet = mosaic([np.full((2, 2, 3), value, np.uint8) for value in (0, 255, 51)] + [np.full((2, 1, 3), 0.4)])
    assert sheet.shape == (5, 5, 3) and sheet[0, 0, 0] == 0 and sheet[3, 0, 0] == 0.2 and sheet[2].min() == 1
    assert sheet[3, 3, 0] == 0.4 and sheet[3, 4, 0] == 1
    assert mosaic([np.zeros((2, 2, 3))] * 6).shape == (5, 8, 3)     # no empty row
    grey = on_grey(np.array([[[-2.0, 0.0, 1.0]]]))
    np.testing.assert_allclose(grey.ravel(), [0, 0.5, 0.75], atol=2e-3)
    assert (on_grey(np.zeros((2, 2, 3))) == 0.5).all()
    colours, legend = class_colours(np.array([[3, 1], [1, 1]]), ["a", "b", "c", "d"])
    assert legend == [(COLOURS[0], "b"), (COLOURS[1], "d")] and (colours[0, 1] == colours[1, 0]).all()
    many, legend = class_colours(np.arange(20)[None], list(map(str, range(20))))
    assert len(legend) == 7 and legend[-1][1] == "others" and (many[0, 19] == many[0, 18]).all()


@pytest.mark.parametrize("resize", ["short", "aspect"])
def test_a_picture_shows_what_the_network_takes(tmp_path, resize):
    """The same crop, also of images that keep their aspect, and in RGB whatever order the network takes."""
    files = []
    for name, size in (("wide", (40, 24)), ("high", (20, 33))):
        files.append(str(tmp_path / f"{name}.png"))
        Image.fromarray(np.random.default_rng(size).integers(0, 256, (*size[::-1], 3), np.uint8)).save(files[-1])
    mean = (0.5, 0.4, 0.3)
    pipeline = InputPipeline(small("reference"), Preprocess(size=12, resize=resize, crop=9, order="bgr", range=1,
                                                            mean=mean))
    crops, x = views(pipeline, photographs(pipeline, files))
    assert crops.shape == x.shape == (2, 9, 9, 3) and crops.std() > 20
    np.testing.assert_allclose(x + mean, crops[..., ::-1] / 255, atol=0.51 / 255)
    np.testing.assert_allclose(grey_input(pipeline, 51), np.broadcast_to(0.2 - np.array(mean), (9, 9, 3)), atol=1e-6)
    np.testing.assert_array_equal(in_pixels(pipeline, x[0])[..., 0], x[0, ..., 2])
