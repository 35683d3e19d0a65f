"""Which parts of an image a network sees when it is evaluated, as draws that the input pipeline cuts.

Section 4.1 of the AlexNet paper: "At test time, the network makes a prediction by extracting five 224 x 224 patches
(the four corner patches and the center patch) as well as their horizontal reflections (hence ten patches in all), and
averaging the predictions made by the network's softmax layer on the ten patches."
"""

from __future__ import annotations

from minicnn.data.augment import LEFT_RIGHT, Draw, central_crop, fixed_crop, offsets


def one_crop(n: int, crop: int, image_hw: tuple[int, int]) -> list[Draw]:
    """The central crop of each of n images."""
    return [central_crop(n, crop, image_hw)]


def ten_crops(n: int, crop: int, image_hw: tuple[int, int]) -> list[Draw]:
    """The paper's ten crops of each of n images: corners and centre, then the same mirrored.

    For 224 of 256, (top, left): (0, 0), (0, 32), (16, 16), (32, 0), (32, 32).
    """
    rows, columns = offsets(crop, image_hw)
    places = [(0, 0), (0, columns), (rows // 2, columns // 2), (rows, 0), (rows, columns)]
    return [fixed_crop(n, top, left, flip) for flip in (0, LEFT_RIGHT) for top, left in places]
