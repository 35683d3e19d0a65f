"""Copies of layers, and what a layer says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.layers import AdaptiveAvgPool2d, Conv2d, Flatten, Linear
from minicnn.layers.base import Layer
from minicnn.param import Param


class Own(Layer):
    """With settings that hold others, and one that cannot be copied."""

    def __init__(self):
        super().__init__()
        self.scales, self.module = {"x": [1.0]}, pytest


def test_a_copy_shares_no_settings():
    layer = Own()
    layer.params["w"], layer.state["mean"] = Param("w", np.ones(3)), np.zeros(3)
    twin = layer.copy()
    twin.scales["x"].append(2.0)
    assert layer.scales == {"x": [1.0]} and twin.module is pytest
    assert not twin.params and not twin.state and layer.params and layer.state


@pytest.mark.parametrize("layer", [Conv2d(3, 8, 3, padding=1), Linear(5, 2)], ids=["conv", "linear"])
def test_a_copy_describes_itself_the_same(layer):
    twin = layer.copy()
    assert twin is not layer and twin.describe() == layer.describe()


def test_the_window_of_flatten_is_all_of_the_map(ops):
    layer = Flatten()
    assert layer.plan([(2, 5, 7, 3)], "float32", ops).window == ((5, 7), (5, 7))
    for shape in ((2, 6), (2, 4, 3)):                       # no map: every unit is one place
        assert layer.plan([shape], "float32", ops).window == ((1, 1), (1, 1))


def test_the_window_of_adaptive_pooling_is_its_largest(ops):
    """7 rows in 3 bins: 0 to 2, 2 to 4, 4 to 6; 8 columns: 0 to 2, 2 to 5, 5 to 7."""
    assert AdaptiveAvgPool2d(3).plan([(1, 7, 8, 2)], "float32", ops).window == ((3, 4), (3, 3))
