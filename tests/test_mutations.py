"""Tests must be able to fail: each mistake in tests/mutations is made on each backend, and must be detected.

Detected by two checks: the gradient check, and the comparison of outputs and gradients with the reference (values).
The emulator of the cuda backend has the second one only: gradient checks take thousands of launches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import pytest

from minicnn.backend.ops import OPS
from minicnn.backend.select import get_ops
from minicnn.gradcheck import check_layer, check_net
from minicnn.gradcheck.cases import fork
from minicnn.gradcheck.functions import LayerFunction
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.combine import Add, Concat, Subsample
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from tests.cuda_emulator.device import is_emulated
from tests.helpers.harness import on_host
from tests.mutations import MUTATIONS


@dataclass
class Layer:
    """A layer on small shapes, under both checks."""

    make: object
    in_shapes: list
    options: dict = field(default_factory=dict)

    def gradient_check(self, ops):
        return check_layer(self.make(), self.in_shapes, ops=ops, **self.options)

    def values(self, ops) -> list[np.ndarray]:
        options = {"train": True, "relu": False, "xs": None, "labels": None} | self.options
        function = LayerFunction(self.make(), self.in_shapes, ops, np.random.default_rng(0), **options)
        y = ops.to_host(function.forward()[0]).copy()
        return [y, *function.gradients(np.random.default_rng(1), []).values()]


class Fork:
    """A network in which values are read by several layers."""

    def net(self, ops):
        net = fork("reference")
        net.ops = ops
        x = np.random.default_rng(0).standard_normal((2, *net.input_shape))
        for param in net.params.values():
            param.data *= 30
        return net, x, np.array([1, 3])

    def gradient_check(self, ops):
        net, x, labels = self.net(ops)
        return check_net(net, x, labels, only=["stem.b"])

    def values(self, ops):
        net, x, labels = self.net(ops)
        net.loss(x, labels)
        return [net.backward(input_grad=True), *(param.grad for param in net.params.values())]


class Values:
    """An operation without gradients: what it writes for fixed inputs."""

    def __init__(self, run):
        self.run = run

    def values(self, ops):
        return self.run(ops, np.random.default_rng(0))


def softmax(ops, rng):
    y = np.empty((3, 4))
    ops.softmax_forward(rng.standard_normal((3, 4)), y)
    return [y]


def written_weights(ops, rng):
    """A gradient that overwrites the previous value."""
    dw = rng.standard_normal((5, 4))
    ops.linear_backward_weights(rng.standard_normal((3, 5)), rng.standard_normal((3, 4)), dw, add=False)
    return [dw]


def lrn_after_relu(ops, rng, pool=None):
    """LRN's backward, with that of the bias and ReLU before; with max pooling both ways."""
    x, db = np.maximum(rng.standard_normal((2, 5, 5, 6)), 0), rng.standard_normal(6)
    constants, dx = {"n": 5, "k": 1.0, "alpha": 1.0, "beta": 0.75, "groups": 2}, np.empty_like(x)
    if pool is None:
        ops.lrn_backward(x, rng.standard_normal(x.shape), dx, db=db, relu=True, **constants)
        return [dx, db]
    y, argmax = np.empty((2, 3, 3, 6)), np.empty((2, 3, 3, 6), np.uint8)
    ops.lrn_maxpool_forward(x, y, argmax, **constants, **pool)
    ops.lrn_maxpool_backward(x, rng.standard_normal(y.shape), argmax, dx, db=db, relu=True, **constants, **pool)
    return [y, argmax, dx, db]


def linear_sgd(ops, rng):
    x, dy, w, v = (rng.standard_normal(shape) for shape in ((3, 5), (3, 4), (5, 4), (5, 4)))
    ops.linear_sgd_step(x, dy, w, v, lr=0.1, momentum=0.9, decay=0.5)
    return [w, v]


def sgd(ops, rng):
    """Three steps, the learning rate lowered in between, and all three terms of similar size."""
    w, v = rng.standard_normal(20), rng.standard_normal(20)
    for lr in (0.1, 0.1, 0.01):
        ops.sgd_step(w, rng.standard_normal(20), v, lr=lr, momentum=0.9, decay=0.5)
    return [w, v]


def sgd_forms(ops, rng):
    """Two steps of each form, all terms of similar size."""
    found = []
    for form in range(8):
        w, v, options = rng.standard_normal(20), rng.standard_normal(20), {"momentum": 0.9, "decay": 0.5}
        for lr in (0.3, 0.1):
            ops.sgd_step(w, rng.standard_normal(20), v, lr=lr, **options, lr_in_velocity=not form & 1,
                         nesterov=bool(form & 2), decoupled=bool(form & 4))
        found += [w, v]
    return found


