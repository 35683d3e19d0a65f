"""minicnn draw: no two texts overlap, nothing lies outside, and what is listed adds up to the network."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.patches import Polygon
from PIL import Image

from minicnn.builder import Builder
from minicnn.cli.pictures.draw import Undrawn, net_called
from minicnn.layers.pool import AdaptiveAvgPool2d
from minicnn.models.registry import MODELS, full_name
from minicnn.visualize.diagram import layout
from minicnn.visualize.diagram.draw import draw_net, figure_of
from minicnn.visualize.diagram.stages import Block, stages_of, totals
from tests.cli.test_cli import run
from tests.helpers.small_run import small_trainer

QUICK = ("alexnet", "zfnet:spp", "googlenet", "resnet18:a", "plain20", "cifar_paper")
EVERY = [full_name(name, variant) if variant != model.default else name
         for name, model in MODELS.items() for variant in model.variants]
MANY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EVERY]


def check_figure(figure) -> None:
    """Texts and the fronts of boxes overlap no other, and lie within the picture."""
    renderer, whole = figure.canvas.get_renderer(), figure.bbox
    (axes,) = figure.axes
    texts = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts if text.get_text()]
    faces = [("a box", patch.get_window_extent(renderer)) for patch in axes.patches if isinstance(patch, Polygon)]
    for what, box in texts + faces:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, what
    boxes = sorted(texts, key=lambda item: item[1].y0)
    for place, (one, a) in enumerate(boxes):
        for other, b in boxes[place + 1:]:
            if b.y0 >= a.y1:
                break
            assert a.x1 <= b.x0 or b.x1 <= a.x0, (one, other)
        for _, b in faces:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0, one


@pytest.mark.parametrize("name", MANY)
def test_every_model(name):
    net, title, _ = net_called(name)
    check_figure(figure_of(net, title))
    variant = MODELS[name.partition(":")[0]].variants[name.partition(":")[2] or MODELS[name.partition(":")[0]].default]
    assert totals(stages_of(net)) == (variant.parameters - variant.auxiliary, variant.macs)


def test_overlaps_are_noticed(monkeypatch):
    net, title, _ = net_called("resnet20")
    for name, value in (("text_width", lambda text, points: 0.3), ("LINE_HEIGHT", 0.08), ("MARGIN", -2.0)):
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            patch.setattr(layout, name, value)
            check_figure(figure_of(net, title))


def test_blocks_branches_and_columns():
    """GoogLeNet's four branches; ResNet's blocks, so many times; AlexNet's columns, crossed before conv3 alone."""
    inception = next(stage for stage in stages_of(net_called("googlenet")[0]) if isinstance(stage, Block))
    assert [[box.label for box in branch] for branch in inception.branches] == [
        ["1×1"], ["1×1", "3×3"], ["1×1", "5×5"], ["max 3×3", "1×1"]] and inception.join.label == "concat"
    blocks = [stage for stage in stages_of(net_called("resnet50")[0]) if isinstance(stage, Block)]
    assert [block.times for block in blocks] == [1, 2, 1, 3, 1, 5, 1, 2]
    assert [len(branch) for branch in blocks[0].branches] == [3, 1] and blocks[1].branches[1] == []
    boxes = {box.name: box for box in stages_of(net_called("alexnet")[0])}
    split = {name for name, box in boxes.items() if box.columns == 2}
    assert split == {"conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"}
    assert {name for name in split if boxes[name].mixes} == {"conv1", "conv3"}
    assert boxes["conv1"].what == "11×11, stride 4 + ReLU + LRN" and boxes["fc6"].shape == (4096,)
    assert {box.columns for box in stages_of(net_called("alexnet:ungrouped")[0])} == {1}
    plain = [stage.times for stage in stages_of(net_called("plain20")[0])]
    assert plain == [1, 1, 6, 1, 5, 1, 5, 1, 1]


