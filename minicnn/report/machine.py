"""How the machine runs the network: the memory plan of a training step, its timeline, and what ranks exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicnn.report.run import Run
from minicnn.summary import memory
from minicnn.train.watch.timeline import ROWS, STEPS, WARM, Bar, step_of

MULTIPLY_ADDS = 6e11                # of the steps that are timed: forward and backward, about three passes
GROUPS = {"Conv2d": "conv", "Linear": "linear", "LRN": "norm", "LRNWithin": "norm", "BatchNorm2d": "norm",
          "MaxPool2d": "pool", "AvgPool2d": "pool", "GlobalAvgPool2d": "pool", "AdaptiveAvgPool2d": "pool"}


@dataclass(frozen=True)
class Block:
    """Memory of the plan: from step `birth` to `death`, at `offset`.   kind: "output", "gradient" or "scratch"."""

    name: str
    kind: str
    birth: int
    death: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Memory:
    """batch: images of a step.   arena: bytes in which all blocks lie; separate: bytes without sharing.   steps: of
    the plan, forward and backward; turn: the first backward.   training, inference: bytes of everything.   table: the
    layers as text."""

    batch: int
    arena: int
    separate: int
    steps: int
    blocks: list[Block]
    turn: int
    parameters: int
    training: int
    inference: int
    table: str


def memory_plan(run: Run) -> Memory:
    """The plan of a training step on one rank, with the batch of the recipe."""
    net, batch = run.net, run.recipe.optimiser.batch
    plan = net.compile_plan(batch, [*net.losses, net.output], (), grad=True)
    blocks = {}
    for value in plan.values:
        storage = value.storage
        if not storage.outside and id(storage) not in blocks:
            blocks[id(storage)] = Block(value.name, _kind(value.name, value.dtype), storage.birth, storage.death,
                                        storage.offset, storage.nbytes)
    found = list(blocks.values())
    turn = min((block.birth for block in found if block.kind == "gradient"), default=0)
    return Memory(batch, plan.arena_bytes, sum(block.nbytes for block in found),
                  1 + max(block.death for block in found), found, turn,
                  net.num_params * np.dtype(net.dtype).itemsize, memory(net, batch, train=True),
                  memory(net, batch, train=False), net.summary(batch))


def _kind(name: str, dtype: str) -> str:
    if dtype == "uint8" and "work" in name:
        return "scratch"
    return "gradient" if name.startswith("d ") else "output"


@dataclass(frozen=True)
class Timeline:
    """bars: of the step of median length, out of `steps`.   batch: images in it.   spec: the device."""

    bars: list[Bar]
    batch: int
    spec: str
    steps: int = STEPS

    @property
    def seconds(self) -> float:
        return self.bars[-1].end

    @property
    def groups(self) -> list[str]:
        """The groups that there are, in a fixed order."""
        there = {bar["group"] for row in ROWS for bar in self.lane(row)}
        return [group for group in ("conv", "linear", "norm", "pool", "other", "update") if group in there]

    def lane(self, row: str) -> list[dict]:
        """Bars of one row: name, group, left and width in % of the step, milliseconds."""
        return [{"name": bar.name, "group": GROUPS.get(bar.kind, "update" if row == "update" else "other"),
                 "left": 100 * bar.begin / self.seconds, "width": 100 * (bar.end - bar.begin) / self.seconds,
                 "ms": 1e3 * (bar.end - bar.begin)} for bar in self.bars if bar.row == row]

    def table(self) -> list[dict]:
        """A row per layer: name, milliseconds forward and backward."""
        rows: dict[str, dict] = {}
        for bar in self.bars:
            row = rows.setdefault(bar.name, {"name": bar.name})
            row[bar.row] = row.get(bar.row, 0.0) + 1e3 * (bar.end - bar.begin)
        return list(rows.values())


def timeline(run: Run) -> Timeline:
    """A training step on this machine, on one rank. It changes the weights of the network: to be called last."""
    net, passes = run.net, 3 * (WARM + STEPS)
    batch = int(np.clip(MULTIPLY_ADDS // (passes * run.macs), 1, run.recipe.optimiser.batch))
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1 if run.recipe.preprocess.std else 60, (batch, *net.input_shape)).astype(net.dtype)
    bars = step_of(net, images, rng.integers(0, len(run.classes), batch), run.recipe.optimiser.make(net))
    return Timeline(bars, batch, net.ops.spec)