def rms_limits(ops, rng):
    """Filters above the limit and below it; and all of them after an overflow."""
    w = rng.standard_normal((3, 2, 4, 5)) * (0.01, 1.0, 0.05, 3.0, 0.2)
    after, skipped = w.copy(), w.copy()
    ops.rms_limit_step(after, limit=0.1)
    ops.rms_limit_step(skipped, limit=0.1, loss_scale=np.array([3, 0, 1, 0], np.int32))
    return [after, skipped]


def adam_steps(ops, rng, scale=None):
    """Three steps of Adam and of AdamW, one of them after an overflow where the loss is scaled."""
    found = []
    for decoupled in (False, True):
        w, m, v, counts = rng.standard_normal(20), np.zeros(20), np.zeros(20), np.zeros(3)
        for step in range(3):
            scaled = {} if scale is None else {"loss_scale": np.array([scale, 0, step == 1, 0], np.int32)}
            ops.adam_advance(counts, beta1=0.8, beta2=0.95, **scaled)
            ops.adam_step(w, rng.standard_normal(20), m, v, counts, lr=0.1, beta1=0.8, beta2=0.95, eps=0.1, decay=0.5,
                          decoupled=decoupled, **scaled)
        found += [w, m, v, counts]
    return found


def ema_steps(ops, rng, scale=None):
    """Eight updates, with warm-up and without."""
    found = []
    for warmup in (True, False):
        average, counts = rng.standard_normal(20), np.zeros(2)
        for step in range(8):
            scaled = {} if scale is None else {"loss_scale": np.array([scale, 0, step == 1, 0], np.int32)}
            ops.ema_advance(counts, factor=0.3, warmup=warmup, **scaled)
            ops.ema_step(rng.standard_normal(20), average, counts, **scaled)
        found += [average, counts]
    return found


def scaled_step(ops, rng):
    """Loss and update with a scale of 2^3, and an update after an overflow."""
    probs, labels, dx = rng.random((4, 5)), np.array([1, 0, 4, 2], np.int32), np.empty((4, 5))
    w, v = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    for overflow in (0, 1):
        state = np.array([3, 0, overflow, 0], np.int32)
        ops.softmax_cross_entropy_backward(probs, labels, dx, scale=0.25, loss_scale=state, label_smoothing=0.1)
        ops.sgd_step(w, dx, v, lr=0.1, momentum=0.9, decay=0.5, loss_scale=state)
    return [dx, w, v]


def overflow(ops, rng):
    """The flag after a good array, after each kind of bad one, and after a good one that follows."""
    found = []
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, 18, 36):
            state, dw = np.array([5, 6, 0, 7], np.int32), rng.standard_normal(37)
            for dw[place] in (1.0, bad, 1.0):
                ops.find_overflow(dw, state)
                found.append(state.copy())
    return found


def scales(ops, rng):
    """A scale that rises to its limit, and falls to the other."""
    state, found = np.array([1, 0, 0, 0], np.int32), []
    for step in range(40):
        state[2] = step in (7, 8, 9) or step > 30
        ops.next_loss_scale(state, steady=3, lowest=0, highest=4)
        found.append(state.copy())
    return found


def metrics(ops, rng):
    """Two batches, with many equal scores."""
    counted = np.zeros(4)
    for _ in range(2):
        ops.count_losses(rng.random(70), counted, weight=0.3)
        ops.count_correct(rng.integers(0, 6, (70, 13)).astype(float), rng.integers(0, 13, 70).astype(np.int32), counted)
    return [counted]


def running_statistics(ops, rng):
    mean, var = rng.random(5), rng.random(5)
    ops.batchnorm_update_statistics(rng.standard_normal(5), rng.random(5), mean, var, momentum=0.1, count=12)
    return [mean, var]


def augment(ops, rng):
    images, y = rng.integers(0, 256, (3, 7, 7, 3)).astype(np.uint8), np.empty((3, 4, 4, 3))
    ops.augment_forward(images, y, mean=100 * rng.standard_normal((7, 7, 3)), top=np.array([0, 1, 2], np.int32),
                        left=np.array([3, 2, 0], np.int32), flip=np.array([0, 1, 1], np.uint8),
                        shift=10 * rng.standard_normal((3, 3)))
    return [y]


