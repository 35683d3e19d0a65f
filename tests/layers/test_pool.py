"""Pooling: gradients for random windows, overlap and ties, divisors, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers.base import Context
from minicnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from tests.cuda_emulator.device import extent
from tests.helpers.harness import applied
from tests.helpers.strategies import must_pass, windows
from tests.tolerances import assert_close


@settings(max_examples=20)
@given(window=windows(pad_below_kernel=True), batch=st.integers(1, 2), channels=st.integers(1, 3))
def test_gradients_of_the_maximum(ops, window, batch, channels):
    (H, W), options = window
    must_pass(check_layer(MaxPool2d(**options), [(batch, H, W, channels)], ops=ops, **extent(ops)))


@settings(max_examples=20)
@given(window=windows(pad_below_kernel=True), batch=st.integers(1, 2),
       count_pad=st.sampled_from([True, False, "padding"]))
def test_gradients_of_the_average(ops, window, batch, count_pad):
    (H, W), options = window
    must_pass(check_layer(AvgPool2d(count_pad=count_pad, **options), [(batch, H, W, 2)], ops=ops, **extent(ops)))


def backward(layer, ops, x, dy):
    """dx for a constant dy."""
    plan = layer.plan([x.shape], "float64", ops)
    x, dy = ops.from_host(x), ops.from_host(np.full(plan.out_shape, dy))
    y, dx, ctx = ops.empty(plan.out_shape, "float64"), ops.empty(x.shape, "float64"), Context(ops, train=True)
    saved = layer.saved_for(plan, ops, [x], y)
    layer.forward(ctx, [x], y, saved)
    layer.backward(ctx, dy, saved, [dx])
    return ops.to_host(dx)


def test_overlapping_windows_add_up(ops):
    """A pixel that is the maximum of four windows receives the sum of four gradients."""
    x = np.zeros((1, 5, 5, 1))
    x[0, 2, 2] = 1
    dx = backward(MaxPool2d(3, stride=2), ops, x, 1.0)
    assert dx[0, 2, 2, 0] == 4 and dx.sum() == 4


def test_gradient_goes_to_the_first_of_equal_maxima(ops):
    dx = backward(MaxPool2d(2), ops, np.ones((1, 2, 2, 1)), 1.0)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0], [0, 0]])


def test_padding_is_never_the_maximum(ops):
    x = np.full((1, 3, 3, 1), -5.0)
    np.testing.assert_array_equal(applied(ops, MaxPool2d(2, stride=1, padding=1), x), np.full((1, 4, 4, 1), -5.0))


@pytest.mark.parametrize(("count_pad", "corner"), [(True, 1 / 4), (False, 1.0)])
def test_divisor(ops, count_pad, corner):
    y = applied(ops, AvgPool2d(2, stride=1, padding=1, count_pad=count_pad), np.ones((1, 3, 3, 1)))
    assert y[0, 0, 0, 0] == corner and y[0, 1, 1, 0] == 1


# A 4 x 4 image of 1..16, window 3, stride 2, padding 1, ceil: what each divisor gives. Computed with PyTorch 2.13
# ("padding", False) and minicnn 0.1 (True).
DIVISORS = {
    True: [[14 / 9, 30 / 9, 12 / 9], [57 / 9, 99 / 9, 36 / 9], [27 / 9, 45 / 9, 16 / 9]],
    "padding": [[14 / 9, 30 / 9, 12 / 6], [57 / 9, 99 / 9, 36 / 6], [27 / 6, 45 / 6, 16 / 4]],
    False: [[14 / 4, 30 / 6, 12 / 2], [57 / 6, 99 / 9, 36 / 3], [27 / 2, 45 / 3, 16 / 1]],
}


@pytest.mark.parametrize("count_pad", DIVISORS)
def test_three_divisors(ops, dtype, count_pad):
    x = np.arange(1, 17, dtype=dtype).reshape(1, 4, 4, 1)
    y = applied(ops, AvgPool2d(3, stride=2, padding=1, ceil=True, count_pad=count_pad), x)
    assert_close(y[0, :, :, 0], np.array(DIVISORS[count_pad]), "elementwise")


@settings(max_examples=40)
@given(window=windows(), count_pad=st.sampled_from(["padding", False]))
def test_the_average_is_pytorchs(ops, torch, window, count_pad):
    (H, W), options = window
    (top, left, _, _), kernel = options["padding"], options["kernel"]
    padding = min(top, kernel[0] // 2), min(left, kernel[1] // 2)           # PyTorch's are symmetric, half a window
    options["padding"] = padding
    x = np.random.default_rng(H).standard_normal((2, H, W, 3))
    try:
        y = applied(ops, AvgPool2d(**options, count_pad=count_pad), x)
    except ShapeError:
        assume(False)
    wanted = torch.nn.functional.avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), kernel, options["stride"], padding,
                                            options["ceil"], count_include_pad=count_pad == "padding")
    assert_close(y, wanted.permute(0, 2, 3, 1).numpy(), "elementwise", 9)


def test_global_average(ops):
    y = applied(ops, GlobalAvgPool2d(), np.arange(12.0).reshape(1, 2, 3, 2))
    np.testing.assert_array_equal(y, [[5, 6]])
    with pytest.raises(ShapeError, match=r"GlobalAvgPool2d expects an array \(N, H, W, C\), got shape \(2, 9\)"):
        GlobalAvgPool2d()(np.zeros((2, 9)), ops=ops)


def test_global_average_needs_no_flatten():
    b = Builder((6, 5, 3))
    b.conv("conv1", 4, 3)
    b.global_avgpool()
    b.linear("fc", 7)
    assert b.shape("globalavgpool2d1") == (1, 4) and b.shape() == (1, 7)


@pytest.mark.parametrize("ceil", [True, False])
def test_sizes_of_the_paper(ops, ceil):
    """55, 27, 13, 6: floor and ceil agree on AlexNet's pools."""
    size = 55
    for wanted in (27, 13, 6):
        size = MaxPool2d(3, stride=2, ceil=ceil).plan([(1, size, size, 2)], "float32", ops).out_shape[1]
        assert size == wanted


