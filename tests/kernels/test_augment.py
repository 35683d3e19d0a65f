"""Crop, mirrors, mean and shift. Means and shifts are eighths here, so that every sum is exact in any order."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage

# images (N, A, B, C), crop (H, W)
SHAPES = [((5, 9, 8, 3), (5, 5)), ((8, 6, 6, 1), (6, 6)), ((3, 7, 9, 3), (4, 6)), ((1, 1, 1, 5), (1, 1)),
          ((33, 40, 41, 3), (35, 35))]


def eighths(rng, shape, low, high, dtype):
    return (rng.integers(8 * low, 8 * high, shape) / 8).astype(dtype)


def draw(rng, dtype, shape, crop, frame):
    """images and options: random crops, all kinds of flips (transpose needs a square), mean in the given frame."""
    N, A, B, C = shape
    options = {"mean": eighths(rng, (A, B, C) if frame == "image" else (*crop, C), 0, 255, dtype),
               "top": rng.integers(0, A - crop[0] + 1, N).astype(np.int32),
               "left": rng.integers(0, B - crop[1] + 1, N).astype(np.int32),
               "flip": (np.arange(N) % (8 if crop[0] == crop[1] else 4)).astype(np.uint8),
               "shift": eighths(rng, (N, C), -20, 20, dtype)}
    return rng.integers(0, 256, shape).astype(np.uint8), options


@pytest.mark.parametrize("frame", ["image", "crop"])
@pytest.mark.parametrize(("shape", "crop"), SHAPES[:4])
def test_equals_loops(reference, rng, shape, crop, frame):
    images, options = draw(rng, "float64", shape, crop, frame)
    output = garbage((shape[0], *crop, shape[3]), "float64")
    y = call(reference, "augment_forward", images, output, writes=(1,), **options)
    np.testing.assert_array_equal(y, naive.augment(images, crop, **options))


@pytest.mark.parametrize("frame", ["image", "crop"])
@pytest.mark.parametrize(("shape", "crop"), SHAPES)
def test_equals_reference(ops, dtype, rng, shape, crop, frame):
    images, options = draw(rng, dtype, shape, crop, frame)
    output = garbage((shape[0], *crop, shape[3]), dtype)
    compare(ops, "augment_forward", images, output, writes=(1,), kind="exact", **options)
