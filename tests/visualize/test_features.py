"""Features through training, under transformations, and between photographs: against loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.models.registry import build
from minicnn.train.runs.checkpoint import save_checkpoint
from minicnn.visualize.features.colours import colour_shares, colour_split, random_separations, separated
from minicnn.visualize.features.correspondence import check_box, correspondence, elsewhere
from minicnn.visualize.features.evolution import evolution, some_epochs
from minicnn.visualize.features.invariance import invariance, transformed, usual_amounts
from minicnn.visualize.features.layers import features_layer, first_layer
from minicnn.visualize.features.maps import activation_maps
from minicnn.visualize.features.neighbours import nearest
from minicnn.visualize.features.randomised import cascade, rank_correlation, sanity
from minicnn.visualize.projection import project
from tests.helpers.graphs import small
from tests.models.families import CASES
from tests.visualize.test_occlusion_and_top import a_set, softmax


def test_the_layers_that_papers_name():
    """layer 1 with its normalisation and activation, and what the output layer reads before dropout."""
    for case, first, last in (("zfnet", "relu1", "relu7"), ("resnet18-a", "relu1", "pool"),
                              ("googlenet", "conv1_relu", "pool5"), ("squeezenet", "relu1", "fire9")):
        net = CASES[case].net(device="reference")
        assert (first_layer(net), features_layer(net)) == (first, last)
    b = Builder((4, 4, 3))
    b.linear("fc", 2, input=b.flatten())
    net = b.net(device="reference")
    for find, message in ((first_layer, "has no convolution"), (features_layer, "no layer before its output layer")):
        with pytest.raises(ConfigError, match=message):
            find(net)


# ---- through training
def check_evolution(tmp_path) -> None:
    """Of each epoch: the largest activation over the set, its image, and its projection with these weights."""
    net = small("reference")
    pipeline, dataset, images = a_set(net)
    x, weights, expected = images[:, 1:10, 1:10] / 255 - (0.5, 0.4, 0.3), {}, {}
    for epoch in (4, 1):
        for param in net.params.values():
            param.data[...] = np.random.default_rng(epoch).normal(0, 0.3, param.data.shape)
        weights[epoch] = tmp_path / f"{epoch}.safetensors"
        save(net, weights[epoch])
        outputs = net.trace(x, "relu2")["relu2"]
        best = outputs.max(axis=(1, 2))                                             # (images, units)
        expected[epoch] = best.max(axis=0), best.argmax(axis=0), project(net, x, "relu2", 3)
    found = evolution(net, pipeline, weights, dataset, "relu2", count=2, progress=False)
    assert found.epochs == [1, 4]
    assert found.units.tolist() == sorted(np.argsort(-expected[4][0], kind="stable")[:2].tolist())
    for row, epoch in enumerate(found.epochs):
        values, best, _ = expected[epoch]
        np.testing.assert_allclose(found.values[row], values[found.units], rtol=1e-12)
        assert found.images[row].tolist() == best[found.units].tolist()
    one = evolution(net, pipeline, weights, dataset, "relu2", [3], progress=False)
    for row, epoch in enumerate(one.epochs):
        _, best, projected = expected[epoch]
        top, left, bottom, right = projected.boxes[best[3]]
        expected_pixels = projected.pixels[best[3], top:bottom, left:right]
        np.testing.assert_allclose(one.projections[row][0], expected_pixels, rtol=1e-9)
        np.testing.assert_array_equal(one.patches[row][0], images[best[3], 1:10, 1:10][top:bottom, left:right])
    assert "the one of 11 images of noise with the largest activation" in one.caption and "Deconvnet" in one.caption


def save(net, path) -> None:
    """As keep_every does, with the metadata that matter here."""
    save_checkpoint(path, net.arrays(), {}, {}, {"epoch": 1})


def test_features_through_training(tmp_path):
    check_evolution(tmp_path)
    net = small("reference")
    with pytest.raises(ConfigError, match="--keep-every EPOCHS"):
        evolution(net, a_set(net)[0], {}, a_set(net)[1], "relu2")


def test_some_epochs():
    """All of a few; of many the first, the last, and more at the beginning."""
    assert some_epochs([2, 4, 6]) == [2, 4, 6]
    chosen = some_epochs(list(range(1, 65)))
    assert chosen[0] == 1 and chosen[-1] == 64 and len(chosen) <= 8 and (np.diff(np.diff(chosen)) >= 0).all()


# ---- transformations
def check_transformations() -> None:
    image = np.random.default_rng(0).standard_normal((5, 5, 3))
    for kind, nothing in (("translation", 0), ("scale", 1), ("rotation", 0)):
        np.testing.assert_allclose(transformed(image, kind, nothing, 7.0), image, atol=1e-12)
    down = transformed(image, "translation", 2, 7.0)
    np.testing.assert_allclose(down[2:], image[:3], atol=1e-12)
    assert (down[:2] == 7).all()
    np.testing.assert_allclose(transformed(image, "translation", -0.5, 7.0)[:4], (image[:4] + image[1:]) / 2)
    np.testing.assert_allclose(transformed(image, "rotation", 90), np.rot90(image), atol=1e-9)       # counter-clockwise
    np.testing.assert_allclose(transformed(image, "scale", 2)[::2, ::2], image[1:4, 1:4], atol=1e-9)
    between = (image[1:3, 1:3] + image[1:3, 2:4] + image[2:4, 1:3] + image[2:4, 2:4]) / 4
    np.testing.assert_allclose(transformed(image, "scale", 2)[1::2, 1::2], between, atol=1e-9)
    large = transformed(image, "scale", 4)
    np.testing.assert_allclose(large[2, 3], 0.75 * image[2, 2] + 0.25 * image[2, 3], atol=1e-9)
    np.testing.assert_allclose(large[3, 2], 0.75 * image[2, 2] + 0.25 * image[3, 2], atol=1e-9)
    np.testing.assert_allclose(large[1, 3], np.tensordot([[0.0625 * 3, 0.0625], [0.5625, 0.1875]], image[1:3, 2:4], 2),
                               atol=1e-9)
    fill = np.arange(75.0).reshape(5, 5, 3)
    np.testing.assert_allclose(transformed(image, "translation", -4, fill)[1:], fill[1:])
    corner = transformed(np.ones((5, 5, 1)), "rotation", 45, 0.0)
    assert corner[0, 0] == pytest.approx(3 - 8**0.5) and corner[2, 2] == 1       # 8^0.5 - 2 pixels outside


def check_invariance() -> None:
    net, x = small("reference"), np.random.default_rng(3).standard_normal((2, 9, 9, 3))
    amounts = {"translation": [-2, 0, 1], "rotation": [90]}
    found = invariance(net, x, [2, 4], amounts=amounts, fill=0.5)
    assert found.layers == ("relu1", "relu3") and found.distances["translation"]["relu3"].shape == (2, 3)
    for n, label in enumerate((2, 4)):
        for kind, values in amounts.items():
            for k, value in enumerate(values):
                one = transformed(x[n], kind, value, 0.5)
                clean, moved = net.trace(x[n:n + 1]), net.trace(one[None])
                for layer in found.layers:
                    assert found.distances[kind][layer][n, k] == pytest.approx(
                        np.linalg.norm(moved[layer] - clean[layer]), rel=1e-9, abs=1e-9)
                assert found.probability[kind][n, k] == pytest.approx(softmax(moved["fc4"][0])[label], rel=1e-9)
    assert found.distances["translation"]["relu1"][:, 1].max() < 1e-9 < found.distances["translation"]["relu1"][0, 0]


def test_invariance():
    check_transformations()
    check_invariance()
    usual = usual_amounts(224)
    assert (usual["translation"][0], usual["translation"][-1], usual["scale"][-1], usual["rotation"][-1]) == (
        -60, 60, 1.8, 345) and 0 in usual["translation"] and usual["scale"][0] == 1
    net, x = small("reference"), np.zeros((1, 9, 9, 3))
    for options, message in (({"amounts": {"shear": [1]}}, "no transformation 'shear'"),
                             ({"layers": ("relu1", "fc9")}, "no layer is called 'fc9'")):
        with pytest.raises(ConfigError, match=message):
            invariance(net, x, [0], **options)


# ---- between photographs
def check_correspondence() -> None:
    net, x = small("reference"), np.random.default_rng(3).standard_normal((3, 9, 9, 3))
    boxes = [(0, 1, 4, 5), (2, 2, 6, 6), (5, 0, 9, 4)]
    found = correspondence(net, x, boxes, fill=0.25, draws=2)
    covered = x.copy()
    for image, (top, left, bottom, right) in zip(covered, boxes, strict=True):
        image[top:bottom, left:right] = 0.25
    for layer in ("relu2", "relu3"):
        signs = [np.sign(net.trace(x[n:n + 1])[layer] - net.trace(covered[n:n + 1])[layer]).ravel() for n in range(3)]
        pairs = [np.mean(signs[i] != signs[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found.part[layer] == pytest.approx((np.mean(pairs), np.std(pairs)), rel=1e-12)
        assert found.part[layer] != found.random[layer] and found.random[layer][1] > 0
    assert "filled with" in found.caption and "3 pairs" in found.caption and "over 2 draws" in found.caption
    same = correspondence(net, np.repeat(x[:1], 3, axis=0), [boxes[0]] * 3, draws=1)
    assert same.part["relu2"] == (0, 0) and same.random["relu2"][0] > 0         # the control covers other places


def check_random_boxes() -> None:
    """All places where the box lies within the image, and no other; the same size."""
    rng = np.random.default_rng(0)
    boxes = {elsewhere((2, 1, 5, 3), (6, 4), rng) for _ in range(400)}
    assert boxes == {(top, left, top + 3, left + 2) for top in range(4) for left in range(3)}
    check_box((0, 0, 6, 4), (6, 4))
    for wrong in ((0, 0, 7, 4), (0, 0, 6, 5), (-1, 0, 2, 2), (0, -1, 2, 2), (3, 1, 3, 2), (3, 1, 5, 1)):
        with pytest.raises(ConfigError, match="does not lie within"):
            check_box(wrong, (6, 4))


def test_correspondence():
    check_correspondence()
    check_random_boxes()
    net, x = small("reference"), np.zeros((2, 9, 9, 3))
    for arguments, message in (((x[:1], [(0, 0, 2, 2)]), "at least two photographs.*got 1 photographs and 1 boxes"),
                               ((x, [(0, 0, 2, 2)]), "2 photographs and 1 boxes"),
                               ((x, [(0, 0, 2, 2), (6, 7, 9, 10)]), "3 x 3 pixels at row 6, column 7 does not lie")):
        with pytest.raises(ConfigError, match=message):
            correspondence(net, *arguments)


def check_neighbours() -> None:
    """Whatever the batch; of equal images the earlier one is first."""
    net = small("reference")
    pipeline, dataset, images = a_set(net)
    x = images[:, 1:10, 1:10] / 255 - (0.5, 0.4, 0.3)
    outputs = net.trace(x, "relu3")["relu3"]
    for batch in (2, 5, 64):
        found = nearest(net, pipeline, x[[2, 5]], dataset, count=4, batch=batch, progress=False)
        assert found.layer == "relu3" and found.seen == 11
        for row, query in enumerate((2, 5)):
            distances = np.linalg.norm(outputs - outputs[query], axis=1)
            order = np.argsort(distances, kind="stable")[:4]
            assert found.images[row].tolist() == order.tolist()
            np.testing.assert_allclose(found.distances[row], distances[order], rtol=1e-9, atol=1e-12)
    assert found.images[0, :2].tolist() == [2, 7]
    assert "of 11 images of noise, by the Euclidean distance" in found.caption


def test_nearest_neighbours():
    check_neighbours()


# ---- weights
def check_colours() -> None:
    kernels = np.zeros((2, 2, 3, 4))
    kernels[..., 0] = np.random.default_rng(0).standard_normal((2, 2, 1))          # equal planes
    kernels[:, :, 0, 1], kernels[:, :, 1, 1] = 1, -1                               # planes that add up to 0
    kernels[:, :, 0, 2] = 3                                                        # one plane: 6 of 9
    np.testing.assert_allclose(colour_shares(kernels), [0, 1, 2 / 3, 0], atol=1e-12)
    assert separated(np.array([3, 4]), np.array([1, 2])) == separated(np.array([1, 2]), np.array([3, 4])) == 1
    assert separated(np.array([1, 2]), np.array([1, 2])) == 0.5
    assert separated(np.array([1.0, 3]), np.array([2.0, 0])) == 0.75
    # Mann-Whitney: normal with this standard deviation for halves of 48
    assert random_separations(48) == pytest.approx(0.5 + 1.96 * ((2 * 48 + 1) / (12 * 48**2)) ** 0.5, abs=0.01)
    assert random_separations(1) == 1
    net = build("alexnet", kernels=(8, 4, 4, 4, 4), fc=4, input_size=67, num_classes=2, device="reference")
    weights = net.params["conv1.w"].data
    weights[..., 4:] = weights[..., 4:].mean(axis=2, keepdims=True)
    found = colour_split(net)
    assert found.shares.shape == (2, 4) and found.separation == 1
    assert found.shares[1].max() < 1e-6 < found.shares[0].min()


def test_colour_split():
    check_colours()
    with pytest.raises(ConfigError, match="has no two columns"):
        colour_split(build("alexnet:ungrouped", kernels=(8, 4, 4, 4, 4), fc=4, input_size=67, device="reference"))


def test_activation_maps():
    net, x = small("reference"), np.random.default_rng(3).standard_normal((9, 9, 3))
    outputs = net.trace(x[None], "relu2")["relu2"][0]
    np.testing.assert_array_equal(activation_maps(net, x).maps, outputs)
    net.trace(-x[None])
    some = activation_maps(net, x, "relu2", count=2)
    assert some.units.tolist() == sorted(np.argsort(-outputs.max(axis=(0, 1)))[:2].tolist())
    np.testing.assert_array_equal(some.maps, outputs[..., some.units])
    assert "The 2 of 6 maps with the largest values of relu2" in some.caption
    net.params["conv2.b"].data[[1, 4, 5]] = -99, -99, 99
    assert " 2 of all 6 have no positive value" in activation_maps(net, x, "relu2", count=1).caption


# ---- the sanity check
def check_cascade() -> None:
    """From the top down, each by its own initialiser with the seed; what is below stays, and so does the network."""
    net = CASES["resnet18-a"].net(device="reference", seed=1)
    for array in net.arrays().values():
        array[...] += 1
    fresh, kept = net.copy(seed=5).arrays(), {name: array.copy() for name, array in net.arrays().items()}
    names = []
    for name, changed in cascade(net, "conv3_2_relu", 5):
        names.append(name)
        if len(names) in (1, 4):
            for key, array in changed.arrays().items():
                is_new = key.removeprefix("state/").rpartition(".")[0] in names
                np.testing.assert_array_equal(array, (fresh if is_new else kept)[key])
    order = [node.name for node in net.nodes if node.layer.params]
    assert names == sorted(names, key=order.index, reverse=True) and names[-1] == "conv1" and "fc" not in names
    assert "conv3_1_conv1" in names and all((kept[key] == array).all() for key, array in net.arrays().items())


def check_sanity() -> None:
    net = small("reference")
    pictures = []

    def picture(net):
        pictures.append(net.params["conv1.w"].data.copy())
        return pictures[-1]

    stages = sanity(net, picture, "fc4", stages=2)
    assert [stage.layers for stage in stages] == [["fc4"], ["fc4", "fc3", "conv2", "conv1"]]
    assert stages[0].similarity == pytest.approx(1) and stages[1].similarity < 0.5 and len(pictures) == 3
    assert stages[1].words == "fc4 to conv1" and stages[0].words == "fc4"
    one = np.array([3.0, 1.0, 2.0, 2.0, 9.0])
    assert rank_correlation(one, one**3) == pytest.approx(1) and rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 2, 2, 4]), np.array([1, 2, 4, 2])) == pytest.approx(0.5)
    assert rank_correlation(one, np.zeros(5)) == 0


def test_the_sanity_check():
    check_cascade()
    check_sanity()
