"""The small operations of the GPU benchmark: called on the emulated GPU, and wrong results are detected."""

from __future__ import annotations

import loss_and_dropout
import numpy as np
import pytest
from devices import Host
from loss_and_dropout import functions_of_dropout, functions_of_loss

from tests.cuda_emulator.build import why_not
from tests.cuda_emulator.device import emulated_ops

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_not()), reason=why_not() or "")]


class HostWithCalls(Host):
    """PyTorch's side on the host, which calls instead of capturing."""

    @staticmethod
    def captured(function, times):
        return lambda: [function() for _ in range(times)]


@pytest.fixture
def ops(cuda_cache, monkeypatch):
    monkeypatch.setattr(loss_and_dropout, "WAYS", ("eager",))
    monkeypatch.setattr(loss_and_dropout, "TIMES", 2)
    monkeypatch.setattr(loss_and_dropout, "UNITS", 256)
    monkeypatch.setattr(loss_and_dropout, "BATCH", 64)
    return emulated_ops(cuda_cache, watch=False)


@pytest.mark.parametrize(("functions_of", "launches"), [(functions_of_loss, 4), (functions_of_dropout, 4)])
def test_each_side_is_called(ops, functions_of, launches):
    functions = functions_of(torch, ops, HostWithCalls)
    assert list(functions) == ["ours", "eager"]
    before = ops.device.launches
    functions["ours"]()
    assert ops.device.launches == before + launches and len(functions["eager"]()) == 2


@pytest.mark.parametrize(("name", "functions_of", "complaint"), [
    ("softmax_cross_entropy_backward", functions_of_loss, "softmax: PyTorch, eager, differs"),
    ("dropout_forward", functions_of_dropout, "dropout: ours kept 0")])
def test_wrong_results_are_detected(ops, monkeypatch, name, functions_of, complaint):
    right = getattr(ops, name)

    def wrong(*arrays, **options):
        right(*arrays, **options)
        arrays[-1 if name == "softmax_cross_entropy_backward" else 1][...] *= np.float32(0.9)

    monkeypatch.setattr(ops, name, wrong)
    monkeypatch.setattr(ops, "capture", lambda function: function)          # NumPy's part would not be captured
    with pytest.raises(SystemExit, match=complaint):
        functions_of(torch, ops, HostWithCalls)
