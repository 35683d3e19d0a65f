"""Convolution: gradients on random shapes, the paper's sizes, and errors for invalid input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.conv import Conv2d
from tests.cuda_emulator.device import extent
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass, windows
from tests.tolerances import assert_close


@settings(max_examples=20)
@given(window=windows(), groups=st.integers(1, 3), width=st.tuples(st.integers(1, 2), st.integers(1, 2)),
       batch=st.integers(1, 2), relu=st.booleans(), bias=st.booleans())
def test_gradients(ops, window, groups, width, batch, relu, bias):
    (H, W), options = window
    layer = Conv2d(groups * width[0], groups * width[1], groups=groups, bias=bias, **options)
    must_pass(check_layer(layer, [(batch, H, W, groups * width[0])], ops=ops, relu=relu, **extent(ops)))


def make(ops, rng, *args, **options):
    """A layer with random weights and biases."""
    layer = Conv2d(*args, **options)
    layer.init_params("conv", 0, "float64")
    for param in layer.params.values():
        param.data = ops.from_host(rng.standard_normal(param.data.shape))
    return layer


def test_groups_are_separate_convolutions(ops, rng):
    x = rng.standard_normal((2, 5, 6, 4))
    whole = make(ops, rng, 4, 6, 3, groups=2, padding=1)
    w, b = whole.params["w"].data, whole.params["b"].data
    halves = []
    for g in range(2):
        half = make(ops, rng, 2, 3, 3, padding=1)
        half.params["w"].data = ops.from_host(w[..., 3 * g:3 * g + 3])
        half.params["b"].data = ops.from_host(b[3 * g:3 * g + 3])
        halves.append(applied(ops, half, x[..., 2 * g:2 * g + 2]))
    assert_close(applied(ops, whole, x), np.concatenate(halves, axis=3), "sum", 18)


def test_it_is_a_correlation_with_a_bias(ops):
    """A kernel whose only weight is at (r, s) = (0, 2) reads the pixel two to the right: the kernel is not flipped."""
    layer = Conv2d(1, 1, 3)
    layer.init_params("conv", 0, "float64")
    w = np.zeros((3, 3, 1, 1))
    w[0, 2] = 1
    layer.params["w"].data, layer.params["b"].data = ops.from_host(w), ops.from_host(np.array([0.5]))
    x = np.arange(25.0).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(applied(ops, layer, x), x[:, :3, 2:] + 0.5)


@pytest.mark.parametrize(("size", "options", "wanted"), [
    (224, {"kernel": 11, "stride": 4, "ceil": True}, 55),       # as in Figure 2: the last window extends past the edge
    (227, {"kernel": 11, "stride": 4}, 55),
    (224, {"kernel": 11, "stride": 4}, 54),
    (27, {"kernel": 5, "padding": 2}, 27),
    (13, {"kernel": 3, "padding": 1}, 13),
])
def test_sizes_of_the_paper(ops, size, options, wanted):
    plan = Conv2d(3, 96, **options).plan([(1, size, size, 3)], "float32", ops)
    assert plan.out_shape == (1, wanted, wanted, 96)


def test_macs_of_the_paper(ops):
    """conv1 of AlexNet: 55 * 55 * 96 * 11 * 11 * 3 multiply-adds per image."""
    plan = Conv2d(3, 96, 11, stride=4, ceil=True).plan([(2, 224, 224, 3)], "float32", ops)
    assert plan.macs == 2 * 105_415_200


def test_errors_say_what_was_expected(ops):
    with pytest.raises(ShapeError, match=r"Conv2d expects 3 input channels, got 4 \(shape \(1, 5, 5, 4\)\)"):
        Conv2d(3, 4, 3)(np.zeros((1, 5, 5, 4), "float32"), ops=ops)
    with pytest.raises(ShapeError, match=r"Conv2d expects an array \(N, H, W, C\), got shape \(1, 5, 5\)"):
        Conv2d(3, 4, 3)(np.zeros((1, 5, 5), "float32"), ops=ops)
    with pytest.raises(ShapeError, match="a window of 7 does not fit into 5"):
        Conv2d(3, 4, 7)(np.zeros((1, 5, 5, 3), "float32"), ops=ops)
    with pytest.raises(ConfigError, match="groups = 2 must divide in_channels = 3"):
        Conv2d(3, 4, 3, groups=2)
