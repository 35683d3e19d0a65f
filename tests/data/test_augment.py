import numpy as np
import pytest

from minicnn.data.augment import Augment, central_crop
from minicnn.errors import ConfigError

HW = (256, 256)
IMAGENET_PCA = (np.array([0.2175, 0.0188, 0.0045]), np.eye(3))
IDS = np.arange(40_000, dtype=np.uint32)


def test_every_crop_occurs_and_none_beyond():
    """33 x 33 places and their mirror images: 2178 crops, where the paper prints 2048."""
    draw = Augment(crop=224).draw(0, 0, IDS, HW)
    seen = set(zip(draw["top"].tolist(), draw["left"].tolist(), draw["flip"].tolist(), strict=True))
    assert len(seen) == 2178
    assert {crop[0] for crop in seen} == {crop[1] for crop in seen} == set(range(33)) and {c[2] for c in seen} == {0, 1}


def test_types_are_those_the_kernels_take():
    draw = Augment(crop=224, colour="paper").draw(0, 0, IDS[:5], HW, IMAGENET_PCA)
    assert {name: (part.dtype.name, part.shape) for name, part in draw.items()} == {
        "top": ("int32", (5,)), "left": ("int32", (5,)), "flip": ("uint8", (5,)), "shift": ("float32", (5, 3))}


def test_a_draw_depends_on_seed_epoch_and_id_only():
    augment = Augment(crop=224, colour="paper")
    whole = augment.draw(3, 2, IDS[:100], HW, IMAGENET_PCA)
    one = augment.draw(3, 2, IDS[70:71], HW, IMAGENET_PCA)                   # alone, and not in a batch
    for name in whole:
        np.testing.assert_array_equal(whole[name][70:71], one[name])
    for seed, epoch in ((4, 2), (3, 3)):
        assert not np.array_equal(augment.draw(seed, epoch, IDS[:100], HW, IMAGENET_PCA)["top"], whole["top"])


def test_one_knob_does_not_move_another():
    plain, full = Augment(crop=224, flip=False), Augment(crop=224, updown=True, transpose=True, colour="authors")
    a, b = plain.draw(0, 0, IDS[:50], HW), full.draw(0, 0, IDS[:50], HW, IMAGENET_PCA)
    np.testing.assert_array_equal(a["top"], b["top"])
    np.testing.assert_array_equal(a["left"], b["left"])
    np.testing.assert_array_equal(Augment(crop=224).draw(0, 0, IDS[:50], HW)["flip"], b["flip"] & 1)
    assert not a["flip"].any() and not a["shift"].any()


def test_all_eight_turns_are_equally_likely():
    counts = np.bincount(Augment(crop=224, updown=True, transpose=True).draw(1, 0, IDS, HW)["flip"], minlength=8)
    assert len(counts) == 8 and np.abs(counts / len(IDS) - 1 / 8).max() < 0.01


@pytest.mark.parametrize("reading, levels", [("paper", 5.5), ("authors", 11.9), ("literal", 1414)])
def test_colour_readings_have_the_known_sizes(reading, levels):
    """The first component's typical shift on ImageNet's published eigenvalues."""
    shift = Augment(crop=224, colour=reading).draw(0, 0, IDS, HW, IMAGENET_PCA)["shift"]
    assert abs(shift[:, 0].std() / levels - 1) < 0.02 and abs(shift.mean()) < 0.02 * levels


def test_colour_shift_is_along_the_eigenvectors():
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    eigenvalues = np.array([0.3, 0.02, 0.0])
    shift = Augment(crop=224, colour="paper").draw(0, 0, IDS, HW, (eigenvalues, vectors))["shift"]
    np.testing.assert_allclose((shift @ vectors).std(axis=0), 25.5 * eigenvalues, rtol=0.02, atol=1e-5)


def test_the_authors_factor():
    assert Augment(colour="authors").factor == pytest.approx(1 / 1.1) and Augment(colour="paper").factor == 1.0


def test_the_central_crop():
    middle = central_crop(3, 224, HW)
    assert middle["top"].tolist() == middle["left"].tolist() == [16] * 3
    assert not middle["shift"].any() and not middle["flip"].any()


def test_whole_image_as_crop():
    draw = Augment(crop=32).draw(0, 0, IDS[:9], (32, 32))
    assert not draw["top"].any() and not draw["left"].any()


def test_errors():
    with pytest.raises(ConfigError, match="crop of 224 does not fit into images of 32x32"):
        Augment(crop=224).draw(0, 0, IDS[:1], (32, 32))
    with pytest.raises(ConfigError, match=r"the side of the crop is not known; name it, as in Augment\(crop=224\)"):
        Augment().draw(0, 0, IDS[:1], HW)
    with pytest.raises(ConfigError, match="no colour augmentation 'sepia'"):
        Augment(colour="sepia")
    with pytest.raises(ConfigError, match="needs the principal components"):
        Augment(crop=224, colour="paper").draw(0, 0, IDS[:1], HW)


def test_applied_by_the_backend(ops):
    """The kernels do with a draw what its numbers say."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    y = ops.empty((8, 9, 9, 3), "float32")
    draw = Augment(crop=9, updown=True, transpose=True, colour="paper").draw(0, 0, IDS[:8], (12, 12), IMAGENET_PCA)
    mean = ops.from_host(np.full((12, 12, 3), 10.0, np.float32))
    on_device = {name: ops.from_host(part) for name, part in draw.items()}
    ops.augment_forward(ops.from_host(images), y, mean=mean, **on_device)
    y = ops.to_host(y)
    for n in range(8):
        crop = images[n, draw["top"][n]:, draw["left"][n]:][:9, :9].astype(np.float32) - 10
        crop = crop.transpose(1, 0, 2) if draw["flip"][n] & 4 else crop
        crop = crop[::-1] if draw["flip"][n] & 2 else crop
        crop = crop[:, ::-1] if draw["flip"][n] & 1 else crop
        np.testing.assert_allclose(y[n], crop + draw["shift"][n], rtol=1e-5, atol=1e-4)
