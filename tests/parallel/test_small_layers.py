"""Layers of nets that end without a Flatten, on ranks."""

from __future__ import annotations

import pytest

from minicnn.builder import Builder
from minicnn.parallel.parallel_net import SCHEMES
from tests.helpers.graphs import images, scale_weights
from tests.parallel.test_partition import compare


@pytest.mark.parametrize("scheme", SCHEMES)
def test_linear_on_maps_global_average_and_label_smoothing(scheme):
    def make():
        b = Builder((6, 5, 2))
        b.conv("conv1", 6, 3)
        b.sigmoid()
        b.linear("mix", 8)                                              # a 1 x 1 convolution
        b.avgpool("pool", 3, stride=2, padding=1, ceil=True, count_pad="padding")
        b.relu()
        b.global_avgpool()
        b.linear("fc", 4)
        b.loss(label_smoothing=0.1)
        return scale_weights(b.net(dtype="float64"))

    compare(make, scheme, 2, *images(make(), 4), 3)
