"""The axes of weights, here and elsewhere. Only this file and graph/lower.py know both.

    here: channels-last       convolution (R, S, C/G, K)     fully connected (in, out), with inputs in the order H, W, C
    there: channels-first     convolution (K, C/G, R, S)     fully connected (out, in), with inputs in the order C, H, W

A Turn says how an array of theirs becomes ours: its axes are split, exchanged and merged again. It is written straight
into the network's own array, so that no copy of it is made on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.system.cores import available_cores

Block = tuple[int, int, int]            # (C, H, W) of maps that were flattened
PART, ROWS = 2**20, 64                  # elements, and rows, that are turned at a time


@dataclass(frozen=True)
class Turn:
    """Their array, reshaped to `dims`, with its axes exchanged by `perm`, is ours.   words: for the report."""

    dims: tuple[int, ...]
    perm: tuple[int, ...]
    words: str = ""

    def of(self, array: np.ndarray) -> np.ndarray:
        """Their array in our order of axes, as a view; our shape is that of the parameter."""
        return array.reshape(self.dims).transpose(self.perm)

    def back(self, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Our array as theirs of this shape; a new contiguous array."""
        turned = array.reshape([self.dims[axis] for axis in self.perm]).transpose(np.argsort(self.perm))
        return np.array(turned, order="C").reshape(shape)


def same(shape: Sequence[int]) -> Turn:
    """For arrays that are equal here and there, such as biases."""
    return Turn(tuple(shape), tuple(range(len(shape))))


def conv(shape: Sequence[int]) -> Turn:
    """Their weights (K, C/G, R, S)."""
    return Turn(tuple(shape), (2, 3, 1, 0), "OIHW -> RSCK")


def linear(shape: Sequence[int], block: Block | None = None, transposed: bool = True) -> Turn:
    """Their weights (out, in), or (in, out) if not `transposed`.   block: the maps (C, H, W) that the inputs are."""
    words = ["transposed"] if transposed else []
    if block is None or block[1] * block[2] == 1:
        return Turn(tuple(shape), (1, 0) if transposed else (0, 1), ", ".join(words))
    C, H, W = block
    words.insert(0, f"rows ({C},{H},{W}) CHW -> HWC")
    if transposed:
        return Turn((shape[0], C, H, W), (2, 3, 1, 0), ", ".join(words))
    return Turn((C, H, W, shape[1]), (1, 2, 0, 3), ", ".join(words))


def fill(target: np.ndarray, tensor, turn: Turn | Rows) -> int:
    """Write their tensor into our C-contiguous array; returns how many of its elements are not finite.

    By parts of their first axis, on all cores: the whole is never in memory twice, and what is read, and where it is
    written, stay in the caches.
    """
    if prod(tensor.shape) != target.size:
        raise CheckpointError(f"an array of {'x'.join(map(str, tensor.shape))} does not fit into "
                              f"{'x'.join(map(str, target.shape))}")
    if isinstance(turn, Rows):
        return _put(target, turn.of(tensor.read()))
    ours = target.reshape([turn.dims[axis] for axis in turn.perm])      # a view, since target is contiguous
    if tensor.strides is not None or turn.dims[:1] != tuple(tensor.shape[:1]) or target.size <= PART:
        return _put(ours, turn.of(tensor.read()))
    axis, count = turn.perm.index(0), tensor.shape[0]
    rows = max(1, min(ROWS, PART * count // target.size))
    rest = turn.dims[1:]

    def part(begin: int) -> int:
        end = min(begin + rows, count)
        view = tensor.rows(begin, end).reshape(end - begin, *rest).transpose(turn.perm)
        return _put(ours[(slice(None),) * axis + (slice(begin, end),)], view)

    with ThreadPoolExecutor(available_cores()) as pool:
        return sum(pool.map(part, range(0, count, rows)))


def _put(ours: np.ndarray, view: np.ndarray) -> int:
    np.copyto(ours, view, casting="same_kind")
    return int(view.size - np.count_nonzero(np.isfinite(view)))


@dataclass(frozen=True)
class Rows:
    """Like Turn, for values in an order that no exchange of axes gives: our row i is their row (or column) rows[i]."""

    rows: tuple[int, ...]
    words: str
    transposed: bool = True             # their weights are (out, in)

    def of(self, array: np.ndarray) -> np.ndarray:
        return (array.T if self.transposed and array.ndim == 2 else array)[list(self.rows)]

    def back(self, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        ordered = array[np.argsort(self.rows)]
        return np.array(ordered.T if self.transposed and array.ndim == 2 else ordered, order="C").reshape(shape)


def row_order(blocks: Sequence[Block]) -> np.ndarray:
    """Of flattened maps, one after the other: our feature i is their feature rows[i]."""
    parts, start = [], 0
    for C, H, W in blocks:
        parts.append(start + np.arange(C * H * W).reshape(C, H, W).transpose(1, 2, 0).reshape(-1))
        start += C * H * W
    return np.concatenate(parts)


def blocks_of(net) -> dict[str, tuple[Block, ...]]:
    """Node -> the maps (C, H, W) whose flattened values it has as features, for nodes that have such."""
    shapes, found = shapes_of(net), {}
    for node in net.nodes:
        before = [found.get(name) for name in node.inputs]
        kind, shape = node.layer.kind(), shapes.get(node.inputs[0], ())
        if kind == "Flatten" and len(shape) == 4:
            found[node.name] = ((shape[3], shape[1], shape[2]),) if shape[1] * shape[2] > 1 else None
        elif kind == "Concat" and any(before):
            found[node.name] = tuple(block for name, blocks in zip(node.inputs, before, strict=True)
                                     for block in blocks or ((shapes[name][-1], 1, 1),))
        elif kind not in ("Linear", "SoftmaxCrossEntropy"):
            found[node.name] = before[0]
    return {name: blocks for name, blocks in found.items() if blocks}


def read_blocks(net) -> dict[str, tuple[Block, ...]]:
    """The same of what each node reads."""
    found = blocks_of(net)
    return {node.name: found[node.inputs[0]] for node in net.nodes if node.inputs[0] in found}


def shapes_of(net) -> dict[str, tuple[int, ...]]:
    """Node or input -> shape of its output for one image, (1, H, W, C) or (1, features)."""
    plan = net.compile_plan(1, [node.name for node in net.nodes if not node.layer.is_loss], (), grad=False)
    shapes = {name: (1, *shape) for name, shape in net.inputs.items()}
    return shapes | {name: tuple(plan.values[value].shape) for name, value in plan.where.items()}
