"""The locally connected layer: its formula, its gradients, and equality with a convolution for equal kernels."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.errors import ShapeError
from minicnn.gradcheck import check_layer
from minicnn.init import Normal
from minicnn.layers.conv import Conv2d
from minicnn.layers.local import Local2d
from tests.cuda_emulator.device import extent
from tests.helpers.harness import applied
from tests.tolerances import assert_close

SHAPES = [((3, 4), 2, 2, 3, 1, 1), ((5, 4), 2, 3, (2, 3), 2, (0, 1, 1, 0)), ((3, 3), 2, 4, 3, 1, 0),
          ((7, 6), 1, 2, 2, 3, 0)]


def naive(x, w, b, stride, pads):
    """The formula, with one loop per index."""
    (R, S, C, P, Q, K), (N, H, W, _) = w.shape, x.shape
    y = np.zeros((N, P, Q, K))
    for n, p, q, k in np.ndindex(y.shape):
        y[n, p, q, k] = b[p, q, k]
        for r, s, c in np.ndindex(R, S, C):
            h, i = p * stride[0] + r - pads[0], q * stride[1] + s - pads[1]
            if 0 <= h < H and 0 <= i < W:
                y[n, p, q, k] += x[n, h, i, c] * w[r, s, c, p, q, k]
    return y


def made(size, channels, maps, kernel, stride, padding, dtype, rng):
    """A layer with random parameters, and an image for it."""
    layer = Local2d(size, channels, maps, kernel, stride=stride, padding=padding)
    layer.init_params("local", 0, dtype)
    for param in layer.params.values():
        param.data[...] = rng.standard_normal(param.data.shape)
    return layer, rng.standard_normal((2, *size, channels)).astype(dtype)


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_forward_equals_the_formula(config, ops, dtype, rng):
    layer, x = made(*config, dtype, rng)
    w, b = (layer.params[name].data for name in "wb")
    for param in layer.params.values():
        param.data = ops.from_host(param.data)
    y = applied(ops, layer, x)
    assert y.dtype == dtype
    assert_close(y, naive(x.astype(float), w, b, layer.stride, layer.pads), "sum", terms=w[..., 0, 0, 0].size)


@pytest.mark.parametrize("config", SHAPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_gradients(config, relu, ops):
    size, channels, maps, kernel, stride, padding = config
    layer = Local2d(size, channels, maps, kernel, stride=stride, padding=padding)
    check_layer(layer, [(2, *size, channels)], ops=ops, relu=relu, **extent(ops)).raise_if_failed()


def test_it_equals_a_convolution_if_all_positions_have_the_same_kernels(rng):
    local, x = made((5, 5), 3, 4, 3, 1, 1, "float64", rng)
    conv = Conv2d(3, 4, 3, padding=1)
    conv.init_params("conv", 0, "float64")
    local.params["w"].data[...] = conv.params["w"].data[:, :, :, None, None, :]
    local.params["b"].data[...] = conv.params["b"].data
    assert_close(local(x), conv(x), "sum", terms=27)


class Shared(Local2d):
    """Wrong: the gradient of one position is used for all."""

    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, dy, saved, dxs)
        self.params["w"].grad[...] = self.params["w"].grad[:, :, :, :1, :1]


class OffByOne(Local2d):
    """Wrong: dx is shifted by one column to the left."""

    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, dy, saved, dxs)
        dxs[0][:, :, :-1] = dxs[0][:, :, 1:].copy()


@pytest.mark.parametrize("broken", [Shared, OffByOne])
def test_wrong_backward_passes_are_found(broken, ops):
    assert not check_layer(broken((3, 3), 2, 3, 3, padding=1), [(2, 3, 3, 2)], ops=ops, **extent(ops)).ok


def test_another_image_size_is_rejected():
    with pytest.raises(ShapeError, match=r"expects images \(8, 8, 3\), got \(6, 6, 3\)"):
        Local2d((8, 8), 3, 2, 3)(np.zeros((1, 6, 6, 3), np.float32))


def test_how_it_is_initialised():
    assert Local2d((8, 8), 3, 4, 3).initial_values()["w"][0] == Normal(0.01)
    assert Local2d((8, 8), 3, 4, 3, init=Normal(0.5)).initial_values()["w"][0] == Normal(0.5)
