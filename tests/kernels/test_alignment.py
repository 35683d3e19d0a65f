"""Arrays that begin anywhere: a kernel that takes 16 bytes at a time must look at the address of each array.

Each array of an operation in turn is moved by one element; all would be read in packs if they were aligned. On the
emulator a vector access at another address is an error, as it is on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from minicnn.backend.ops import address
from minicnn.backend.select import get_ops
from minicnn.errors import DeviceError, ShapeError


class A(NamedTuple):
    """An array of an operation."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def draw(self, rng) -> np.ndarray:
        """Random values; integers are 0 or 1, which is an index everywhere."""
        return (rng.integers(0, 2, self.shape) if "int" in self.dtype else rng.random(self.shape)).astype(self.dtype)


WINDOW = {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0)}
COUNTED = {**WINDOW, "counted": (0, 0, 0, 0)}
FILTER = {"stride": (1, 1), "pads": (1, 1, 1, 1), "groups": 1, "work": None}
NORM = {"n": 5, "k": 2.0, "alpha": 0.1, "beta": 0.75, "groups": 1}
DROP = {"rate": 0.5, "scale": 1.0, "seed": 1, "purpose": 2, "epoch": 3, "sample_ids": A((2,), "uint32")}
CROP = {"mean": A((6, 6, 3)), "top": A((2,), "int32"), "left": A((2,), "int32"), "flip": A((2,), "uint8"),
        "shift": A((2, 3))}
MOMENTS = {"mean": A((16,), "float64"), "var": A((16,), "float64"), "sums": A((2, 16), "float64"), "count": 32}
MAP, HALF, CHANNELS, W = A((2, 4, 4, 16)), A((2, 2, 2, 16)), A((16,)), A((3, 3, 16, 16))
INDICES = A((2, 2, 2, 16), "uint8")

# operation: its arrays, its options
CASES = {
    "relu_forward": ([MAP, MAP], {}),
    "relu_backward": ([MAP, MAP, MAP], {}),
    "maxpool_forward": ([MAP, HALF, INDICES], WINDOW),
    "maxpool_backward": ([HALF, INDICES, MAP], WINDOW),
    "avgpool_forward": ([MAP, HALF], COUNTED),
    "avgpool_backward": ([HALF, MAP], COUNTED),
    "global_avgpool_forward": ([MAP, A((2, 16))], {}),
    "global_avgpool_backward": ([A((2, 16)), MAP], {}),
    "lrn_forward": ([MAP, MAP], NORM),
    "lrn_backward": ([MAP, MAP, MAP], NORM),
    "epilogue_backward": ([MAP, CHANNELS], {"y": MAP}),
    "accumulate": ([MAP, MAP], {}),
    "dropout_forward": ([MAP, MAP], DROP),
    "augment_forward": ([A((2, 6, 6, 3), "uint8"), A((2, 4, 4, 3))], CROP),
    "sgd_step": ([MAP, MAP, MAP], {"lr": 0.1, "momentum": 0.9, "decay": 0.5}),
    "conv_forward": ([MAP, W, MAP], {**FILTER, "epilogue": (None, False)}),
    "conv_backward_data": ([MAP, W, MAP], FILTER),
    "conv_backward_weights": ([MAP, MAP, W], FILTER),
    "linear_forward": ([A((4, 16)), A((16, 32)), A((4, 32))], {"epilogue": (None, False), "work": None}),
    "linear_backward_data": ([A((4, 32)), A((16, 32)), A((4, 16))], {"work": None}),
    "linear_backward_weights": ([A((4, 16)), A((4, 32)), A((16, 32))], {"work": None}),
    "affine_forward": ([MAP, CHANNELS, CHANNELS, MAP], {"residual": MAP, "relu": True}),
    "affine_backward_data": ([MAP, MAP, CHANNELS, CHANNELS, MAP], {"relu": True, **MOMENTS}),
}


def placed(array: np.ndarray, elements: int) -> np.ndarray:
    """A copy that begins `elements` elements after a multiple of 256 bytes."""
    memory = np.empty(array.nbytes + 512, np.uint8)
    start = -address(memory) % 256 + elements * array.itemsize
    copy = memory[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def strided(array: np.ndarray, _) -> np.ndarray:
    """A copy whose elements have gaps between them."""
    copy = np.repeat(array, 2, axis=-1)[..., ::2]
    assert not copy.flags.c_contiguous
    return copy


def runner(ops, rng, operation):
    """The arrays of the operation by place or name, and the function that runs it on copies of them, one of which is
    made by `other`."""
    positional, options = CASES[operation]
    fixed = {name: value for name, value in options.items() if not isinstance(value, A)}
    every = dict(enumerate(positional)) | {name: value for name, value in options.items() if isinstance(value, A)}
    arrays = {name: array.draw(rng) for name, array in every.items()}

    def run(moved=None, other=placed) -> list[np.ndarray]:
        given = {name: other(array, 1) if name == moved else placed(array, 0) for name, array in arrays.items()}
        named = {name: given[name] for name in options.keys() & given.keys()}
        getattr(ops, operation)(*(given[place] for place in range(len(positional))), **fixed, **named)
        return list(given.values())

    return arrays, run


@pytest.mark.parametrize("device", ["cpu", "cpu:bf16"])
@pytest.mark.parametrize("operation", CASES)
def test_gaps_between_elements_are_refused_or_heeded(rng, device, operation):
    try:
        ops = get_ops(device)
    except DeviceError as error:
        pytest.skip(str(error))
    arrays, run = runner(ops, rng, operation)
    expected = run()
    for name in arrays:
        try:
            found = run(name, strided)
        except ShapeError as error:
            assert "is not C-contiguous; pass np.ascontiguousarray" in str(error)
            continue
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6, err_msg=f"{operation}: {name}")


@pytest.mark.parametrize("operation", CASES)
def test_any_array_may_begin_anywhere(ops, rng, operation):
    if not isinstance(ops.empty((1,), "uint8"), np.ndarray):
        pytest.skip("where an array of a GPU begins is its allocator's choice")
    arrays, run = runner(ops, rng, operation)
    expected = run()
    assert any(not np.array_equal(was, now) for was, now in zip(arrays.values(), expected, strict=True))
    for name in arrays:
        for got, wanted in zip(run(name), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6, err_msg=f"{operation}: {name} moved")
