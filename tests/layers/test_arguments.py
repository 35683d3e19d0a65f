"""What a layer cannot be made with is refused when it is made: what was expected, and what was given."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.errors import ConfigError
from minicnn.layers import (
    LRN,
    Affine,
    AvgPool2d,
    BatchNorm2d,
    ClippedReLU,
    Conv2d,
    Dropout,
    LeakyReLU,
    Linear,
    Local2d,
    LRNWithin,
    MaxPool2d,
    SoftmaxCrossEntropy,
)

NAN, INF = float("nan"), float("inf")
WRONG = {
    "LRN: groups must be at least 1, got -1": lambda: LRN(groups=-1),
    "LRN: groups must be at least 1, got 0": lambda: LRN(groups=0),
    "LRN: groups must be a whole number, got 1.5": lambda: LRN(groups=1.5),
    "LRN: the window n must be a whole number, got 5.0": lambda: LRN(n=5.0),
    "LRN: the window n must be at least 1, got -1": lambda: LRN(n=-1),
    "LRN: the window n must be a whole number, got None": lambda: LRN(n=None),
    "LRN: the window n = 4 must be odd": lambda: LRN(n=4),
    "LRN: alpha must be a finite number, got nan": lambda: LRN(alpha=NAN),
    "LRN: beta must be a finite number, got '0.75'": lambda: LRN(beta="0.75"),
    "LRNWithin: the window n must be a whole number, got 5.0": lambda: LRNWithin(5.0),
    "LRNWithin: k must be a finite number, got inf": lambda: LRNWithin(k=INF),
    "MaxPool2d: kernel must be a whole number, got 2.5": lambda: MaxPool2d(2.5),
    "MaxPool2d: kernel must be a whole number, got 3.0": lambda: MaxPool2d((2, 3.0)),
    "MaxPool2d: kernel must be at least 1, got 0": lambda: MaxPool2d(0),
    r"MaxPool2d: kernel must be one number or \(height, width\), got \(2, 2, 2\)": lambda: MaxPool2d((2, 2, 2)),
    "MaxPool2d: stride must be at least 1, got 0": lambda: MaxPool2d(2, stride=0),
    r"AvgPool2d: stride must be one number or .*, got '2'": lambda: AvgPool2d(2, stride="2"),
    "AvgPool2d: padding must be at least 0, got -1": lambda: AvgPool2d(3, padding=-1),
    r"AvgPool2d: padding must be one number, .*, got \(1, 1, 1\)": lambda: AvgPool2d(3, padding=(1, 1, 1)),
    "Conv2d: in_channels must be a whole number, got 3.0": lambda: Conv2d(3.0, 8, 3),
    "Conv2d: out_channels must be at least 1, got 0": lambda: Conv2d(3, 0, 3),
    "Conv2d: groups must be a whole number, got 1.0": lambda: Conv2d(4, 8, 3, groups=1.0),
    "Conv2d: kernel must be a whole number, got 2.5": lambda: Conv2d(3, 8, 2.5),
    "Conv2d: kernel must be at least 1, got 0": lambda: Conv2d(3, 8, 0),
    "Conv2d: stride must be at least 1, got -2": lambda: Conv2d(3, 8, 3, stride=-2),
    "Conv2d: padding must be a whole number, got 'same'": lambda: Conv2d(3, 8, 3, padding=["same"]),
    "Local2d: in_size must be a whole number, got 8.5": lambda: Local2d(8.5, 3, 8, 3),
    "Local2d: out_channels must be at least 1, got -8": lambda: Local2d(8, 3, -8, 3),
    "Local2d: stride must be a whole number, got None": lambda: Local2d(8, 3, 8, 3, stride=None),
    "Linear: in_features must be at least 1, got 0": lambda: Linear(0, 10),
    "Linear: out_features must be a whole number, got 10.0": lambda: Linear(10, 10.0),
    "Dropout: .* must be a finite number, got '0.5'": lambda: Dropout("0.5"),
    r"Dropout: .* = 1.5 must be in \[0, 1\)": lambda: Dropout(1.5),
    "LeakyReLU: .* must be a finite number, got nan": lambda: LeakyReLU(NAN),
    "ClippedReLU: ceiling must be a finite number, got '6'": lambda: ClippedReLU("6"),
    "BatchNorm2d: channels must be at least 1, got -3": lambda: BatchNorm2d(-3),
    "BatchNorm2d: channels must be a whole number, got 2.5": lambda: BatchNorm2d(2.5),
    "BatchNorm2d: eps must be a finite number, got 'a'": lambda: BatchNorm2d(3, eps="a"),
    "BatchNorm2d: momentum must be a finite number, got None": lambda: BatchNorm2d(3, momentum=None),
    "Affine: channels must be at least 1, got 0": lambda: Affine(0),
    "SoftmaxCrossEntropy: weight must be a finite number, got nan": lambda: SoftmaxCrossEntropy(NAN),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be(message):
    with pytest.raises(ConfigError, match=message):
        WRONG[message]()


def test_whole_numbers_of_numpy_are_whole_numbers():
    layer = MaxPool2d(np.int64(3), stride=np.array([1, 2]), padding=(np.int32(1), 0))
    assert (layer.kernel, layer.stride, layer.padding) == ((3, 3), (1, 2), (1, 0, 1, 0))
    assert all(type(size) is int for size in (*layer.kernel, *layer.stride, *layer.padding))
