"""The pictures of a run: they are drawn, hold what they should, and leave nothing half-written."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from minicnn.builder import Builder
from minicnn.data.procedural import procedural_sets
from minicnn.evaluate.evaluate import Evaluation
from minicnn.train.loop import METRICS
from minicnn.visualize import curves, report
from minicnn.visualize.curves import draw_curves
from minicnn.visualize.filters import draw_filters
from minicnn.visualize.predictions import draw_predictions
from minicnn.visualize.report import draw_run
from minicnn.visualize.style import DPI, WIDTH


def pixels(path):
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert image.shape[1] == round(WIDTH * DPI)
    return image


def records(epochs, steps=10):
    for epoch in range(1, epochs + 1):
        for step in range(1, steps + 1):
            yield {"kind": "step", "epoch": epoch, "step": step, "steps": steps, "loss": 1 / (epoch + step / steps),
                   "lr": 0.01, "time": {}}
        yield {"kind": "epoch", "epoch": epoch, "lr": 0.01, "train": {"loss": 1 / epoch, "top1": 0.5, "top5": 0.9},
               "val": {"loss": 1, "top1": 0.6, "top5": 0.9}, "time": {"seconds": 1.0}}


def has_colour(image, hexadecimal, tolerance=3):
    wanted = [int(hexadecimal[i:i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(image - wanted).max(axis=2) <= tolerance).any())


@pytest.mark.parametrize("epochs", [0, 1, 3, 90])
def test_curves(tmp_path, epochs):
    image = pixels(draw_curves(list(records(epochs)), tmp_path / "curves.png", "a title", majority=0.55))
    assert epochs == 0 or (has_colour(image, "#0072b2") and has_colour(image, "#d55e00"))
    assert os.listdir(tmp_path) == ["curves.png"]


def test_the_legend_says_which_curve_is_what(tmp_path, monkeypatch):
    """Means or single batches, and with which weights was validated."""
    monkeypatch.setattr(curves, "save_png", lambda figure, path: figure)
    run = {"kind": "run", "recipe": {"average": {"factor": 0.999}}, "majority": {"val": 0.55}}
    monkeypatch.setattr(report, "read_metrics", lambda path: [run, *records(3)])
    labels = {text.get_text() for text in report.draw_progress(tmp_path, "a title").legends[0].get_texts()}
    assert labels == {"training: mean of each epoch", "training loss of single batches", "validation, averaged weights",
                      "always the largest class, 55.0 %"}
    run["recipe"] = {"average": None}
    assert "validation" in {text.get_text() for text in report.draw_progress(tmp_path, "").legends[0].get_texts()}


def test_filters_are_laid_out_as_in_figure_3(tmp_path):
    """Kernel k has one colour that says k: rows of 16, the first 48 above the others."""
    rows, columns = np.linspace(-0.9, 0.9, 6), np.linspace(-0.9, 0.9, 16)
    weights = np.zeros((11, 11, 3, 96), np.float32)
    weights[:, :, 0] = np.repeat(rows, 16)
    weights[:, :, 1] = np.tile(columns, 6)
    weights[0, 0, 2] = 1.0                              # the largest weight of each kernel sets its scale
    image = pixels(draw_filters(weights, tmp_path / "conv1.png", "title", "a caption", groups=2))
    red, green = (127.5 + 127.5 * scale for scale in (rows, columns))
    i, j = (np.abs(image[..., channel, None] - scale).argmin(axis=2) for channel, scale in enumerate((red, green)))
    own = (np.abs(image - np.stack([red[i], green[j], np.full(i.shape, 127.5)], axis=2)) <= 1).all(axis=2)
    kernels, places = np.where(own, 16 * i + j, -1), np.empty((6, 16, 2))
    for k in range(96):
        y, x = np.nonzero(kernels == k)
        assert len(y) > 4000, f"kernel {k} is missing"
        places[k // 16, k % 16] = np.median(y), np.median(x)
    assert np.ptp(places[:, :, 0], axis=1).max() < 3 and np.ptp(places[:, :, 1], axis=0).max() < 3
    down, right = np.diff(places[:, 0, 0]), np.diff(places[0, :, 1])
    assert right.min() > 60 and down.min() > 60 and down[2] > 1.4 * down[0]         # the gap between the two groups


def test_rows_of_a_kernel_are_drawn_as_rows(tmp_path):
    """A kernel whose first row is red and last column blue: red runs along the top, blue down the right."""
    weights = np.full((5, 5, 3, 1), -1.0)
    weights[0, :, 0], weights[1:, 4, 2] = 1, 1
    image = pixels(draw_filters(weights, tmp_path / "conv1.png"))
    red, blue = ((np.abs(image - colour).max(axis=2) <= 1).nonzero() for colour in ([255, 0, 0], [0, 0, 255]))
    assert np.ptp(red[1]) > 4 * np.ptp(red[0]) > 0 and np.ptp(blue[0]) > 3 * np.ptp(blue[1]) > 0
    assert red[0].max() < blue[0].min() and abs(red[1].max() - blue[1].max()) <= 1


def test_filters_of_other_nets(tmp_path):
    plain = pixels(draw_filters(np.ones((3, 3, 1, 20)), tmp_path / "grey.png"))
    both = pixels(draw_filters(np.ones((3, 3, 1, 20)), tmp_path / "both.png", start=np.zeros((3, 3, 1, 20))))
    assert both.shape[0] > 1.5 * plain.shape[0]
    draw_filters(np.zeros((5, 5, 3, 64)), tmp_path / "zero.png", groups=1)
    with pytest.raises(ValueError, match="48 channels"):
        draw_filters(np.ones((5, 5, 48, 256)), tmp_path / "conv2.png")


@pytest.mark.parametrize("count, classes", [(8, 2), (3, 1000), (1, 3)])
def test_predictions(tmp_path, rng, count, classes):
    images = np.full((count, 64, 64, 3), 90, np.uint8)
    probabilities = rng.dirichlet(np.full(classes, 0.3), size=count)
    labels = np.zeros(count, int)
    names = [f"a class with quite a long name, number {k}" for k in range(classes)]
    for right, mark in ((True, "#00875a"), (False, "#c0392b")):
        order = np.sort(probabilities, axis=1)[:, ::-1] if right else np.sort(probabilities, axis=1)
        image = pixels(draw_predictions(images, labels, order, names, tmp_path / "p.png", "title", "caption"))
        assert has_colour(image, mark) and not has_colour(image, "#c0392b" if right else "#00875a", 0)


@pytest.fixture
def captions(monkeypatch):
    """The captions that draw_filters was given, with its other arguments."""
    seen = []
    monkeypatch.setattr(report, "draw_filters", lambda *arguments, **options: seen.append((arguments[3], options)))
    return seen


def test_the_caption_says_what_is_so(tmp_path, captions):
    """The best epoch of how many, the paper's figure for AlexNet alone, and initial values only where they fit."""
    b = Builder((24, 24, 3))
    b.conv("conv1", 96, 5)
    b.flatten()
    b.linear("fc", 4)
    b.loss()
    net, test = b.net(device="reference"), procedural_sets((4, 4, 12), size=24)[2]
    (tmp_path / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records(3)))
    result = Evaluation(1.4, 0.25, 1.0, np.full((12, 4), 0.25), test.labels)
    for alexnet in (False, True):
        draw_run(tmp_path, net=net, title="small", images_seen=80, epochs=2, held_out=test, result=result,
                 start=np.ones((1728, 4), np.float32), alexnet=alexnet)
    (other, with_start), (paper, groups) = captions
    assert other.startswith("Best epoch, 2 of 3; 80 images shown until then.") and "Figure 3" not in other
    assert with_start == {"groups": 1, "start": None} and "initial" not in other
    assert "Figure 3 of the paper" in paper and groups["groups"] == 2


