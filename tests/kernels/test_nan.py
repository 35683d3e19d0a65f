"""Divergence must be noticed: no operation turns a NaN into a finite value, wherever it is in the input."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.harness import call, garbage

WINDOW = {"kernel": (3, 3), "stride": (2, 2), "pads": (1, 0, 0, 1)}
CONV = {"stride": (1, 1), "pads": (0, 1, 0, 0), "epilogue": (None, True)}
SHAPE = (2, 5, 4, 17)

# operation, variant: extra inputs, shapes of the outputs, options
FORWARDS = {
    "relu_forward": ([], [SHAPE], {}),
    "leaky_relu_forward": ([], [SHAPE], {"slope": 0.3}),
    "clipped_relu_forward": ([], [SHAPE], {"ceiling": 6.0}),
    "tanh_forward": ([], [SHAPE], {}),
    "sigmoid_forward": ([], [SHAPE], {}),
    "gelu_forward": ([], [SHAPE], {}),
    "scale_forward": ([], [SHAPE], {"factor": 0.5}),
    "maxpool_forward": ([], [(2, 2, 2, 17), None], WINDOW),
    "avgpool_forward": ([], [(2, 2, 2, 17)], {**WINDOW, "counted": (0, 0, 0, 0)}),
    "global_avgpool_forward": ([], [(2, 17)], {}),
    "adaptive_avgpool_forward": ([], [(2, 3, 2, 17)], {}),
    "subsample_forward": ([], [(2, 3, 2, 17)], {"stride": (2, 2), "first": 0}),
    "lrn_forward": ([], [SHAPE], {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}),
    "lrn_within_forward": ([], [SHAPE], {"n": 3, "k": 2.0, "alpha": 1e-4, "beta": 0.5}),
    "affine_forward": ([np.full(17, 0.5), np.full(17, 0.1)], [SHAPE], {"relu": True}),
    "conv_forward": ([np.ones((3, 2, 17, 5))], [(2, 3, 4, 5)], CONV),
    "conv_forward, depthwise": ([np.ones((3, 2, 1, 17))], [(2, 3, 4, 17)], {**CONV, "groups": 17}),
}


@pytest.mark.parametrize("everywhere", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("name", FORWARDS)
def test_stays_nan(ops, reference, dtype, rng, name, everywhere):
    inputs, shapes, options = FORWARDS[name]
    inputs = [a.astype(dtype) for a in inputs]
    outputs = [None if shape is None else garbage(shape, dtype) for shape in shapes]
    x = rng.standard_normal(SHAPE).astype(dtype)
    x[... if everywhere else (1, 2, 2, 3)] = np.nan
    name = name.partition(",")[0]
    found, wanted = (np.isnan(call(backend, name, x, *inputs, *outputs, writes=(1 + len(inputs),), **options))
                     for backend in (ops, reference))
    assert wanted.all() if everywhere else 0 < wanted.sum() < wanted.size
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("column", [0, 3, 16])
def test_logits(ops, dtype, rng, column):
    x, labels = rng.standard_normal((3, 17)).astype(dtype), np.zeros(3, np.int32)
    x[1, column] = np.nan
    probs, losses = call(ops, "softmax_cross_entropy_forward", x, labels, garbage(x.shape, dtype), garbage(3, dtype),
                         writes=(2, 3))
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False])
    assert np.isnan(probs[1]).any()


def test_batch_normalisation(ops, dtype, rng):
    """In training, a NaN is in all values of its channel and in no other, forward and backward."""
    x, dy = rng.standard_normal((2, *SHAPE)).astype(dtype)
    w = np.ones(17, dtype)
    x[1, 2, 2, 3] = np.nan
    mean, var = call(ops, "batchnorm_statistics", x, garbage(17, "float64"), garbage(17, "float64"), writes=(1, 2))
    options = {"mean": mean, "var": var, "eps": 1e-5}
    y = call(ops, "affine_forward", x, w, w, garbage(SHAPE, dtype), writes=(3,), relu=True, **options)
    dw, db, sums = call(ops, "affine_backward_weights", x, dy, w, w, w.copy(), w.copy(), None,
                        garbage((2, 17), "float64"), writes=(4, 5, 7), **options)
    dx = call(ops, "affine_backward_data", x, dy, w, w, garbage(SHAPE, dtype), writes=(4,), sums=sums, count=40,
              **options)
    for found in (y, dx, dw, mean, var):
        np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(np.arange(17) == 3, found.shape))
    assert np.isfinite(db).all()


def test_gradients(ops, dtype):
    y, dy = np.ones((1, 37), dtype), np.full((1, 37), np.nan, dtype)
    for name in ("relu_backward", "tanh_backward", "sigmoid_backward"):
        assert np.isnan(call(ops, name, y, dy, garbage(y.shape, dtype), writes=(2,))).all()
    assert np.isnan(call(ops, "epilogue_backward", dy, np.zeros(37, dtype), writes=(1,), y=y)).all()


UPDATES = {"sgd_step": ([np.ones(37)], {"lr": 0.1, "momentum": 0.9, "decay": 0.1}, (0, 2)),
           "sgd_step of PyTorch": ([np.ones(37)], {"lr": 0.1, "momentum": 0.9, "decay": 0.1, "lr_in_velocity": False},
                                   (0, 2)),
           "adam_step": ([np.ones(37), np.ones(37), np.array([1, 0.1, 0.1])],
                         {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1}, (0, 2, 3)),
           "ema_step": ([np.array([1, 0.1])], {}, (1,))}


@pytest.mark.parametrize("name", UPDATES)
def test_updates(ops, dtype, name):
    """A NaN in the gradient, or in the value that is averaged, is one in the weights and in all that is kept."""
    others, options, writes = UPDATES[name]
    others = [a.astype(dtype) if a.size == 37 else a for a in others]
    given, dw = np.ones(37, dtype), np.ones(37, dtype)
    dw[5] = np.nan
    first = [dw, given] if name == "ema_step" else [given, dw]
    written = call(ops, name.split()[0], *first, *others, writes=writes, **options)
    for array in written if isinstance(written, tuple) else (written,):
        np.testing.assert_array_equal(np.isnan(array), np.isnan(dw))
