"""Boxes of photographs: against Pillow, against plain crops of padded images, and every backend against the reference.

Pixels are 0..3 where backends are compared, so that products are of size about 1, as the tolerances assume.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage

SIZES = [(9, 14), (30, 11), (5, 5), (1, 7), (23, 40)]                 # photographs (A, B)


def photographs(rng, sizes, channels=3, most=255):
    """The images, and where each lies in one buffer, as options of the operation."""
    images = [rng.integers(0, most + 1, (A, B, channels)).astype(np.uint8) for A, B in sizes]
    ends = np.cumsum([image.size for image in images])
    heights, widths = np.array(sizes, np.int32).T
    return images, np.concatenate([image.ravel() for image in images]), {
        "offsets": np.array([0, *ends[:-1]], np.int32), "heights": heights.copy(), "widths": widths.copy()}


def boxes(rng, sizes, outside=0):
    """A box of each image, as far as `outside` beyond its edges."""
    A, B = np.array(sizes, np.float64).T
    height, width = rng.uniform(0.2, 1.0, (2, len(sizes))) * (A, B)
    top, left = rng.uniform(0, 1, (2, len(sizes))) * (A - height + 2 * outside, B - width + 2 * outside) - outside
    return {"top": top, "left": left, "height": height, "width": width}


def whole(numbers: dict) -> dict:
    return {name: np.asarray(values, np.float64) for name, values in numbers.items()}


def plain(count, channels=3, dtype="float64", size=(1, 1)):
    return {"flip": np.zeros(count, np.uint8), "shift": np.zeros((count, channels), dtype),
            "mean": np.zeros((*size, channels), dtype)}


@pytest.mark.parametrize("size", [(7, 7), (24, 13), (1, 2)])
def test_equals_pillow_to_one_grey_level(reference, rng, size):
    """Boxes of real numbers, shrunk and enlarged. Pillow rounds twice in between, and the weights to 22 bits."""
    sizes = [(A, B) for A, B in SIZES for _ in range(4)]
    images, flat, places = photographs(rng, sizes)
    box = boxes(rng, sizes)
    y = call(reference, "resize_crop_forward", flat, garbage((len(sizes), *size, 3), "float64"), writes=(1,), **places,
             **box, **plain(len(sizes), size=size))
    for n, image in enumerate(images):
        top, left, height, width = (box[name][n] for name in ("top", "left", "height", "width"))
        theirs = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR,
                                               box=(left, top, left + width, top + height))
        assert np.abs(y[n] - np.asarray(theirs)).max() <= 1.0


@pytest.mark.parametrize("in_image_frame", [True, False])
@pytest.mark.parametrize("border", ["inside", "zero", "reflect"])
def test_a_box_of_whole_pixels_is_a_plain_crop(ops, dtype, rng, border, in_image_frame):
    """Exactly: of the image, of one padded with zeros after the mean is subtracted, and of a reflected one."""
    pad, crop, N = 0 if border == "inside" else 3, (6, 6), 8
    images, flat, places = photographs(rng, [(8, 9)] * N)
    mean = rng.integers(0, 255, (8, 9, 3) if in_image_frame else (*crop, 3)).astype(dtype)
    top, left = rng.integers(-pad, 2 + pad + 1, N), rng.integers(-pad, 3 + pad + 1, N)
    top[0], left[0] = -pad, 3 + pad
    options = {"mean": mean, "flip": np.arange(N, dtype=np.uint8), "shift": np.zeros((N, 3), dtype)}
    y = call(ops, "resize_crop_forward", flat, garbage((N, *crop, 3), dtype), writes=(1,), border=border,
             mean_of_image=in_image_frame, **places, **options,
             **whole({"top": top, "left": left, "height": [6] * N, "width": [6] * N}))
    of_image = mean if in_image_frame else 0
    padded = np.pad(np.stack(images) - of_image, [(0, 0), (pad, pad), (pad, pad), (0, 0)],
                    mode="reflect" if border == "reflect" else "constant")
    options["mean"] = np.zeros((*crop, 3)) if in_image_frame else mean
    np.testing.assert_array_equal(y, naive.augment(padded, crop, top=top + pad, left=left + pad, **options))


@pytest.mark.parametrize("in_image_frame", [True, False])
@pytest.mark.parametrize(("border", "size", "channels"), [
    ("inside", (8, 8), 3), ("inside", (1, 3), 2), ("zero", (5, 7), 3), ("reflect", (12, 12), 1)])
def test_equals_reference(ops, dtype, rng, border, size, channels, in_image_frame):
    sizes = [(9, 14)] * 8 if in_image_frame else SIZES * 2
    _, flat, places = photographs(rng, sizes, channels, most=3)
    N, outside = len(sizes), 0 if border == "inside" else 4
    mean = rng.integers(0, 25, (9, 14, channels) if in_image_frame else (*size, channels)) / 8
    options = {"mean": mean.astype(dtype), "shift": rng.standard_normal((N, channels)).astype(dtype),
               "flip": (np.arange(N) % (8 if size[0] == size[1] else 4)).astype(np.uint8)}
    compare(ops, "resize_crop_forward", flat, garbage((N, *size, channels), dtype), writes=(1,), kind="sum", terms=9,
            border=border, mean_of_image=in_image_frame, **places, **boxes(rng, sizes, outside), **options)


def test_many_lines(ops, dtype, rng):
    """Enough work for several threads, which begin in the middle of an image."""
    sizes = [(70, 90), (64, 64), (65, 200)]
    _, flat, places = photographs(rng, sizes, most=3)
    compare(ops, "resize_crop_forward", flat, garbage((3, 40, 40, 3), dtype), writes=(1,), kind="sum", terms=9,
            **places, **boxes(rng, sizes), **plain(3, dtype=dtype, size=(40, 40)))


def test_cutout(ops, dtype, rng):
    """A rectangle of zeros, of which the part inside counts; nothing else is written."""
    y = rng.standard_normal((7, 6, 7, 3)).astype(dtype)
    top, left = np.array([1, -2, 5, 0, 9, -3, 0], np.int32), np.array([2, -1, 6, -9, 0, 0, -4], np.int32)
    height, width = np.array([2, 4, 4, 20, 3, 3, 5], np.int32), np.array([3, 3, 3, 30, 0, 5, 4], np.int32)
    got = call(ops, "cutout_forward", y, writes=(0,), top=top, left=left, height=height, width=width)
    for n, p, q in np.ndindex(7, 6, 7):
        covered = top[n] <= p < top[n] + height[n] and left[n] <= q < left[n] + width[n]
        np.testing.assert_array_equal(got[n, p, q], 0 if covered else y[n, p, q])
