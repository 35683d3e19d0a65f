"""The timeline of a training step: which layer computes when, forward, backward and in the update."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

from minicnn.backend.ops import Ops
from minicnn.train.loss_scale import LossScale
from minicnn.train.optimiser import Optimiser

ROWS = ("forward", "backward", "update")
WARM, STEPS = 2, 5              # steps of warm-up; of the others, the one of median length is returned


class Bar(NamedTuple):
    """A layer, or the update, at work; begin and end in seconds from the begin of the step. row: one of ROWS."""

    name: str
    kind: str
    row: str
    begin: float
    end: float


class HostClock:
    """Time in seconds, on the processor."""

    record_event = staticmethod(time.perf_counter)

    @staticmethod
    def seconds(first, last) -> float:
        return last - first


class GpuClock:
    """Time between two events in a GPU's stream, by its own clock."""

    def __init__(self):
        import cupy

        self.cupy = cupy

    def record_event(self):
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, first, last) -> float:
        last.synchronize()
        return self.cupy.cuda.get_elapsed_time(first, last) / 1e3


def clock_of(ops: Ops):
    """The clock of a backend."""
    return GpuClock() if ops.name == "cuda" else HostClock()


def step_of(net, images, labels, optimiser: Optimiser, clock=None) -> list[Bar]:
    """The step of median length, of some on the same images (N, H, W, C); they change the weights of `net`."""
    clock, marks = clock or clock_of(net.ops), []

    def watched(name: str, kind: str, row: str, function):
        def call(*arguments):
            begin = clock.record_event()
            function(*arguments)
            marks.append((name, kind, row, begin, clock.record_event()))
        return call

    for node in net.nodes:
        if not node.layer.is_view:
            kind = type(node.layer).__name__
            node.layer.forward = watched(node.name, kind, "forward", node.layer.forward)
            node.layer.backward = watched(node.name, kind, "backward", node.layer.backward)
    scale = LossScale(net.ops) if net.ops.needs_loss_scale else None
    update, x = watched("update", type(optimiser).__name__, "update", optimiser.step), net.ops.from_host(images)
    steps = []
    try:
        for _ in range(WARM + STEPS):
            marks.clear()
            net.loss(x, labels)
            net.backward(loss_scale=scale.state if scale else None)
            update(net.ops, scale)
            first = marks[0][3]
            steps.append([Bar(name, kind, row, clock.seconds(first, begin), clock.seconds(first, end))
                          for name, kind, row, begin, end in marks])
    finally:
        for node in net.nodes:
            vars(node.layer).pop("forward", None), vars(node.layer).pop("backward", None)
    middle = statistics.median_low(bars[-1].end for bars in steps[WARM:])
    return next(bars for bars in steps[WARM:] if bars[-1].end == middle)
