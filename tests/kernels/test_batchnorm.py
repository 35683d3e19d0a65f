"""Batch normalisation: loops and differences, every backend against the reference, large means, and its identities."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.kernels.cpu import batchnorm as cpu
from minicnn.kernels.cpu.memory import arrays_in
from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

SHAPES = [(2, 3, 4, 5), (1, 1, 2, 1), (6, 1, 1, 19), (3, 5, 7, 32), (67, 17), (40, 9, 9, 64), (3, 2, 2, 1030)]
EPS = 1e-5


def inputs(rng, shape, dtype) -> dict:
    """x, dy and a residual, and for each channel w, b and running statistics."""
    C = shape[-1]
    arrays = {name: rng.standard_normal(shape) for name in ("x", "dy", "residual")}
    arrays |= {"w": rng.standard_normal(C), "b": rng.standard_normal(C), "dw": rng.standard_normal(C),
               "db": rng.standard_normal(C), "mean": rng.standard_normal(C), "var": 0.1 + rng.random(C)}
    return {name: array.astype(dtype) for name, array in arrays.items()}


def statistics(ops, x) -> dict:
    """mean and var, as options of the other operations."""
    C = x.shape[-1]
    mean, var = call(ops, "batchnorm_statistics", x, garbage(C, "float64"), garbage(C, "float64"), writes=(1, 2))
    return {"mean": mean, "var": var, "eps": EPS}


def close(got, wanted, dtype, terms) -> None:
    """Arrays in float64, computed from others of this type."""
    assert got.dtype == np.float64
    assert_close(got.astype(dtype), wanted, "sum", terms)


@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (5, 2), (1, 2, 1, 1)], ids=str)
def test_training_equals_loops_and_differences(reference, rng, shape):
    a = inputs(rng, shape, "float64")
    x, w, b, dy = a["x"], a["w"], a["b"], a["dy"]

    def forward():
        return call(reference, "affine_forward", x, w, b, garbage(shape, "float64"), writes=(3,),
                    **statistics(reference, x))

    assert_close(forward(), naive.batchnorm(x, w, b, EPS), "elementwise")
    options = statistics(reference, x)
    dw, db, sums = call(reference, "affine_backward_weights", x, dy, w, b, a["dw"], a["db"], None,
                        garbage((2, shape[-1]), "float64"), writes=(4, 5, 7), **options)
    assert_close(dw - a["dw"], numeric_gradient(forward, w, dy), "numeric")                     # added
    assert_close(db - a["db"], numeric_gradient(forward, b, dy), "numeric")
    dx = call(reference, "affine_backward_data", x, dy, w, b, garbage(shape, "float64"), writes=(4,), sums=sums,
              count=x.size // shape[-1], **options)
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics_equal_reference(ops, reference, dtype, rng, shape):
    x, count = (3 * rng.standard_normal(shape) - 1).astype(dtype), int(np.prod(shape[:-1]))
    got, wanted = statistics(ops, x), statistics(reference, x.astype(np.float64))
    close(got["mean"], wanted["mean"], dtype, count)
    close(got["var"], wanted["var"], dtype, 9)
    a = inputs(rng, shape, dtype)
    compare(ops, "batchnorm_update_statistics", wanted["mean"], wanted["var"], a["mean"], a["var"], writes=(2, 3),
            kind="elementwise", momentum=0.3, count=count)
    for name, other in zip(("mean", "var"), call(ops, "batchnorm_fixed_statistics", a["mean"], a["var"], wanted["mean"],
                                                 wanted["var"], writes=(2, 3)), strict=True):
        np.testing.assert_array_equal(other, a[name].astype(np.float64))


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_passes_equal_reference(ops, reference, dtype, rng, shape, relu):
    """With the statistics of the batch and without any, with and without a bias and a residual."""
    a, C, terms = inputs(rng, shape, dtype), shape[-1], int(np.prod(shape[:-1]))
    x, dy, w = a["x"], a["dy"], a["w"]
    out, total = garbage(shape, dtype), garbage((2, C), "float64")
    for residual, b, options in (None, a["b"], statistics(reference, x)), (a["residual"], None, {}):
        y = compare(ops, "affine_forward", x, w, b, out, writes=(3,), kind="sum", residual=residual, relu=relu,
                    **options)
        masked = None if residual is None else y
        dw, db, dz, sums = call(ops, "affine_backward_weights", x, dy, w, b, a["dw"], a["db"], out, total,
                                writes=(4, 5, 6, 7), y=masked, relu=relu, **options)
        exact = [array.astype(np.float64) for array in (x, dy, w, w if b is None else b, a["dw"], a["db"], out)]
        exact[3] = None if b is None else exact[3]
        wanted = call(reference, "affine_backward_weights", *exact, total, writes=(4, 5, 6, 7), relu=relu, **options,
                      y=None if masked is None else masked.astype(np.float64))
        np.testing.assert_array_equal(dz, np.where(y > 0, dy, 0) if relu else dy)
        for got, right in zip((dw, db), wanted[:2], strict=True):
            assert_close(got, right, "sum", terms)
        close(sums, wanted[3], dtype, terms)
        options["relu"] = relu and residual is None
        options |= {"sums": sums, "count": terms} if "mean" in options and terms > 2 else {}
        dx = compare(ops, "affine_backward_data", x, dy, w, b, out, writes=(4,), kind="sum", **options)
        again = call(ops, "affine_backward_data", x, dy, w, b, dy, writes=(1,), **options)
        np.testing.assert_array_equal(again, dx)                                                # dx may be dy


def test_gradients_are_written_and_added_one_by_one(ops, dtype, rng):
    a = inputs(rng, (5, 3), dtype)
    x, dy, w = a["x"], a["dy"], a["w"]
    nothing = np.zeros(3, dtype)
    dw, db = call(ops, "affine_backward_weights", x, dy, w, None, nothing, nothing.copy(), None, None, writes=(4, 5))
    for add in (True, False), (False, True):
        found = call(ops, "affine_backward_weights", x, dy, w, None, a["dw"] if add[0] else garbage(3, dtype),
                     a["db"] if add[1] else garbage(3, dtype), None, None, writes=(4, 5), add=add)
        assert_close(found[0], a["dw"] + dw if add[0] else dw, "elementwise")
        assert_close(found[1], a["db"] + db if add[1] else db, "elementwise")
    alone = call(ops, "affine_backward_weights", x, dy, w, None, nothing, None, None, None, writes=(4,))
    np.testing.assert_array_equal(alone, dw)


def test_dz_may_be_dy(ops, dtype, rng):
    a = inputs(rng, (4, 3, 3, 20), dtype)
    y = np.maximum(a["residual"], 0)
    for relu in (True, False):
        dz, _, _ = call(ops, "affine_backward_weights", a["x"], a["dy"], a["w"], None, a["dw"], a["db"], a["dy"], None,
                        writes=(1, 4, 5), y=y, relu=relu)
        np.testing.assert_array_equal(dz, np.where(y > 0, a["dy"], 0) if relu else a["dy"])


@pytest.mark.parametrize("outlier", [0, -1e4, 1e6], ids="{:g}".format)
def test_large_means_do_not_cancel(ops, dtype, rng, outlier):
    """Values near 10,000 with standard deviation 1, the first rows far away: 1e-5 of the largest value of float64."""
    shape, limit = (20, 12, 12, 18), 1e-5 if dtype == "float32" else 1e-10
    x, dy = (1e4 + rng.standard_normal(shape)).astype(dtype), rng.standard_normal(shape).astype(dtype)
    x.reshape(-1, 18)[:3] += x.dtype.type(outlier)
    w, b, values = np.ones(18, dtype), np.zeros(18, dtype), x.astype(np.float64).reshape(-1, 18)
    options = statistics(ops, x)
    mean, var = values.mean(axis=0), values.var(axis=0)
    np.testing.assert_allclose(options["mean"], mean, rtol=0, atol=limit * np.sqrt(var.min()))
    np.testing.assert_allclose(options["var"], var, rtol=limit)
    hat, g = (values - mean) / np.sqrt(var + EPS), dy.astype(np.float64).reshape(-1, 18)
    dw, db, sums = call(ops, "affine_backward_weights", x, dy, w, b, w * 0, b, None, garbage((2, 18), "float64"),
                        writes=(4, 5, 7), **options)
    found = {
        "y": (call(ops, "affine_forward", x, w, b, garbage(shape, dtype), writes=(3,), **options), hat),
        "dx": (call(ops, "affine_backward_data", x, dy, w, b, garbage(shape, dtype), writes=(4,), sums=sums,
                    count=len(values), **options),
               (g - g.mean(axis=0) - hat * (g * hat).mean(axis=0)) / np.sqrt(var + EPS)),
        "dw": (dw, (g * hat).sum(axis=0)), "db": (db, g.sum(axis=0))}
    for name, (got, wanted) in found.items():
        error = np.abs(got.reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()
        assert error < limit, (name, error)


def test_large_results_are_written_past_the_caches(rng, monkeypatch):
    """The same values, where rows begin at a cache line; elsewhere in the usual way."""
    x, w, y, beside = arrays_in(None, [(shape, np.float32) for shape in ((9, 32), (32,), (9, 32), (289,))])
    x[...], w[...] = rng.standard_normal(x.shape), rng.standard_normal(32)
    cpu.affine_forward(x, w, None, y, relu=True)
    usual = y.copy()
    monkeypatch.setattr(cpu, "STREAMED", 1)
    for out in y, beside[1:].reshape(9, 32):
        out[...] = np.nan
        cpu.affine_forward(x, w, None, out, relu=True)
        np.testing.assert_array_equal(out, usual)


def test_identities_of_the_gradient(ops, rng):
    """sum dx = 0, and sum dx x^ = (w / s) dw eps / (var + eps): the only part along x^ that is left."""
    a, eps = inputs(rng, (4, 3, 5, 7), "float64"), 0.5
    x, dy, w, b = a["x"], a["dy"], a["w"], a["b"]
    options = statistics(ops, x) | {"eps": eps}
    dw, _, sums = call(ops, "affine_backward_weights", x, dy, w, b, a["dw"] * 0, a["db"], None,
                       garbage((2, 7), "float64"), writes=(4, 5, 7), **options)
    dx = call(ops, "affine_backward_data", x, dy, w, b, garbage(x.shape, "float64"), writes=(4,), sums=sums, count=60,
              **options)
    s = np.sqrt(options["var"] + eps)
    along = (dx * (x - options["mean"]) / s).sum(axis=(0, 1, 2))
    assert_close(dx.sum(axis=(0, 1, 2)), np.zeros(7), "sum", 60)
    assert_close(along, w / s * dw * eps / s**2, "sum", 60)


def test_the_running_variance_is_unbiased(ops, dtype, rng):
    """Two implementations that differ in this alone differ by m / (m - 1)."""
    x = rng.standard_normal((3, 2, 2, 5)).astype(dtype)
    options = statistics(ops, x)
    mean, var = call(ops, "batchnorm_update_statistics", options["mean"], options["var"], np.zeros(5, dtype),
                     np.zeros(5, dtype), writes=(2, 3), momentum=1.0, count=12)
    assert_close(mean, options["mean"], "elementwise")
    assert_close(var / options["var"].astype(dtype), np.full(5, 12 / 11), "elementwise")
    assert_close(var, x.astype(np.float64).reshape(12, 5).var(axis=0, ddof=1), "elementwise", 12)
