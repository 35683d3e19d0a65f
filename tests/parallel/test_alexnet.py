"""The paper's AlexNet, all of it, on photographs: twenty steps alone and on ranks. Minutes; run with -m slow."""

from __future__ import annotations

import pytest

from minicnn.models.alexnet import alexnet
from tests.parallel.test_split import compare


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_twenty_steps(photographs, scheme, dtype):
    """The loss falls from 7.0 to 0.7. With 32 images rounding is not magnified beyond the tolerance: the columns' other
    order of adding up makes 0.5e-3 of conv1's displacement; with 8 images 1e-3, and 4e-3 at five times the rate."""
    x, labels = photographs(32)
    compare(lambda: alexnet(dtype=dtype), scheme, 2, x.astype(dtype), labels, 20, lr=1e-4)
