"""The example with a custom layer and network: a correct layer, a wrong version of it, a network that trains."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from minicnn.gradcheck import check_layer, check_net

PATH = Path(__file__).parents[2] / "examples" / "own_net_and_layer.py"


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("PIL", reason="PIL is not installed")
    spec = importlib.util.spec_from_file_location("own_net_and_layer", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_layer_is_correct_and_its_wrong_version_is_found(example, ops):
    check_layer(example.PReLU(3), [(2, 4, 5, 3)], ops=ops).raise_if_failed()
    report = check_layer(example.Forgetful(3), [(2, 4, 5, 3)], ops=ops)
    assert [row.name for row in report.rows if not row.ok] == ["x"]


def test_gradients_of_the_network(example):
    net = example.own_net(4, device="reference", dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, *net.input_shape))
    check_net(net, x, np.array([0, 3]), coordinates=3, only=("conv1.w", "act1.a", "near.w", "far.w")).raise_if_failed()


@pytest.mark.slow
def test_the_network_learns(example, capsys):
    example.main()
    shares = re.findall(r"test accuracy ([\d.]+)%", capsys.readouterr().out)
    assert len(shares) == 6 and float(shares[-1]) > 80
