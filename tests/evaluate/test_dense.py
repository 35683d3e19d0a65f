"""A net applied to larger images: at each position it gives what it gives for that part of the image alone."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.evaluate.dense import dense
from minicnn.init import He
from minicnn.models.alexnet import reduced_alexnet


def small_net(device="cpu"):
    """For images of 12 x 10, moved by 2 pixels from one output to the next."""
    b = Builder((12, 10, 3))
    b.conv("conv1", 8, 3, init=He())
    b.maxpool("pool1", 2)
    b.flatten()
    b.dropout("drop1")
    b.linear("fc1", 16, init=He(), bias_init=0.1)
    b.relu()
    b.linear("fc2", 9, init=He(), bias=False)
    b.tanh()
    b.linear("fc3", 5, init=He())
    b.loss()
    return b.net(device=device, dtype="float64")


def test_equals_the_net_at_every_position(rng):
    net, x = small_net(), rng.standard_normal((2, 18, 14, 3))
    y = dense(net, (18, 14))(x)
    assert y.shape == (2, 4, 3, 5)
    for p, q in np.ndindex(4, 3):
        part = np.ascontiguousarray(x[:, 2 * p:2 * p + 12, 2 * q:2 * q + 10])
        np.testing.assert_allclose(y[:, p, q], net(part), rtol=1e-10, atol=1e-12)


def test_alexnet_at_its_own_size_is_one_position(rng):
    net = reduced_alexnet("authors", device="cpu")
    x = 50 * rng.standard_normal((2, *net.input_shape)).astype("float32")
    wide = dense(net, net.input_shape[:2])
    np.testing.assert_allclose(wide(x)[:, 0, 0], net(x), rtol=1e-4, atol=1e-7)
    assert wide.num_params == net.num_params and not wide.losses


def test_is_a_net_of_its_own(rng):
    """Its weights are copies, it can be described, and the multipliers and frozen layers are kept."""
    net = small_net()
    net.params["fc1.w"].lr_mult = 3.0
    net.freeze("fc1")
    wide = dense(net, 20)
    wide.params["fc1.w"].data[...] = 0
    assert net.params["fc1.w"].data.any() and wide.params["fc1.w"].data.shape == (5, 4, 8, 16)
    assert wide.params["fc1.w"].lr_mult == 3.0 and wide._frozen == {"fc1"}
    again = type(net).from_description(wide.description(), dtype="float64", values=wide.arrays(), device="cpu")
    x = rng.standard_normal((1, 20, 20, 3))
    np.testing.assert_array_equal(again(x), wide(x))


def test_a_global_average_needs_no_conversion(rng):
    b = Builder((8, 8, 3))
    b.conv("conv1", 4, 3, init=He())
    b.global_avgpool()
    b.linear("fc", 5)
    net = b.net(device="cpu", dtype="float64")
    assert dense(net, (11, 9))(rng.standard_normal((2, 11, 9, 3))).shape == (2, 5)


def test_what_cannot_be_converted_is_refused():
    b = Builder((4, 4, 2))
    flat = b.flatten("flat")
    b.linear("fc", 3, input=flat)
    b.concat("joined", [flat, "fc"])
    with pytest.raises(ConfigError, match="layer 'joined' of network 'net' reads flattened maps; only Linear"):
        dense(b.net(device="reference"), 8)
    b = Builder((4, 4, 2))
    b.flatten()
    with pytest.raises(ConfigError, match="network 'net' ends with flattened maps; there is no Linear after them"):
        dense(b.net(device="reference"), 8)
    with pytest.raises(ShapeError, match="layer 'fc1': a window of 5 does not fit into 4"):
        dense(small_net("reference"), (10, 10))
