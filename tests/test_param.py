"""The gradient of a parameter: allocated on first use, zeroed lazily, and overwritten where possible."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.param import Param
from tests.helpers.graphs import gradients, images, same, small


@pytest.fixture
def param():
    return Param("w", np.ones((2, 3), np.float32))


def test_zeroed_gradient_reads_as_zero_in_the_same_array(param):
    grad = param.grad
    grad += 1
    param.zero_grad()
    assert param.grad is grad and not grad.any()
    param.grad += 2
    assert (param.grad == 2).all()


def test_to_fill(param):
    """Accumulate, unless the gradient was zeroed and not read since."""
    array, add = param.grad_to_fill()
    assert add and not array.any()                       # new
    array += 1
    param.zero_grad()
    assert param.grad_to_fill() == (array, False)
    array[...] = 5
    assert param.grad_to_fill() == (array, True)         # a second use of the parameter adds
    assert (param.grad == 5).all()
    param.zero_grad()
    assert not param.grad.any() and param.grad_to_fill()[1]


def test_assignment_keeps_the_array(param):
    grad = param.grad
    param.zero_grad()
    param.grad = np.full((2, 3), 4, np.float32)
    assert param.grad is grad and (grad == 4).all()


def net():
    """Two heads on one input, the auxiliary one for training only."""
    b = Builder((2, 2, 1), name="two heads")
    flat = b.flatten("flat")
    b.linear("side", 3)
    b.loss("side_loss", weight=0.3, train_only=True)
    main = b.linear("main", 3, input=flat)
    b.loss("loss")
    return b.net(device="cpu", dtype="float64", output=main)


def test_layer_that_did_not_run_has_no_gradient():
    """The gradient of an earlier pass is cleared, although nothing has overwritten it."""
    two_heads = net()
    x, labels = images(two_heads, 5)
    two_heads.loss(x, labels)
    two_heads.backward()
    assert two_heads.params["side.w"].grad.any()
    two_heads.loss(x, labels, train=False, grad=True)
    two_heads.backward()
    assert not two_heads.params["side.w"].grad.any() and two_heads.params["main.w"].grad.any()


def test_second_step_does_not_depend_on_the_first():
    one, other = net(), net()
    x, labels = images(one, 5)
    one.loss(-x, labels)
    one.backward()
    for two_heads in (one, other):
        two_heads.loss(x, labels)
        two_heads.backward()
    same(gradients(one), gradients(other))
    one.loss(x, labels)
    one.backward(accumulate=True)
    for name, grad in gradients(other).items():
        np.testing.assert_allclose(one.params[name].grad, 2 * grad, rtol=1e-12)


def test_the_error_for_an_unknown_name_suggests_the_nearest_one():
    net = small("reference")
    for name, near in (("conv1.weight", "conv1.w"), ("conv2.bias", "conv2.b"), ("fc3.W", "fc3.w")):
        with pytest.raises(ConfigError, match=f"no parameter is called '{name}'; did you mean '{near}'"):
            net.params[name]
    assert net.params.get("conv1.weight") is None and "conv1.weight" not in net.params
