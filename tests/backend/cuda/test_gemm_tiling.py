"""Every version of the matrix products against the reference, on the emulator and, where there is one, on a GPU; and
how they are cut into tiles and slices."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.cuda import gemm_tiling
from minicnn.backend.cuda.arguments import divisor
from tests.cuda_emulator.build import why_not
from tests.cuda_emulator.device import emulated_ops
from tests.helpers.harness import call, compare, garbage
from tests.kernels.test_conv import LARGE, SMALL, Case

needs_emulator = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")
CASES = {name: SMALL[name] for name in ("two groups", "uneven pads", "stride past the kernel")}
# read in chunks of 16 bytes, with groups and a sum in several slices
CASES["four channels"] = ((3, 13, 15, 8), (3, 2), 16, (1, 2), (1, 0, 1, 2), 2, False)


# for the tensor cores: sums that cycle through all stages, tiles of every width, partial tiles; aligned and not
DEEP = {name: LARGE[name] for name in ("odd channels", "conv2 of AlexNet", "long runs")}
DEEP["256 rows"] = ((3, 11, 12, 16), (3, 3), 64, (1, 1), 1, 1, False)
DEEP["96 columns"] = ((2, 5, 7, 48), (3, 3), 192, (1, 1), 1, 2, False)
DEEP["conv1"] = ((1, 23, 19, 3), (11, 11), 8, (4, 4), 0, 1, False)


@needs_emulator
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("version", gemm_tiling.TILES)
@pytest.mark.parametrize("case", CASES)
def test_convolution_equals_reference(cuda_cache, rng, case, version, dtype):
    if version not in ("v4", "v5") or dtype == "float64":   # those that round: below
        c, ops = Case(rng, dtype, *CASES[case]), emulated_ops(cuda_cache, version)
        c.compare(ops, work=c.work(ops))


@pytest.mark.parametrize(("products", "bits"), [("Tf32", 10), ("Bf16", 7), ("Fp16", 10)])
@pytest.mark.parametrize("case", CASES | DEEP)
def test_tensor_cores_equal_the_reference_within_their_rounding(tensor_cores, reference, rng, case, products, bits):
    """Factors rounded to this many bits: for 10, an error of 2^-11 in each of them, so of about 2^-10 in a term."""
    c, ops = Case(rng, "float32", *(CASES | DEEP)[case]), tensor_cores(products)
    for function, arrays, output in (("conv_forward", (c.x, c.w), c.dy), ("conv_backward_data", (c.dy, c.w), c.x),
                                     ("conv_backward_weights", (c.x, c.dy), c.w)):
        start = np.zeros_like(output)
        got = call(ops, function, *arrays, start, writes=(2,), **c.options)
        wanted = call(reference, function, *arrays, start, writes=(2,), **c.options)
        bound = call(reference, function, *map(np.abs, arrays), start, writes=(2,), **c.options)
        error = np.abs(got - wanted)
        assert (error <= 2**(0.5 - bits) * bound + 1e-6).all(), function
        assert error.max() > 2.0**-bits * bound.mean() / 20, function           # and the factors were rounded


@pytest.fixture
def short_slices(monkeypatch):
    """Sums of 64 terms and more are cut up; the cache of products is cleared before and afterwards."""
    def clear():
        gemm_tiling.conv_shape.cache_clear()
        gemm_tiling.linear_products.cache_clear()

    monkeypatch.setattr(gemm_tiling, "SLICE", 32)
    monkeypatch.setattr(gemm_tiling, "ADDING", 0)
    clear()
    yield
    clear()


@needs_emulator
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_a_sum_in_slices(short_slices, cuda_cache, rng, version):
    """Every pass has several slices here, which are added up with bias, ReLU and the previous value."""
    assert gemm_tiling.linear_products((70, 132), (132, 68), version)["forward"].slices > 1
    c, ops = Case(rng, "float32", *CASES["four channels"]), emulated_ops(cuda_cache, version)
    c.compare(ops, work=c.work(ops))
    test_linear_equals_reference(cuda_cache, rng, version, (70, 132, 68))


def test_a_sum_in_slices_on_tensor_cores(short_slices, tensor_cores, reference, rng):
    shape = gemm_tiling.conv_shape((2, 5, 7, 48), (3, 3, 24, 192), (1, 1), (1, 1, 1, 1), 2)
    assert all(product.slices > 1 for product in shape.products("v5").values())
    test_tensor_cores_equal_the_reference_within_their_rounding(tensor_cores, reference, rng, "96 columns", "Tf32", 10)


def test_slices_and_tiles_of_alexnet():
    """Chosen by the model of an H100: all multiprocessors busy, and no waste where channels fit a width."""
    Product = gemm_tiling.Product
    assert [Product("v5", 9999, N, 64).columns for N in (48, 64, 96, 128, 192, 256, 384, 1000, 4096)] == [
        64, 64, 96, 128, 96, 128, 128, 128, 128]
    assert Product("v5", 9999, 128, 64, packs=False).columns == 64
    assert [Product("v5", M, 64, 64).rows for M in (1, 128, 129, 256, 363, 1200, 93312)] == [
        128, 128, 256, 256, 128, 256, 256]
    for product in (Product("v5", 128, 4096, 9216), Product("v5", 128, 9216, 4096), Product("v5", 1728, 128, 21632, 2),
                    Product("v5", 2304, 384, 21632), Product("v4", 1200, 128, 93312, 2)):
        blocks, at_once = np.prod(product.grid), 132 if product.rows == 256 else 264
        assert blocks / (-(-blocks // at_once) * at_once) > 0.8, product
        assert product.slice % 32 == 0 and (product.slices - 1) * product.slice < product.depth
        assert product.slices * product.slice >= product.depth
    for images in range(1, 200):                            # the work space of a batch serves all smaller ones
        for sizes in (lambda n: ("v5", n, 4096, 9216), lambda n: ("v3", 169 * n, 192, 1728, 2),
                      lambda n: ("v5", 1728, 192, 169 * n, 2)):
            product, larger = Product(*sizes(images)), Product(*sizes(images + 1))
            assert np.prod(product.partial) <= product.most_partial <= larger.most_partial
    assert Product("v5", 93312, 128, 1200, 2).slices == 1 and Product("v3", 0, 5, 7).grid[0] == 0


@pytest.mark.parametrize("by", [1, 2, 3, 5, 7, 11, 13, 27, 55, 96, 227, 2**16 - 1, 2**16, 2**30 + 1, 2**31 - 1])
def test_dividing_by_multiplying(rng, by):
    _, magic, shift = divisor(by)
    multiples = rng.integers(1, (2**31 - 1) // by + 1, 1000) * by       # where the quotient changes
    for n in (*rng.integers(0, 2**31, 1000).tolist(), 0, 2**31 - 1, *multiples.tolist(), *(multiples - 1).tolist()):
        assert (2 * n * magic >> 32) >> shift == n // by
    assert magic < 2**32


@needs_emulator
@pytest.mark.parametrize("shape", [(5, 12, 8), (3, 7, 6), (70, 132, 68)], ids=str)
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_linear_equals_reference(cuda_cache, rng, version, shape):
    (N, I, O), ops = shape, emulated_ops(cuda_cache, version)                                       # noqa: E741
    x, w, b, dy = (rng.standard_normal(s).astype("f4") for s in ((N, I), (I, O), O, (N, O)))
    compare(ops, "linear_forward", x, w, garbage((N, O), "f4"), writes=(2,), kind="sum", terms=I, epilogue=(b, True))
    compare(ops, "linear_backward_data", dy, w, garbage((N, I), "f4"), writes=(2,), kind="sum", terms=O)
    compare(ops, "linear_backward_weights", x, dy, w.copy(), writes=(2,), kind="sum", terms=N)


@pytest.mark.parametrize("products", ["Tf32", "Bf16", "Fp16"])
def test_tensor_cores_multiply_small_integers_exactly(tensor_cores, rng, products):
    """Every fragment is correct: with integers below 2^7 nothing is rounded, so a wrong index is noticed."""
    x, w = (rng.integers(-20, 21, shape).astype("f4") for shape in ((37, 44), (44, 68)))
    y = call(tensor_cores(products), "linear_forward", x, w, np.full((37, 68), np.nan, "f4"), writes=(2,))
    np.testing.assert_array_equal(y, x @ w)


def test_bf16_is_rounded_to_the_nearest(tensor_cores):
    """Ties to the even neighbour, as the hardware does; infinity and NaN stay what they are."""
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9, 3.4e38, np.inf, -np.inf, np.nan], "f4")
    wanted = np.array([1, 1 + 2**-6, 1 + 2**-7, -1, np.inf, np.inf, -np.inf, np.nan], "f4")
    y = call(tensor_cores("Bf16"), "linear_forward", np.ones((1, 1), "f4"), values[None], np.zeros((1, 8), "f4"),
             writes=(2,))
    np.testing.assert_array_equal(y[0], wanted)


def test_fp16_is_rounded_as_in_ieee_754(tensor_cores, rng):
    """NumPy's half floats agree: ties to even, below 2^-14 in steps of 2^-24, infinite from 65,520 on."""
    values = np.concatenate([
        [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, -1 - 2**-12, 65504, 65519.9, 65520, -7e4, 3e38, np.inf,
         -np.inf, np.nan, 2**-14, 2**-24, 2**-25, 1.1 * 2**-25, 1.5 * 2**-24, 2.5 * 2**-24, -3e-6, 0.0, -0.0,
         2**-14 - 2**-26],
        rng.standard_normal(234) * 10.0 ** rng.integers(-8, 6, 234)]).astype("f4")
    y = call(tensor_cores("Fp16"), "linear_forward", np.ones((1, 1), "f4"), values[None],
             np.zeros((1, len(values)), "f4"), writes=(2,))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y[0], values.astype("f2").astype("f4"))
