"""Kernels that do the work of several operations in one pass over memory: on the emulator, in several orders of the
threads, they equal the reference, and mistakes that are planted in them are noticed."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.cuda.kinds import lrn
from tests.cuda_emulator.build import EmulatorError, why_not
from tests.cuda_emulator.device import ORDERS, emulated_ops
from tests.helpers.cuda_mistakes import plant
from tests.helpers.harness import compare, garbage

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")
WINDOW = {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 0, 0)}
PAPER = {"n": 5, "k": 2.0, "alpha": 0.1, "beta": 0.75}      # a large alpha: all terms matter
UPDATE = {"lr": 0.1, "momentum": 0.9, "decay": 0.5}
# x (N, H, W, C), the rest of LRN, the window: halves of 1 to 4, groups, windows at and over the border
ACROSS = {
    "as conv1 of AlexNet": ((2, 7, 7, 96), {"groups": 2}, WINDOW),
    "as conv2 of AlexNet": ((1, 5, 7, 256), {"groups": 2}, WINDOW),
    "half 1": ((2, 4, 5, 12), {"n": 3}, {"kernel": (2, 3), "stride": (1, 2), "pads": (1, 1, 0, 1)}),
    "half 3": ((1, 5, 4, 24), {"n": 7, "groups": 3, "beta": 0.5}, {**WINDOW, "pads": (1, 0, 1, 1)}),
    "half 4": ((1, 6, 5, 36), {"n": 9}, {"kernel": (2, 2), "stride": (3, 3), "pads": (0, 0, 0, 0)}),
    "31 quads": ((1, 7, 7, 124), {"n": 9}, WINDOW),
    "two passes": ((2, 5, 4, 7), {"groups": 7}, WINDOW),                    # no multiple of four
}


def sums(rng, ops, shape, more, dtype="float32"):
    """lrn_backward with bias and ReLU, against the reference."""
    x, dy, db = relu_like(rng, shape, dtype), rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape[-1])
    for options in ({"relu": True}, {"relu": False, "add": False}):
        compare(ops, "lrn_backward", x, dy, garbage(shape, dtype), db.astype(dtype), writes=(2, 3), kind="sum",
                terms=x.size // shape[-1], **PAPER | more, **options)
    compare(ops, "lrn_backward", x, dy, garbage(shape, dtype), None, writes=(2,), kind="elementwise", **PAPER | more,
            relu=True)


def relu_like(rng, shape, dtype):
    """Half of it zero, as behind a ReLU; so windows have ties, and the mask matters."""
    return np.maximum(rng.standard_normal(shape), 0).astype(dtype)


def pooled(rng, ops, shape, more, window, dtype="float32"):
    """Both passes of LRN with max pooling, against the reference."""
    x, (N, H, W, C) = relu_like(rng, shape, dtype), shape
    top, left, bottom, right = window["pads"]
    size = tuple((extent - kernel) // stride + 1 for extent, kernel, stride in zip(
        (H + top + bottom, W + left + right), window["kernel"], window["stride"], strict=True))
    y_shape, options = (N, *size, C), PAPER | more | window
    _, argmax = compare(ops, "lrn_maxpool_forward", x, garbage(y_shape, dtype), garbage(y_shape, "u1"), writes=(1, 2),
                        kind="elementwise", **options)
    compare(ops, "lrn_maxpool_forward", x, garbage(y_shape, dtype), None, writes=(1,), kind="elementwise", **options)
    dy, db = rng.standard_normal(y_shape).astype(dtype), rng.standard_normal(C).astype(dtype)
    for last in ({"relu": True}, {"add": False}):
        compare(ops, "lrn_maxpool_backward", x, dy, argmax, garbage(shape, dtype), db, writes=(3, 4), kind="sum",
                terms=N * H * W, **options, **last)
    compare(ops, "lrn_maxpool_backward", x, dy, argmax, garbage(shape, dtype), None, writes=(3,), kind="elementwise",
            **options)


def updated(rng, ops, shape=(37, 70, 68)):
    """The product that is a gradient, with the step of SGD."""
    N, I, O = shape                                                                                 # noqa: E741
    x, dy, w, v = (rng.standard_normal(size).astype("f4") for size in ((N, I), (N, O), (I, O), (I, O)))
    compare(ops, "linear_sgd_step", x, dy, w, v, writes=(2, 3), kind="sum", terms=N, **UPDATE)


@pytest.fixture(params=ORDERS, ids=lambda order: f"order {order}")
def ordered(request, cuda_cache):
    return emulated_ops(cuda_cache, order=request.param)


@pytest.mark.parametrize("case", ACROSS)
def test_lrn_with_bias_relu_and_pooling_equals_the_reference(ordered, rng, case):
    shape, more, window = ACROSS[case]
    sums(rng, ordered, shape, more)
    pooled(rng, ordered, shape, more, window)


@pytest.mark.parametrize("case", ["as conv1 of AlexNet", "31 quads", "half 1"])
def test_a_lane_that_takes_several_steps_keeps_its_channels(ordered, rng, case, monkeypatch):
    """With as few blocks as can be, each takes several pieces of the array, and its sums are still of one channel."""
    monkeypatch.setattr(lrn, "BLOCKS", 1)
    shape, more, window = ACROSS[case]
    shape = (5, *shape[1:])
    sums(rng, ordered, shape, more)
    pooled(rng, ordered, shape, more, window)


def test_in_float64_too(emulated, rng):
    shape, more, window = ACROSS["as conv1 of AlexNet"]
    sums(rng, emulated, shape, more, "float64")
    pooled(rng, emulated, shape, more, window, "float64")


@pytest.mark.parametrize("shape", [(37, 70, 68), (5, 7, 6), (3, 9, 5)], ids=str)
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_the_update_within_a_product_equals_the_reference(cuda_cache, rng, version, shape):
    for order in ORDERS:
        updated(rng, emulated_ops(cuda_cache, version, order=order), shape)


@pytest.mark.parametrize("shape", [(37, 70, 68), (5, 260, 130), (3, 9, 5)], ids=str)
@pytest.mark.parametrize("products", ["Tf32", "Bf16"])
def test_on_tensor_cores_it_is_the_product_and_then_the_step(tensor_cores, rng, products, shape):
    """To the last bit: the gradient that the product would have stored, and sgd_step."""
    (N, I, O), ops = shape, tensor_cores(products)                                                  # noqa: E741
    x, dy, w, v = (ops.from_host(rng.standard_normal(size).astype("f4")) for size in ((N, I), (N, O), (I, O), (I, O)))
    dw, of_step = ops.empty((I, O), "float32"), [ops.from_host(ops.to_host(array).copy()) for array in (w, v)]
    ops.linear_backward_weights(x, dy, dw, add=False)
    ops.sgd_step(of_step[0], dw, of_step[1], **UPDATE)
    before = ops.to_host(w).copy()
    ops.linear_sgd_step(x, dy, w, v, **UPDATE)
    for got, wanted in zip((w, v), of_step, strict=True):
        np.testing.assert_array_equal(ops.to_host(got), ops.to_host(wanted))
    assert not np.array_equal(before, ops.to_host(w))


# ---- planted mistakes: (file, what is written there, what is written instead, who must notice)
MISTAKES = {
    "the mask passes zero": ("lrn", "T(own.v[j] > 0)", "T(own.v[j] >= 0)", "sums"),
    "no barrier before the sums": ("lrn", "sums[warp + lane] = sum;\n  __syncthreads();", "sums[warp + lane] = sum;",
                                   "sums"),
    "sums of halo lanes": ("lrn", "if (lane >= 0 && lane < OWN) sums[warp + lane]",
                           "if (lane < OWN) sums[warp + lane + 1]", "sums"),
    "sums of the next channels": ("lrn", "channels.by - begin % channels + quad", "channels.by + quad", "sums"),
    "sums before the mask": ("lrn", "if (relu) result.v[j] *= T(own.v[j] > 0);\n        sum.v[j] += result.v[j];",
                             "sum.v[j] += result.v[j];\n        if (relu) result.v[j] *= T(own.v[j] > 0);", "sums"),
    "every step begins anew": ("lrn", "first += gridDim.x * BLOCK", "first += gridDim.x * THREADS", "sums"),
    "cells outside count": ("lrn_maxpool", "if (inside) best.take", "best.take", "pooled"),
    "lanes outside do not sum": ("lrn_maxpool", "cell = normalised<HALF>(cell, quad, k, alpha, beta);",
                                 "if (inside) cell = normalised<HALF>(cell, quad, k, alpha, beta);", "pooled"),
    "the last of equal cells": ("lrn_maxpool", "cell.v[j] > value.v[j]", "cell.v[j] >= value.v[j]", "pooled"),
    "gathered from one row too few": ("lrn_maxpool", "p <= last_window(h", "p < last_window(h", "pooled"),
    "columns of the other map": ("lrn_maxpool", "column = pixel % columns", "column = pixel % rows", "pooled"),
    "the weight decay of the new weight": ("linear", "    v = momentum * v - shrink * w - lr * dw;\n    w += v;",
                                           "    w += v;\n    v = momentum * v - shrink * w - lr * dw;", "updated"),
    "w is not stored": ("linear", "sgd(w[row(m) + n], v[row(m) + n], sum);",
                        "T a = w[row(m) + n]; sgd(a, v[row(m) + n], sum);", "updated"),
}
QUICK = ("the mask passes zero", "no barrier before the sums", "the last of equal cells")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
                                  for name in MISTAKES])
def test_planted_mistakes_are_noticed(cuda_cache, monkeypatch, name):
    file, right, wrong, check = MISTAKES[name]
    plant(monkeypatch, file, right, wrong)
    monkeypatch.setattr(lrn, "BLOCKS", 1)
    checks = {"sums": (sums, (5, 7, 7, 124), {"n": 9}), "updated": (updated,),
              "pooled": (pooled, (2, 5, 8, 12), {"n": 3}, ACROSS["half 1"][2])}
    function, *arguments = checks[check]
    with pytest.raises((AssertionError, EmulatorError)):
        function(np.random.default_rng(0), emulated_ops(cuda_cache), *arguments)