def test_boxes_are_to_scale():
    placed = {each.box.name: each for each in layout.place(stages_of(net_called("vgg")[0]), 1.0).boxes}
    one, other = placed["conv1_1"], placed["conv5_3"]
    assert one.height / other.height == pytest.approx((224 / 14) ** 0.5)
    assert other.width / one.width == pytest.approx((512 / 64) ** 0.5)
    tops = [each.top for each in placed.values()]
    assert tops == sorted(tops)


def test_what_is_no_chain_within_a_branch_is_one_box():
    """A fork within a branch; values that fork are not drawn with the layer before them."""
    b = Builder((8, 8, 3))
    stem = b.conv("stem", 4, 3)
    inside = b.conv("inside", 4, 1, input=stem)
    joined = b.add("joined", [b.conv("left", 4, 1, input=inside), b.conv("right", 4, 1, input=inside)])
    b.relu("relu", input=b.add("sum", [joined, b.relu("own", input=stem)]))
    b.linear("fc", 2, input=b.flatten())
    net = b.net(device="reference")
    block = next(stage for stage in stages_of(net) if isinstance(stage, Block))
    assert [[box.what for box in branch] for branch in block.branches] == [["4 layers that fork"], ["ReLU"]]
    inside = block.branches[0][0]
    assert (inside.label, inside.parameters, inside.shape) == ("4 layers", 3 * 20, (6, 6, 4))
    assert totals(stages_of(net))[0] == net.num_params
    check_figure(figure_of(net))


def test_layers_in_words():
    b = Builder((20, 20, 4))
    b.conv("a", 8, (3, 1), stride=(2, 1), groups=2)
    b.relu(input=b.batchnorm("bn"))
    b.conv("b", 8, 3, groups=8)
    b.avgpool("c", 2)
    b.layer("e", AdaptiveAvgPool2d(2))
    b.linear("fc", 2, input=b.flatten())
    boxes = stages_of(b.net(device="reference"))
    assert [(box.label, box.what) for box in boxes[1:]] == [
        ("3×1 /2×1", "3×1, stride 2×1, 2 groups + BN + ReLU"), ("3×3", "3×3, depthwise"),
        ("average 2×2 /2", "average pooling 2×2, stride 2"),
        ("average to 2×2", "average pooling to 2×2"), ("", "fully connected")]


def test_svg_keeps_text_and_is_the_same_each_time(tmp_path):
    net, title, _ = net_called("alexnet")
    first, again = (draw_net(net, tmp_path / f"{name}.svg", title).read_bytes() for name in "ab")
    assert first == again
    texts = [text.text for text in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")]
    assert {"AlexNet (paper)", "conv1", "34,944", "105.4 M", "55×55×96", "11×11 /4"} <= {*texts}


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_trainer("runs/small", images=16).fit(1)
    code, out, _ = run(capsys, "draw", "cifar_18pct", "--classes", "3", "--out", "net.png")
    assert code == 0 and out == "net.png\n"
    with Image.open("net.png") as image:
        assert image.width > 600
    code, out, _ = run(capsys, "draw", "small")
    assert code == 0 and out == "runs/small/net.svg\n" and "fc2" in (tmp_path / out.strip()).read_text()
    for arguments, words in ((["alexnt"], "did you mean alexnet"), (["runs/none"], "runs/none: no such run"),
                             (["small", "--classes", "3"], "--classes is for models"),
                             (["vgg", "--out", "net.pdf"], "net.pdf: expected a name that ends in .svg or .png"),
                             (["vgg", "--out", "small/../net.txt"], "ends in .svg or .png")):
        code, out, err = run(capsys, "draw", *arguments)
        assert code == 2 and not out and len(err.splitlines()) == 1 and re.search(words, err), err


def test_weights_are_not_drawn():
    net, _, _ = net_called("cifar_18pct")
    assert not any(array.any() for array in net.arrays().values()) and Undrawn().get("x")(0, "x", (2,), "f4").sum() == 0
