"""The network as a small drawing: blocks in columns and lanes, branches side by side.

A block is a layer and those behind it that change each value for itself (ReLU, normalisation): "conv1, bn1, relu1". Its
column is its distance from the image in blocks, over the longest way; its lane is the first of those that it reads, or
where that is taken, the first free one. A lane stays taken as long as a line runs along it, so lines cross no blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from minicnn.layers.combine import Flatten
from minicnn.layers.dropout import Dropout
from minicnn.visualize.units import prediction_plan

PASSED = (Dropout, Flatten)                 # at prediction they change no value


@dataclass
class Block:
    """layers: names, in order.   inputs: the blocks (indices) that it reads; -1 is the image.   shape: of its output
    for one image."""

    layers: list[str]
    inputs: list[int]
    shape: tuple[int, ...]
    column: int = 0
    lane: int = 0


def overview(net) -> list[Block]:
    """The blocks of the prediction, in order. ConfigError for a network with several inputs."""
    blocks, where = _blocks(net)
    readers: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        block.column = 1 + max((blocks[k].column for k in block.inputs if k >= 0), default=-1)
        for k in block.inputs:
            readers.setdefault(k, []).append(number)
    taken: set[tuple[int, int]] = set()
    for number, block in enumerate(blocks):
        wanted = min(blocks[k].lane if k >= 0 else 0 for k in block.inputs)
        last = max((blocks[k].column for k in readers.get(number, ())), default=block.column + 1)
        cells = range(block.column, max(last, block.column + 1))
        block.lane = next(lane for lane in (wanted, *range(len(blocks) + 1))
                          if not taken.intersection((column, lane) for column in cells))
        taken.update((column, block.lane) for column in cells)
    return blocks


def _blocks(net) -> tuple[list[Block], dict[str, int]]:
    """The blocks without their places, and which of them each name belongs to."""
    plan, blocks = prediction_plan(net), []
    nodes = [node for node in net.nodes if node.name in plan.where]
    where = dict.fromkeys(net.inputs, -1)
    shapes = {name: tuple(plan.values[plan.where[name]].shape[1:]) for name in plan.where}
    source = {name: name for name in net.inputs}                    # of what is passed: whose values they are
    for node in nodes:
        source[node.name] = source[node.inputs[0]] if isinstance(node.layer, PASSED) else node.name
    read = [source[name] for node in nodes for name in node.inputs if not isinstance(node.layer, PASSED)]
    for node in nodes:
        if isinstance(node.layer, PASSED):
            continue
        before, shape = source[node.inputs[0]], shapes[node.name]
        alone = len(node.inputs) == 1 and read.count(before) == 1 and shapes[before] == shape
        if alone and _is_elementwise(node.layer) and where[before] >= 0:
            blocks[where[before]].layers.append(node.name)
            where[node.name] = where[before]
        else:
            inputs = list(dict.fromkeys(where[source[name]] for name in node.inputs))
            where[node.name] = len(blocks)
            blocks.append(Block([node.name], inputs, shape))
    return blocks, where


def _is_elementwise(layer) -> bool:
    """Whether it has no weights but those of a channel and reads no neighbours: an activation or a normalisation."""
    return type(layer).__module__.rpartition(".")[2] in ("activation", "batchnorm", "lrn")