def test_small_changes_are_not_none():
    assert [report.percent(share) for share in (0, 1.234, 0.12, 0.0312, 0.00012)] == ["0 %", "123 %", "12 %", "3.1 %",
                                                                                     "0.012 %"]


def test_the_curve_says_how_training_is_measured():
    def net(*dropout):
        b = Builder((24, 24, 3))
        b.flatten()
        for share in dropout:
            b.dropout("drop", share)
        b.linear("fc", 4)
        return b.net(device="reference")

    cropped, whole = ({"recipe": {"preprocess": {"crop": 24, "size": size}}} for size in (32, 24))
    assert report.training_label(cropped, net(0.5)) == "training, on crops and with dropout"
    assert report.training_label(cropped, net()) == "training, on crops"
    assert report.training_label(whole, net(0.5)) == "training, with dropout"
    assert report.training_label(whole, net()) == report.training_label({}, None) == "training"


def test_all_three(tmp_path):
    b = Builder((24, 24, 3))
    b.conv("conv1", 8, 5)
    b.flatten()
    b.linear("fc", 4)
    b.loss()
    net, test = b.net(device="reference"), procedural_sets((4, 4, 12), size=24)[2]
    (tmp_path / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records(2)))
    result = Evaluation(1.4, 0.25, 1.0, np.full((12, 4), 0.25), test.labels)
    paths = draw_run(tmp_path, net=net, title="small", images_seen=80, epochs=2, held_out=test, result=result,
                     start=net.params["conv1.w"].data + 0.01)
    assert sorted(path.name for path in paths) == ["conv1.png", "curves.png", "predictions.png"]
    assert sorted(os.listdir(tmp_path)) == ["conv1.png", "curves.png", METRICS, "predictions.png"]