def test_stride_is_the_window_by_default(ops):
    assert MaxPool2d((2, 3)).plan([(1, 6, 6, 1)], "float32", ops).out_shape == (1, 3, 2, 1)


def test_errors_say_what_was_expected(ops):
    with pytest.raises(ConfigError, match=r"MaxPool2d: .*padding \(2, 2, 2, 2\).* smaller than the window \(2, 2\)"):
        MaxPool2d(2, padding=2)
    with pytest.raises(ConfigError, match=r"window \(16, 16\) has more than 255 pixels"):
        MaxPool2d(16)(np.zeros((1, 20, 20, 1), "float32"), ops=ops)
    with pytest.raises(ConfigError, match="AvgPool2d: count_pad must be True, False or 'padding', got 'all'"):
        AvgPool2d(2, count_pad="all")
    with pytest.raises(ShapeError, match=r"AvgPool2d expects an array \(N, H, W, C\), got shape \(2, 9\)"):
        AvgPool2d(2)(np.zeros((2, 9), "float32"), ops=ops)
    with pytest.raises(ShapeError, match="a window of 3 does not fit into 2"):
        MaxPool2d(3)(np.zeros((1, 2, 2, 1), "float32"), ops=ops)


@settings(max_examples=10)
@given(image=st.tuples(st.integers(1, 6), st.integers(1, 6)), size=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_gradients_of_the_adaptive_average(ops, image, size):
    must_pass(check_layer(AdaptiveAvgPool2d(size), [(2, *image, 2)], ops=ops))


def test_the_adaptive_average_equals_pytorchs(ops, rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 14, 9, 3))
    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), (4, 5))
    assert_close(applied(ops, AdaptiveAvgPool2d((4, 5)), x), wanted.permute(0, 2, 3, 1).numpy(), "elementwise", 9)