def resize_crop(ops, rng, border="inside"):
    """Boxes of three images, enlarged, shrunk and both; with a border beyond the images, whose mean is resized, too."""
    beyond = border != "inside"
    sizes = np.array([[8, 8]] * 3 if beyond else [[7, 9], [8, 5], [9, 9]], np.int32)
    ends, y = np.cumsum(3 * sizes.prod(axis=1)).astype(np.int32), np.empty((3, 4, 4, 3))
    ops.resize_crop_forward(
        rng.integers(0, 256, ends[-1]).astype(np.uint8), y, border=border, mean_of_image=beyond,
        mean=100 * rng.standard_normal((8, 8, 3) if beyond else (4, 4, 3)), offsets=np.array([0, *ends[:-1]], np.int32),
        heights=sizes[:, 0].copy(), widths=sizes[:, 1].copy(), top=np.array([0.3, 1.5, 0.7]) - 2 * beyond,
        left=np.array([2.0, 0.25, 1.1]) - 2 * beyond, height=np.array([6.5, 3.0, 8.0]), width=np.array([4.0, 2.5, 7.0]),
        flip=np.array([0, 1, 6], np.uint8), shift=10 * rng.standard_normal((3, 3)))
    return [y]


def cutout(ops, rng):
    y = rng.standard_normal((2, 5, 6, 2))
    top, left, height, width = np.array([[-1, 3], [2, -2], [3, 1], [2, 5]], np.int32)
    ops.cutout_forward(y, top=top, left=left, height=height, width=width)
    return [y]


def ties(shape) -> list[np.ndarray]:
    return [np.random.default_rng(0).integers(0, 2, shape).astype(float)]


PAPER = {"k": 2.0, "alpha": 1e-4, "beta": 0.75}
CASES = {
    "conv": Layer(lambda: Conv2d(3, 4, 3, stride=2, padding=1), [(2, 5, 6, 3)]),
    "conv_groups": Layer(lambda: Conv2d(4, 4, 2, groups=2), [(2, 3, 4, 4)]),
    "conv_depthwise": Layer(lambda: Conv2d(5, 5, 3, stride=2, padding=1, groups=5), [(2, 5, 4, 5)]),
    "conv_relu": Layer(lambda: Conv2d(2, 3, 2), [(2, 4, 4, 2)], {"relu": True}),
    "linear": Layer(lambda: Linear(5, 4), [(3, 5)]),
    "linear_square": Layer(lambda: Linear(4, 4), [(4, 4)]),
    "linear_relu": Layer(lambda: Linear(5, 4), [(3, 5)], {"relu": True}),
    "linear_written": Values(written_weights),
    "relu": Layer(ReLU, [(3, 10)]),
    "clipped_relu": Layer(lambda: ClippedReLU(0.7), [(3, 10)]),
    "leaky_relu": Layer(lambda: LeakyReLU(0.3), [(3, 10)]),
    "tanh": Layer(Tanh, [(3, 10)]),
    "sigmoid": Layer(Sigmoid, [(3, 10)]),
    "gelu": Layer(GELU, [(3, 10)]),
    "maxpool": Layer(lambda: MaxPool2d(3, stride=2), [(2, 7, 7, 2)]),
    "maxpool_ties": Layer(lambda: MaxPool2d(3, stride=2), None, {"xs": ties((2, 7, 7, 2))}),
    "maxpool_negative": Layer(lambda: MaxPool2d(3, stride=2, padding=1), None,
                              {"xs": [-1 - np.random.default_rng(0).random((2, 5, 5, 2))]}),
    "avgpool": Layer(lambda: AvgPool2d(3, stride=2), [(2, 7, 7, 2)]),
    "avgpool_padded": Layer(lambda: AvgPool2d(3, stride=2, padding=1), [(2, 5, 5, 2)]),
    "avgpool_inside": Layer(lambda: AvgPool2d(3, stride=2, padding=1, count_pad=False), [(2, 5, 5, 2)]),
    "avgpool_overhang": Layer(lambda: AvgPool2d(3, stride=2, padding=1, ceil=True, count_pad="padding"),
                              [(2, 4, 4, 2)]),
    "global_avgpool": Layer(GlobalAvgPool2d, [(2, 3, 4, 5)]),
    "adaptive_avgpool": Layer(lambda: AdaptiveAvgPool2d((3, 2)), [(2, 5, 4, 2)]),
    "subsample": Layer(lambda: Subsample(7, before=1), [(2, 5, 4, 3)]),
    "lrn": Layer(lambda: LRN(3, alpha=1.0), [(2, 2, 2, 7)]),
    "lrn_groups": Layer(lambda: LRN(5, alpha=1.0, groups=2), [(2, 2, 2, 8)]),
    "lrn_paper": Layer(lambda: LRN(5, **PAPER), [(2, 2, 2, 8)]),
    "lrn_within": Layer(lambda: LRNWithin(3, alpha=1.0), [(2, 4, 4, 2)]),
    "lrn_within_paper": Layer(lambda: LRNWithin(5, **PAPER), [(2, 4, 4, 2)]),
    "batchnorm": Layer(lambda: BatchNorm2d(3, eps=0.3), [(4, 2, 2, 3)]),
    "batchnorm_relu": Layer(lambda: BatchNorm2d(3), [(4, 2, 2, 3)], {"relu": True}),
    "batchnorm_residual": Layer(lambda: BatchNorm2d(3), [(4, 2, 2, 3)] * 2, {"relu": True}),
    "batchnorm_fixed": Layer(lambda: BatchNorm2d(3, eps=0.3), [(4, 2, 2, 3)], {"train": False}),
    "batchnorm_running": Values(running_statistics),
    "affine": Layer(lambda: Affine(3), [(4, 2, 2, 3)]),
    "affine_relu": Layer(lambda: Affine(3), [(4, 2, 2, 3)], {"relu": True}),
    "dropout": Layer(lambda: Dropout(0.5), [(4, 9)]),
    "dropout_inverted": Layer(lambda: Dropout(0.3, inverted=True), [(4, 9)]),
    "dropout_test": Layer(lambda: Dropout(0.3), [(4, 9)], {"train": False}),
    "concat": Layer(Concat, [(2, 2, 2, 3), (2, 2, 2, 3)]),
    "add": Layer(Add, [(2, 2, 2, 3)] * 3),
    "loss": Layer(lambda: SoftmaxCrossEntropy(0.4), [(4, 5)], {"labels": [1, 0, 4, 2]}),
    "loss_smoothed": Layer(lambda: SoftmaxCrossEntropy(0.4, label_smoothing=0.3), [(4, 5)], {"labels": [1, 0, 4, 2]}),
    "loss_large": Layer(SoftmaxCrossEntropy, None, {"xs": [40 * np.random.default_rng(0).standard_normal((4, 5))]}),
    "fork": Fork(),
    "softmax": Values(softmax),
    "lrn_epilogue": Values(lrn_after_relu),
    "lrn_maxpool": Values(partial(lrn_after_relu, pool={"kernel": (3, 3), "stride": (2, 2), "pads": (1, 1, 1, 1)})),
    "linear_sgd": Values(linear_sgd),
    "sgd": Values(sgd),
    "sgd_forms": Values(sgd_forms),
    "rms_limit": Values(rms_limits),
    "adam": Values(adam_steps),
    "scaled_adam": Values(partial(adam_steps, scale=3)),
    "ema": Values(ema_steps),
    "scaled_ema": Values(partial(ema_steps, scale=3)),
    "scaled_step": Values(scaled_step),
    "overflow": Values(overflow),
    "scales": Values(scales),
    "metrics": Values(metrics),
    "augment": Values(augment),
    "resize_crop": Values(resize_crop),
    "resize_crop_zero": Values(partial(resize_crop, border="zero")),
    "resize_crop_reflect": Values(partial(resize_crop, border="reflect")),
    "cutout": Values(cutout),
}


