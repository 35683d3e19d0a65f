"""The stored vectors are what PyTorch computes: made again here, by the PyTorch that is installed."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["make_lrn", "make_batchnorm", "make_optimisers",
                                  pytest.param("make_trajectory", marks=pytest.mark.slow)])
def test_pytorch_computes_them(torch, name):
    make = importlib.import_module(f"tests.vectors.{name}")
    found, stored = make.vectors(), np.load(make.FILE)
    assert found.keys() == set(stored)
    for key, array in found.items():
        rtol, atol = (1e-4, 1e-5) if array.dtype == np.float32 else (1e-9, 1e-12)
        np.testing.assert_allclose(array, stored[key], rtol=rtol, atol=atol, err_msg=key)
