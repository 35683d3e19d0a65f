"""Which parts of an image a network sees when it is evaluated, as draws that the input pipeline cuts.

Section 4.1 of the AlexNet paper: "At test time, the network makes a prediction by extracting five 224 x 224 patches
(the four corner patches and the center patch) as well as their horizontal reflections (hence ten patches in all), and
averaging the predictions made by the network's softmax layer on the ten patches."

Its descendants first resize the image, to one size or several. image_hw is the size of all images, or arrays of heights
and widths; `short`, what their short side is resized to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minicnn.data.augment import LEFT_RIGHT, Draw, central_box, central_crop, fixed_box, fixed_crop, offsets, rescaled

FLIPS = (0, LEFT_RIGHT)
SIX = (1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8)          # weights of six_views


def one_crop(n: int, crop: int, image_hw, short: int | None = None) -> list[Draw]:
    """The central crop of each of n images; of the resized image, if `short` is given."""
    return [central_crop(n, crop, image_hw) if short is None else central_box(n, crop, image_hw, short)]


def ten_crops(n: int, crop: int, image_hw, short: int | None = None) -> list[Draw]:
    """The AlexNet paper's ten crops of each of n images: corners and centre, then the same mirrored.

    For 224 of 256, (top, left): (0, 0), (0, 32), (16, 16), (32, 0), (32, 32). Of a resized image (`short`), those of
    its central square.
    """
    if short is None:
        rows, columns = offsets(crop, image_hw)
        return [fixed_crop(n, top, left, flip) for flip in FLIPS for top, left in _five(rows, columns)]
    size, ratio = rescaled(image_hw, short)
    offsets(crop, size)
    top, left = ((side - short) // 2 for side in size)
    return [fixed_box(n, top + down, left + right, crop, ratio, flip)
            for flip in FLIPS for down, right in _five(short - crop, short - crop)]


def six_views(n: int, crop: int, image_hw, short: int | None = None) -> Iterator[Draw]:
    """airbench's views of each of n images: the centre, and the centre moved by a pixel up and left, down and right, of
    images that are continued by reflection; each mirrored, too (KellerJordan/cifar10-airbench: airbench/utils.py)."""
    size, ratio = rescaled(image_hw, short) if short else (image_hw, 1.0)
    rows, columns = offsets(crop, size)
    for moved in (0, -1, 1):
        for flip in FLIPS:
            yield {**fixed_box(n, rows // 2 + moved, columns // 2 + moved, crop, ratio, flip), "border": "reflect"}


def grid_crops(n: int, crop: int, image_hw, short: int) -> Iterator[Draw]:
    """VGG's 50 crops of each of n images at this size: a grid of 5 x 5 over the whole image, and the same mirrored."""
    size, ratio = rescaled(image_hw, short)
    rows, columns = offsets(crop, size)
    for flip in FLIPS:
        for i, j in np.ndindex(5, 5):
            yield fixed_box(n, np.rint(rows * i / 4), np.rint(columns * j / 4), crop, ratio, flip)


def square_crops(n: int, crop: int, image_hw, short: int) -> Iterator[Draw]:
    """GoogLeNet's 36 crops of each of n images at this size: three squares along the long side, first, middle, last;
    of each the corners, the centre and the whole square, resized to the crop; and all of these mirrored.

    Of a square image, the three squares are equal.
    """
    size, ratio = rescaled(image_hw, short)
    inside, _ = offsets(crop, (short, short))
    for third in (0, 1, 2):
        top, left = ((side - short) * third // 2 for side in size)
        for flip in FLIPS:
            for down, right in _five(inside, inside):
                yield fixed_box(n, top + down, left + right, crop, ratio, flip)
            yield fixed_box(n, top, left, short, ratio, flip)


def _five(rows: int, columns: int) -> list[tuple[int, int]]:
    """(top, left) of the corners and the centre, where the last place is (rows, columns)."""
    return [(0, 0), (0, columns), (rows // 2, columns // 2), (rows, 0), (rows, columns)]
