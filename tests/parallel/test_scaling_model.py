"""The cost model of benchmarks/bench_scaling.py: its bytes agree with the plan, and its limits are as expected."""

from __future__ import annotations

import sys
from math import isnan, prod
from pathlib import Path

import pytest

from minicnn.models.alexnet import alexnet

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from scaling_model import (  # noqa: E402
    CONV,
    CROSSING,
    FC,
    FC8,
    FLOAT,
    MACS,
    SCHEMES,
    WITHIN_HALVES,
    Machine,
    efficiency,
    step,
)

FREE = Machine(1e-3, latency=0.0, bandwidth=1e30, overlap=1.0, sgd=0.0)


def test_the_constants_are_those_of_the_network():
    net = alexnet()
    sizes = {name: param.data.size for name, param in net.params.items()}
    assert sum(size for name, size in sizes.items() if name.startswith("conv")) == CONV
    assert sum(size for name, size in sizes.items() if name.startswith("fc")) == FC
    assert sizes["fc8.w"] + sizes["fc8.b"] == FC8
    plan = net.compile_plan(1, [net.output], (), grad=False)
    macs = {step.node.name: step.macs for step in plan.steps}
    assert sum(macs[f"conv{i}"] for i in range(1, 6)) == pytest.approx(MACS["conv"], rel=1e-3)
    assert macs["fc6"] + macs["fc7"] == pytest.approx(MACS["fc"], rel=2e-3)
    assert macs["fc8"] == pytest.approx(MACS["fc8"], rel=2e-3)
    # the paper's columns exchange half of the input of conv3 at batch 128 (see test_the_papers_columns)
    assert [FLOAT * 128 * CROSSING[point] // 2 for point in ("conv3", "fc6", "fc7", "fc8")] == [
        11_075_584, 2_359_296, 1_048_576, 1_048_576]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_communication_cost_only_computation_counts(scheme):
    assert step(FREE, scheme, 1, 128) == pytest.approx(0.128)
    expected = 1.0 if scheme != "columns" else 1 / (1 + 7 * MACS["fc8"] / sum(MACS.values()))      # fc8 is not split
    assert efficiency(FREE, scheme, 8, 1024) == pytest.approx(expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_slower_messages_cost_more(scheme):
    slow = Machine(1e-3, 1e-3, 1e8, 0.0, 0.0)
    assert step(slow, scheme, 1, 128) == pytest.approx(0.128)
    for n in (2, 4, 8):
        assert step(slow, scheme, n, 128 * n) > step(FREE, scheme, n, 128 * n)
    assert step(Machine(1e-3, 0.0, 1e9, 1.0, 0.0), "data", 2, 1024) < step(Machine(1e-3, 0.0, 1e9, 0.0, 0.0), "data", 2,
                                                                          1024)


def test_more_than_two_columns_communicate_more_and_32_is_the_maximum():
    """The inputs of conv2, conv4 and conv5 are exchanged within each half of the ranks."""
    slow = Machine(0.0, 0.0, 1e8, 0.0, 0.0)
    plan = alexnet().compile_plan(1, ["fc8"], (), grad=False)
    maps = {node.node.name: plan.values[node.xs[0]].shape[1:] for node in plan.steps}
    assert {name: prod(maps[name]) for name in WITHIN_HALVES} == WITHIN_HALVES
    crossing = sum(CROSSING.values())
    two, four = (step(slow, "columns", n, 1) for n in (2, 4))
    assert two == pytest.approx(2 * FLOAT * crossing / 2 / 1e8)
    assert four == pytest.approx(2 * FLOAT * (3 * crossing + sum(WITHIN_HALVES.values())) / 4 / 1e8)
    assert isnan(step(FREE, "columns", 64, 128)) and step(FREE, "columns", 32, 128) < 0.128
