"""Output sizes: those of AlexNet, the ceil rule, and random sizes against counting the windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.errors import ShapeError
from minicnn.shapes import pads4, pair, window_output


def test_alexnet_224_gives_55_by_ceil():
    """Not 227, as often claimed: in the paper's code the last window extends past the edge by three pixels."""
    assert window_output((224, 224), 11, 4, ceil=True) == ((55, 55), (0, 0, 3, 3))
    assert window_output((224, 224), 11, 4) == ((54, 54), (0, 0, 0, 0))
    assert window_output((227, 227), 11, 4) == ((55, 55), (0, 0, 0, 0))
    assert window_output((224, 224), 11, 4, 2)[0] == (55, 55)                    # torchvision


def test_alexnet_pools_give_27_13_6():
    size = (55, 55)
    for wanted in (27, 13, 6):
        size, pads = window_output(size, 3, 2)
        assert (size, pads) == ((wanted, wanted), (0, 0, 0, 0))


def test_same_padding_of_the_other_layers():
    assert window_output((27, 27), 5, 1, 2) == ((27, 27), (2, 2, 2, 2))
    assert window_output((13, 13), 3, 1, 1) == ((13, 13), (1, 1, 1, 1))


def test_ceil_drops_a_window_that_starts_in_the_padding():
    """The rule of Caffe and PyTorch: 4 pixels padded by 1 have windows of 2 at 0 and 3; at 6 there is only padding."""
    assert window_output((4, 4), 2, 3, 1, ceil=True) == ((2, 2), (1, 1, 0, 0))
    assert window_output((6, 6), 3, 2, ceil=True) == ((3, 3), (0, 0, 1, 1))      # as Caffe's CIFAR net: 32 -> 16
    assert window_output((32, 32), 3, 2, ceil=True)[0] == (16, 16)


def test_axes_are_independent():
    assert window_output((7, 10), (3, 4), (2, 3), (1, 0, 0, 2)) == ((3, 3), (1, 0, 0, 0))
    assert window_output((7, 9), (3, 4), (2, 3), (1, 0, 0, 2)) == ((3, 3), (1, 0, 0, 1))


@given(size=st.integers(1, 12), window=st.integers(1, 5), stride=st.integers(1, 5), before=st.integers(0, 4),
       after=st.integers(0, 4), ceil=st.booleans())
def test_every_size_by_counting(size, window, stride, before, after, ceil):
    before, after = min(before, window - 1), min(after, window - 1)      # more would give windows of padding only
    starts = range(0, 40, stride)
    if ceil:        # the last window may extend past the edge by less than a stride; it must start inside the image
        wanted = sum(s + window < before + size + after + stride and s < before + size for s in starts)
    else:
        wanted = sum(s + window <= before + size + after for s in starts)
    if wanted == 0:
        with pytest.raises(ShapeError, match="does not fit"):
            window_output((size, size), window, stride, (before, before, after, after), ceil)
        return
    (P, Q), pads = window_output((size, size), window, stride, (before, before, after, after), ceil)
    assert P == Q == wanted and pads[0] == pads[1] == before and pads[2] == pads[3]
    assert pads[2] == max((P - 1) * stride + window - before - size, 0)          # exactly what the windows need


@pytest.mark.parametrize(("arguments", "message"), [
    (((5, 5), 6, 1), "window of 6 does not fit into 5"),
    (((5, 5), (3, 9), 1, 1), r"window of 9 does not fit into 5 \+ padding 1\+1"),
    (((5, 5), 0, 1), "must be at least 1"),
    (((5, 5), 3, 0), "must be at least 1"),
    (((5, 5), 3, 1, -1), "must not be negative"),
])
def test_invalid_windows_are_rejected(arguments, message):
    with pytest.raises(ShapeError, match=message):
        window_output(*arguments)


def test_shorthands():
    assert pair(3) == (3, 3) and pair((2, 5)) == (2, 5)
    assert pads4(1) == (1, 1, 1, 1) and pads4((1, 2)) == (1, 2, 1, 2) and pads4((1, 2, 3, 4)) == (1, 2, 3, 4)
