"""The register tile for vectors of 16, 32 and 64 bytes: LLVM maps each to what this machine has, so all run."""

from __future__ import annotations

import pytest

from minicnn.backend.select import get_ops, make_ops
from minicnn.errors import DeviceError
from minicnn.kernels.cpu import conv, tile
from tests.kernels.test_conv import LARGE, SMALL, Case

TAILS = {name: {**SMALL, **LARGE}[name] for name in ("uneven pads", "groups = C", "odd channels", "conv2 of AlexNet",
                                                     "conv1 of AlexNet", "stride past the kernel")}


@pytest.fixture(params=(16, 32, 64))
def width(request, monkeypatch):
    """Vectors of this many bytes, on any machine."""
    monkeypatch.setattr(tile, "vector_bytes", lambda: request.param)
    conv._weights_plan.cache_clear()
    yield request.param
    conv._weights_plan.cache_clear()


@pytest.mark.parametrize("case", TAILS)
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_every_width_equals_the_reference(width, case, dtype, rng):
    Case(rng, dtype, *TAILS[case]).compare(get_ops("cpu"))


def test_the_width_follows_the_machine_and_can_be_chosen(monkeypatch):
    tile.vector_bytes.cache_clear()
    try:
        monkeypatch.delenv(tile.VECTOR_VARIABLE, raising=False)
        assert tile.vector_bytes() in tile.ROWS
        for asked in ("16", "32", "64"):
            tile.vector_bytes.cache_clear()
            monkeypatch.setenv(tile.VECTOR_VARIABLE, asked)
            assert tile.vector_bytes() == int(asked)
        tile.vector_bytes.cache_clear()
        monkeypatch.setenv(tile.VECTOR_VARIABLE, "24")
        with pytest.raises(DeviceError, match="MINICNN_VECTOR_BYTES must be one of 64, 32, 16, not '24'"):
            tile.vector_bytes()
        for device in ("cpu", "cpu:bf16"):                  # said at once, and not of the first layer that is planned
            with pytest.raises(DeviceError, match="^MINICNN_VECTOR_BYTES must be"):
                make_ops(device)
    finally:
        tile.vector_bytes.cache_clear()


@pytest.mark.parametrize("columns, wanted", [(384, (6, 4)), (128, (6, 4)), (96, (8, 3)), (48, (8, 3)), (32, (12, 2)),
                                             (16, (14, 1)), (5, (14, 1))])
def test_a_tile_wastes_little(monkeypatch, columns, wanted):
    monkeypatch.setattr(tile, "vector_bytes", lambda: 64)
    rows, vectors, lanes = tile.tile_for(columns, 4)
    assert (len(rows), len(vectors), len(lanes)) == (*wanted, 16)
