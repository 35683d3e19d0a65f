"""Fully connected layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.backend.select import get_ops
from minicnn.kernels.cpu import linear, product, threads
from tests.helpers import naive
from tests.helpers.harness import call, compare, garbage, numeric_gradient
from tests.tolerances import assert_close

UPDATE = {"lr": 0.1, "momentum": 0.9, "decay": 0.5}
SHAPES = [(1, 1, 1), (1, 37, 5), (3, 7, 6), (67, 129, 131)]         # N, in, out


def arrays(rng, dtype, N, C, K):
    """x, w, b, dy."""
    return (rng.standard_normal(shape).astype(dtype) for shape in ((N, C), (C, K), K, (N, K)))


def test_forward_equals_loops(reference, rng):
    x, w, b, dy = arrays(rng, "float64", 3, 7, 6)
    y = call(reference, "linear_forward", x, w, garbage(dy.shape, "float64"), writes=(2,), epilogue=(b, False))
    assert_close(y, naive.linear(x, w, b), "sum")


def test_backward_equals_differences(reference, rng):
    x, w, _, dy = arrays(rng, "float64", 3, 7, 6)

    def forward():
        return call(reference, "linear_forward", x, w, garbage(dy.shape, "float64"), writes=(2,))

    dx = call(reference, "linear_backward_data", dy, w, garbage(x.shape, "float64"), writes=(2,))
    dw = call(reference, "linear_backward_weights", x, dy, np.ones_like(w), writes=(2,))
    assert_close(dx, numeric_gradient(forward, x, dy), "numeric")
    assert_close(dw - 1, numeric_gradient(forward, w, dy), "numeric")                          # added to the ones


@pytest.mark.parametrize("own_work", [True, False], ids=["own work space", "given work space"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(ops, dtype, rng, shape, own_work):
    N, C, K = shape
    check(ops, dtype, rng, shape, None if own_work else np.full(ops.linear_work((N, C), (C, K), dtype), 255, np.uint8))


def check(ops, dtype, rng, shape, work=None):
    """All three passes on this shape against the reference."""
    (N, C, K), (x, w, b, dy) = shape, arrays(rng, dtype, *shape)
    for epilogue in ((None, False), (None, True), (b, False), (b, True)):
        y = compare(ops, "linear_forward", x, w, garbage(dy.shape, dtype), writes=(2,), kind="sum", terms=C, work=work,
                    epilogue=epilogue)
        assert not epilogue[1] or y.min() >= 0
    compare(ops, "linear_backward_data", dy, w, garbage(x.shape, dtype), writes=(2,), kind="sum", terms=K, work=work)
    compare(ops, "linear_backward_weights", x, dy, w.copy(), writes=(2,), kind="sum", terms=N, work=work)
    compare(ops, "linear_backward_weights", x, dy, garbage(w.shape, dtype), writes=(2,), kind="sum", terms=N, work=work,
            add=False)
    compare(ops, "linear_sgd_step", x, dy, w, rng.standard_normal(w.shape).astype(dtype), writes=(2, 3), kind="sum",
            terms=N, work=work, **UPDATE)


@pytest.fixture(params=[2, 5])
def count(request):
    """This many threads, then as many as before."""
    before = threads.threads()
    threads.set_threads(request.param)
    yield request.param
    threads.set_threads(before)


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 110), st.integers(1, 110)), seed=st.integers(0, 2**32 - 1))
def test_tiles_that_are_not_whole(dtype, shape, seed):
    """Any number of images, inputs and outputs, so that tiles, panels and ranges are partial."""
    check(get_ops("cpu"), dtype, np.random.default_rng(seed), shape)


@pytest.mark.parametrize("vector", product.ROWS)
def test_vectors_of_every_width(monkeypatch, rng, vector):
    """Also those of other machines: LLVM maps them to what this one has."""
    monkeypatch.setattr(product, "vector_bytes", lambda: vector)
    for shape in ((5, 19, 37), (35, 70, 1100)):                          # the second in several blocks of columns
        check(get_ops("cpu"), "float32", rng, shape)


@pytest.mark.parametrize("images", [3, 13])
def test_results_do_not_depend_on_the_number_of_threads(count, rng, images):
    x, w, b, dy = arrays(rng, "float32", images, 300, 1500)
    ops, before = get_ops("cpu"), threads.threads()
    got = []
    for threads_now in (1, before):
        threads.set_threads(threads_now)
        y, dx, dw = np.empty_like(dy), np.empty_like(x), np.empty_like(w)
        ops.linear_forward(x, w, y, epilogue=(b, True))
        ops.linear_backward_data(dy, w, dx)
        ops.linear_backward_weights(x, dy, dw, add=False)
        trained, v = w.copy(), w.copy()
        ops.linear_sgd_step(x, dy, trained, v, **UPDATE)
        got.append((y, dx, dw, trained, v))
    for one, many in zip(*got, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("shape", [(13, 100, 2100), (5, 49, 33), (1, 1, 1)], ids=str)
def test_a_step_within_the_product_has_the_bits_of_two(dtype, rng, shape):
    """More columns than fit the cache at once, and fewer than a vector."""
    x, w, _, dy = arrays(rng, dtype, *shape)
    ops, v, dw = get_ops("cpu"), rng.standard_normal(w.shape).astype(dtype), np.empty_like(w)
    w_once, v_once = w.copy(), v.copy()
    ops.linear_sgd_step(x, dy, w_once, v_once, **UPDATE)
    ops.linear_backward_weights(x, dy, dw, add=False)
    ops.sgd_step(w, dw, v, **UPDATE)
    np.testing.assert_array_equal(w_once, w)
    np.testing.assert_array_equal(v_once, v)


@pytest.mark.parametrize("images", [3, 9])
def test_nan_stays_nan(dtype, rng, images):
    """One of x is in all outputs of its image, one of w in one output of every image, whatever x is there."""
    x, w, b, _ = arrays(rng, dtype, images, 40, 70)
    x[2, 7], w[5, 33], x[:, 5] = np.nan, np.nan, 0
    y = call(get_ops("cpu"), "linear_forward", x, w, np.zeros((images, 70), dtype), writes=(2,), epilogue=(b, True))
    assert np.isnan(y[2]).all() and np.isnan(y[:, 33]).all()
    assert not np.isnan(np.delete(np.delete(y, 2, 0), 33, 1)).any()


@pytest.mark.parametrize("images", [1, 4, 5])
def test_the_work_space_is_enough_for_fewer_images(images):
    """A plan's smaller batches use its work space, also those that are few enough for another algorithm."""
    planned = linear.linear_work((5, 128), (128, 4096), "float32")
    assert linear.linear_work((images, 128), (128, 4096), "float32") <= planned
