"""Activations stored in bf16 on the CPU: every operation rounds its exact result once, to the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from minicnn.backend.cpu import CpuOps
from minicnn.backend.ops import OPS
from minicnn.backend.select import get_ops
from minicnn.backend.stores_bf16 import StoresBf16
from minicnn.kernels.cpu import combine, stored, threads
from minicnn.kernels.cpu.stored import BF16
from minicnn.layers.activation import GELU, LeakyReLU, ReLU
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.layers.combine import Add
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minicnn.train.sgd import SGD
from tests.helpers.bf16 import WITHOUT, Checked, from_bf16, to_bf16
from tests.helpers.small_run import small_net
from tests.test_mutations import CASES, Layer, Values

PRODUCTS = ("conv", "conv_groups", "conv_relu", "fork")         # and "linear...": kernels/cpu/bf16
HAS_NO_ACTIVATIONS = ("sgd", "sgd_forms", "rms_limit", "adam", "scaled_adam", "ema", "scaled_ema", "overflow", "scales",
                      "batchnorm_running", "scaled_step")


def accumulated(ops, rng):
    y = rng.standard_normal((3, 37))
    ops.accumulate(rng.standard_normal((3, 37)), y)
    return [y]


def counted(ops, rng):
    """Scores below 0: their bits are in another order."""
    counts = np.zeros(4)
    ops.count_correct(rng.standard_normal((70, 13)), rng.integers(0, 13, 70).astype(np.int32), counts)
    return [counts]


# Whole vectors and a rest; 64 channels at a time and a rest; more windows around a pixel than are added at a time.
WHOLE = {
    "depthwise": Layer(lambda: Conv2d(19, 19, 3, padding=1, groups=19), [(2, 5, 4, 19)], {"relu": True}),
    "relu": Layer(ReLU, [(3, 37)]),
    "leaky_relu": Layer(lambda: LeakyReLU(0.3), [(3, 37)]),
    "gelu": Layer(GELU, [(3, 37)]),
    "maxpool": Layer(lambda: MaxPool2d(5, stride=1, padding=2), [(2, 7, 6, 19)]),
    "avgpool": Layer(lambda: AvgPool2d(5, stride=1, padding=2), [(2, 7, 6, 19)]),
    "global_avgpool": Layer(GlobalAvgPool2d, [(2, 3, 5, 19)]),
    "adaptive_avgpool": Layer(lambda: AdaptiveAvgPool2d((4, 3)), [(2, 7, 5, 19)]),
    "lrn": Layer(lambda: LRN(5, alpha=1.0, groups=2), [(2, 3, 3, 38)]),
    "lrn_within": Layer(lambda: LRNWithin(3, alpha=1.0), [(2, 4, 5, 7)]),
    "batchnorm": Layer(lambda: BatchNorm2d(83), [(17, 3, 3, 83)] * 2, {"relu": True}),
    "dropout": Layer(lambda: Dropout(0.3, inverted=True), [(3, 301)]),
    "add": Layer(Add, [(2, 2, 3, 19)] * 2),
    "accumulate": Values(accumulated),
    "metrics": Values(counted),
    "loss": Layer(lambda: SoftmaxCrossEntropy(0.4, label_smoothing=0.3), [(4, 37)], {"labels": [1, 0, 36, 2]}),
}
CHECKED = {name: case for name, case in CASES.items()
           if name not in PRODUCTS + HAS_NO_ACTIVATIONS and not name.startswith("linear")}
CHECKED |= {f"{name}, whole vectors": case for name, case in WHOLE.items()}
QUICK = ("relu", "global_avgpool", "add", "loss", "maxpool")     # the others compile for a second or more each


def quick(name: str) -> list:
    return [] if name.partition(",")[0] in QUICK else [pytest.mark.slow]


@pytest.mark.parametrize("case", [pytest.param(name, marks=quick(name)) for name in CHECKED])
def test_every_operation_rounds_its_exact_result_once(case):
    CHECKED[case].values(Checked(get_ops("cpu")))


@pytest.mark.slow
def test_every_operation_with_activations_is_checked():
    checked = Checked(get_ops("cpu"))
    for case in CHECKED.values():
        case.values(checked)
    products = {name for group in ("conv", "linear") for name in OPS[group]}
    left_out = products.union(*WITHOUT.values())
    assert checked.checked | left_out == {name for group in OPS.values() for name in group}


# ---- the rounding itself
def around_every_bf16() -> np.ndarray:
    """float32: every bf16, what lies halfway to the next one, and the neighbours of that. With denormals, Inf, NaN."""
    bits = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    return (bits + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1).view(np.float32)


def rounded(values: np.ndarray, write) -> np.ndarray:
    write(target := np.zeros(values.shape, BF16), values)
    return target


def test_rounds_to_the_nearest_and_back():
    """Ties to even; denormals are no zeros; infinities and NaN stay what they are; from bf16 nothing is rounded."""
    ops, values = StoresBf16(), around_every_bf16()
    np.testing.assert_array_equal(rounded(values, ops.write), to_bf16(values))
    every = np.arange(1 << 16).astype(BF16)
    wide = ops.widened(every)
    np.testing.assert_array_equal(wide.view(np.uint32), every.astype(np.uint32) << 16)
    np.testing.assert_array_equal(rounded(wide, ops.write), np.where(np.isnan(wide), 0x7FFF, every))


def test_vectors_round_like_single_elements():
    values = around_every_bf16()[:-5]
    scaled = rounded(values, lambda target, values: get_ops("cpu").scale_forward(values, target, factor=1))
    np.testing.assert_array_equal(scaled, to_bf16(values))


def cut_off(builder, floats):
    return builder.trunc(builder.lshr(builder.bitcast(floats, stored.INT32), stored.INT32(16)), stored.INT16)


def ties_away_from_zero(builder, floats):
    bits = builder.add(builder.bitcast(floats, stored.INT32), stored.INT32(0x8000))
    return builder.trunc(builder.lshr(bits, stored.INT32(16)), stored.INT16)


def nan_as_a_number(builder, floats):
    bits = builder.bitcast(floats, stored.INT32)
    odd = builder.and_(builder.lshr(bits, stored.INT32(16)), stored.INT32(1))
    nearest = builder.add(bits, builder.add(odd, stored.INT32(0x7FFF)))
    return builder.trunc(builder.lshr(nearest, stored.INT32(16)), stored.INT16)


def without_denormals(builder, floats, right=stored.rounded):
    small = builder.fcmp_ordered("<", builder.fmul(floats, floats), stored.FLOAT(1e-40))
    return builder.select(small, stored.INT16(0), right(builder, floats))


@pytest.mark.parametrize("wrong", [cut_off, ties_away_from_zero, nan_as_a_number, without_denormals])
def test_wrong_roundings_are_noticed(monkeypatch, wrong):
    monkeypatch.setattr(stored, "rounded", wrong)
    kernel = njit(combine._convert.py_func)                     # compiled again, and not kept on disk
    values = around_every_bf16()
    kernel(values, target := np.zeros(values.shape, BF16))
    assert not np.array_equal(target, to_bf16(values))


# ---- planted mistakes: (operation, how it is wrong, the case that must notice)
def truncating(op):
    """An operation whose result, its last array, is cut off instead of rounded."""
    def call(**arrays):
        result = list(arrays)[-1]
        wide = {name: from_bf16(array) for name, array in arrays.items()}
        op(**wide)
        arrays[result][...] = wide[result].view(np.uint32) >> 16
    return call


def summed_in_bf16(op):
    """Each partial sum is rounded."""
    def call(x, y):
        total = np.zeros(y.shape, np.float32)
        for pixel in from_bf16(x).reshape(len(x), -1, x.shape[3]).swapaxes(0, 1):
            total = from_bf16(to_bf16(total + pixel))
        y[...] = to_bf16(total / (x.shape[1] * x.shape[2]))
    return call


def of_integers(op):
    """The bits are compared as they are."""
    def call(x, y):
        y[...] = np.maximum(x, 0)
    return call


MISTAKES = {"cut off": ("global_avgpool_forward", truncating, "global_avgpool"),
            "cut off, backward": ("gelu_backward", truncating, "gelu"),
            "sums in bf16": ("global_avgpool_forward", summed_in_bf16, "global_avgpool"),
            "not widened": ("relu_forward", of_integers, "relu")}


@pytest.mark.parametrize("name", [pytest.param(name, marks=quick(MISTAKES[name][2])) for name in MISTAKES])
def test_planted_mistakes_are_noticed(name):
    op, wrong, case = MISTAKES[name]
    ops = CpuOps()
    setattr(ops, op, wrong(getattr(ops, op)))
    with pytest.raises(AssertionError):
        CHECKED[f"{case}, whole vectors"].values(Checked(ops))


# ---- what is not a number, in place, and again
def test_infinities_and_nan_stay(rng):
    ops, x = get_ops("cpu"), rng.standard_normal((2, 5, 5, 19)).astype(np.float32)
    x[0, 1, 1, ::3], x[0, 3, 3, 1::3], x[1, 1, 2, 2::3] = np.nan, np.inf, -np.inf
    window = {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 0, 0)}
    found = []
    for array in (x, to_bf16(x)):
        y, pooled, mean = np.empty_like(array), np.empty((2, 2, 2, 19), array.dtype), np.empty((2, 19), array.dtype)
        ops.relu_forward(array, y)
        ops.maxpool_forward(array, pooled, None, **window)
        ops.global_avgpool_forward(array, mean)
        found.append([y, pooled, mean])
    for wide, narrow in zip(*found, strict=True):
        for same in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(same(from_bf16(narrow)), same(wide))
        assert np.isnan(wide).any()


def test_in_place_and_again(rng):
    """The same bits; also where two threads share the work, each time anew."""
    ops, (x, dy) = get_ops("cpu"), to_bf16(rng.standard_normal((2, 3, 30011)))
    y, dx = np.empty_like(x), np.empty_like(x)
    ops.relu_forward(x, y), ops.relu_backward(y, dy, dx)
    before = threads.threads()
    try:
        for count in (1, 2, 2):
            threads.set_threads(count)
            there, gradient = x.copy(), dy.copy()
            ops.relu_forward(there, there), ops.relu_backward(there, gradient, gradient)
            np.testing.assert_array_equal(there, y)
            np.testing.assert_array_equal(gradient, dx)
    finally:
        threads.set_threads(before)


# ---- a network
class Stored(StoresBf16, CpuOps):
    """kernels/cpu on activations in bf16; products compute on copies of them in float32."""

    def __init__(self):
        super().__init__("cpu", "minicnn.kernels.cpu")
        for name in (*OPS["conv"][:3], *OPS["linear"][:3]):
            setattr(self, name, self._on_copies(getattr(self, name)))

    def _on_copies(self, op):
        def call(*arrays, **options):
            wide = [self.widened(array) for array in arrays]
            op(*wide, **options)
            if arrays[2].dtype == BF16:
                self.write(arrays[2], wide[2])
        return call


@pytest.mark.slow
def test_a_network_learns_as_in_float32(rng):
    x, labels = rng.standard_normal((4, 24, 24, 3)).astype(np.float32), np.arange(4)
    losses = []
    for ops in (Stored(), get_ops("cpu")):
        net = small_net("reference")
        net.ops = ops
        sgd = SGD(net, lr=0.05, momentum=0.9, decay=5e-4)
        losses.append([])
        for step in range(5):
            losses[-1].append(net.loss(x, labels, sample_ids=np.arange(4, dtype=np.uint32), epoch=step))
            net.backward()
            sgd.step(net.ops)
        plan = net.compile_plan(4, net.loss_outputs(True), (), grad=True)
        assert ("uint16" in {value.dtype for value in plan.values}) == isinstance(ops, Stored)
        assert net.forward(x).dtype == np.float32
        assert all(param.grad.dtype == np.float32 for param in net.params.values())
    np.testing.assert_allclose(*losses, rtol=0.01)
    assert losses[0] != losses[1]
