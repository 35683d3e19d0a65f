"""The paper's AlexNet, all of it, on photographs: twenty steps alone and on ranks. Minutes; run with -m slow."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.data.elpv import MissingPackageError
from minicnn.data.source import open_data
from minicnn.models.alexnet import alexnet
from tests.parallel.test_split import compare

COUNT = 8


@pytest.fixture(scope="module")
def photographs():
    """Central crops minus their mean, and labels."""
    try:
        train = open_data("elpv").train
    except MissingPackageError as error:
        pytest.skip(str(error))
    images = np.stack([train.read(i)[16:240, 16:240] for i in range(COUNT)]).astype(np.float64)
    return images - images.mean(axis=0), train.labels[:COUNT].astype(np.int64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_twenty_steps(photographs, scheme, dtype):
    """At a rate that leaves rounding what it is. With 1,000 classes, a millionth more light moves conv1 by 4e-3 of its
    displacement in twenty steps at rate 5e-4, and by a seventh at 0.01; with two classes, whose slopes nearly cancel,
    the ranks' other order of adding up makes 2e-3 even at 1e-4."""
    x, labels = photographs
    compare(lambda: alexnet(dtype=dtype), scheme, 2, x.astype(dtype), labels, 20, lr=5e-5)
