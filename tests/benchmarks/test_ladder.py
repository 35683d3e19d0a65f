"""The ladder's benchmark, on the emulated GPU: every rung is called, and a wrong one is detected."""

from __future__ import annotations

import numpy as np
import pytest
from bench_conv import Convolution
from bench_ladder import rungs_of

from minicnn.backend.cuda.gemm_tiling import TILES
from tests.cuda_emulator.build import why_not
from tests.cuda_emulator.device import emulated_ops

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")
SMALL = Convolution("small", 2, 7, 8, 8, 3, padding=1, groups=2)


@pytest.fixture
def rungs(cuda_cache):
    return {version: emulated_ops(cuda_cache, version, watch=False) for version in TILES}


def test_every_rung_is_called(rungs):
    found = {what: (functions, gflop) for what, functions, gflop in rungs_of(rungs, SMALL)}
    assert list(found) == ["forward", "dx", "dw"]
    for functions, gflop in found.values():
        assert list(functions) == ["v1", "v2", "v3", "v4", "ours"]
        assert gflop == 2e-9 * 2 * 7 * 7 * 8 * 9 * 4
        for name, function in functions.items():
            ops = rungs["v5" if name == "ours" else name]
            before = ops.device.launches
            function()
            assert ops.device.launches > before


def test_a_wrong_rung_is_detected(rungs, monkeypatch):
    right = rungs["v3"].conv_forward

    def wrong(x, w, y, **options):
        right(x, w, y, **options)
        y += np.float32(0.5)

    monkeypatch.setattr(rungs["v3"], "conv_forward", wrong)
    with pytest.raises(SystemExit, match="small forward: v3 differs by .* of the largest"):
        list(rungs_of(rungs, SMALL))