@cache
def correct_values(case: str) -> list[np.ndarray]:
    return CASES[case].values(get_ops("reference"))


def differ(case: str, ops) -> bool:
    """Whether the values are not the reference's."""
    pairs = zip(CASES[case].values(ops), correct_values(case), strict=True)
    return not all(np.allclose(got, wanted, rtol=1e-10, atol=1e-12) for got, wanted in pairs)


@pytest.mark.parametrize("case", CASES)
def test_the_correct_operations_pass(ops, case):
    ops = on_host(ops)
    assert not differ(case, ops)
    has_gradients = hasattr(CASES[case], "gradient_check") and case != "maxpool_ties"
    if has_gradients and not is_emulated(ops):
        CASES[case].gradient_check(ops).raise_if_failed()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mistake_is_detected(ops, mutation):
    ops = on_host(ops)
    wrong = mutation.apply(ops)
    assert differ(mutation.case, wrong), "the comparison with the reference does not detect it"
    if not mutation.consistent and not is_emulated(ops):
        assert not CASES[mutation.case].gradient_check(wrong).ok, "the gradient check does not detect it"


def test_every_operation_is_mutated():
    mutated = {op for mutation in MUTATIONS for op in mutation.changes}
    no_arrays = {"conv_work", "conv_algorithm", "linear_work"}
    assert mutated == {op for group in OPS.values() for op in group} - no_arrays


def test_names_are_unique():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) == len(set(names)) >= 100
