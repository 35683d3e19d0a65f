"""The network as blocks in columns and lanes."""

from __future__ import annotations

import pytest

from minicnn.builder import Builder
from minicnn.explore.overview import overview
from minicnn.visualize.units import output_shape
from tests.helpers.small_run import small_net
from tests.models.families import CASES


def test_a_chain():
    found = overview(small_net())
    assert [block.layers for block in found] == [["conv1", "relu1", "norm1"], ["pool1"], ["fc2", "relu2"], ["fc3"]]
    assert [(block.column, block.lane, block.inputs) for block in found] == [
        (0, 0, [-1]), (1, 0, [0]), (2, 0, [1]), (3, 0, [2])]
    assert [block.shape for block in found] == [(10, 10, 8), (4, 4, 8), (32,), (4,)]


def test_branches_and_shortcuts():
    blocks = {block.layers[0]: block for block in overview(CASES["googlenet"].net(device="reference"))}
    assert [blocks[f"inception_3a_{name}"].lane for name in ("1x1", "3x3", "5x5", "pool_proj")] == [0, 1, 2, 3]
    assert (blocks["inception_3a"].lane, len(blocks["inception_3a"].inputs)) == (0, 4)
    blocks = {block.layers[0]: block for block in overview(CASES["resnet18"].net(device="reference"))}
    assert (blocks["conv2_1_conv1"].lane, blocks["conv2_1_sum"].lane) == (1, 0)
    assert blocks["conv2_1_sum"].layers == ["conv2_1_sum", "conv2_1_relu"]


def test_what_others_read_as_well_is_a_block_of_its_own():
    b = Builder((8, 8, 3))
    conv = b.conv("conv", 4, 3, padding=1)
    b.add("sum", [conv, b.relu("relu", input=conv)])
    b.linear("fc", 2, input=b.flatten("flat"))
    b.loss()
    assert [(block.layers, block.inputs) for block in overview(b.net(device="reference"))] == [
        (["conv"], [-1]), (["relu"], [0]), (["sum"], [0, 1]), (["fc"], [2])]


@pytest.mark.parametrize("case", ["vgg-a-bn", "googlenet", "resnet50", "squeezenet"])
def test_no_block_lies_on_another_or_on_a_line(case):
    net = CASES[case].net(device="reference")
    blocks = overview(net)
    cells = {(block.column, block.lane): k for k, block in enumerate(blocks)}
    assert len(cells) == len(blocks)
    for k, block in enumerate(blocks):
        for source in (blocks[j] for j in block.inputs if j >= 0):
            assert source.column < block.column
            between = range(source.column + 1, block.column)
            assert not [column for column in between if (column, source.lane) in cells], (source, block)
        assert output_shape(net, block.layers[-1]) == block.shape, k
    names = [name for block in blocks for name in block.layers]
    assert len(set(names)) == len(names) and net.output in names
