"""The inference benchmark: what other programs compute, and how those that are missing are reported."""

from __future__ import annotations

from types import SimpleNamespace

import bench_inference
import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.interop.write import write


@pytest.fixture
def net():
    b = Builder((6, 5, 3))
    b.conv("conv1", 4, 3)
    b.relu("relu1")
    b.flatten("flat")
    b.linear("fc", 7)
    return b.net(device="cpu")


@pytest.mark.parametrize("peer", bench_inference.RUNTIMES)
def test_a_runtime_computes_our_logits(net, peer, tmp_path):
    pytest.importorskip(peer)
    images = np.random.default_rng(0).standard_normal((2, 6, 5, 3), np.float32)
    write(net, tmp_path / "net.onnx")
    logits = bench_inference.RUNTIMES[peer](tmp_path / "net.onnx", images, 1)
    np.testing.assert_allclose(logits(), net.forward(images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("vectors", [None, "32"])
def test_a_missing_runtime_is_named(net, monkeypatch, capsys, vectors):
    """On the terminal and in the page; the others are measured without it. Shorter vectors leave PyTorch alone."""
    reports = []

    def benchmark(name, title, options, note):
        reports.append((options.peers, note))
        return SimpleNamespace(each_threads=lambda: [], finish=lambda: None)

    if vectors:
        monkeypatch.setenv("MINICNN_VECTOR_BYTES", vectors)
    monkeypatch.setattr("sys.argv", ["bench_inference.py", "--peers", "eager", "openvino", "onnxruntime"])
    monkeypatch.setattr(bench_inference, "find_spec", lambda name: None if name == "openvino" else object())
    monkeypatch.setattr(bench_inference, "our_network", lambda: net)
    monkeypatch.setattr(bench_inference, "Benchmark", benchmark)
    bench_inference.main()
    ((peers, note),) = reports
    assert peers == (["eager"] if vectors else ["eager", "onnxruntime"])
    assert "Without openvino: it is not installed (pip install 'minicnn[judge]')" in note
    assert ("Without onnxruntime: its vectors cannot be limited" in note) is bool(vectors)
    assert "openvino: it is not installed" in capsys.readouterr().out
