"""Fixtures of all tests: with `ops` a test runs on every backend, with `dtype` in both precisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from minicnn.backend.ops import BACKENDS, get_ops

settings.register_profile("minicnn", derandomize=True, database=None, deadline=None, max_examples=30)
settings.load_profile("minicnn")


@pytest.fixture(scope="session", params=BACKENDS)
def ops(request):
    """The operations of each backend in turn."""
    return get_ops(request.param)


@pytest.fixture(scope="session")
def reference():
    """The specification."""
    return get_ops("reference")


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    return np.random.default_rng(2012)
