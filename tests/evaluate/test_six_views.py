"""The six views with which airbench is evaluated."""

from __future__ import annotations

import numpy as np

from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch
from minicnn.data.preprocess import Preprocess
from minicnn.evaluate.crops import six_views
from minicnn.evaluate.protocols import PROTOCOLS, softmax
from minicnn.models import airbench93


def test_six_views(rng):
    """Half of the logits are of the image and its mirror image, half of it moved by a pixel both ways, and mirrored."""
    net = airbench93(widths=(4, 4, 4), logit_factor=10.0, device="reference")
    pipeline = InputPipeline(net, Preprocess(size=32, crop=32, mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0)))
    pixels = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    batch = Batch(pixels, np.zeros(3, np.int32), np.arange(3, dtype=np.uint32), np.arange(3))
    x = (pixels.astype("f4") - 120) / 60
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")

    def both(view):
        return (net(view) + net(np.ascontiguousarray(view[:, :, ::-1]))) / 2

    moved = [both(np.ascontiguousarray(part)) for part in (wide[:, :32, :32], wide[:, 2:, 2:])]
    wanted = both(x) / 2 + sum(moved) / 4
    views = [view.copy() for view in pipeline.views(batch, six_views(3, 32, (32, 32)))]
    for view, part in zip(views[2:6:2], (wide[:, :32, :32], wide[:, 2:, 2:]), strict=True):
        np.testing.assert_allclose(view, part, atol=1e-5)
    found = PROTOCOLS["six-view"].of(net, pipeline, 8)(batch)
    np.testing.assert_allclose(found, softmax(wanted), rtol=1e-4)
