"""What is seen of a run: lines where there is no terminal."""

from __future__ import annotations

import pytest

from minicnn.train.watch import progress as progress_module
from minicnn.train.watch import stall
from minicnn.train.watch.progress import Progress
from minicnn.train.watch.stall import StallMeter


def test_compiling_is_said_once(capsys):
    progress = Progress("epoch 1/3", 10, 0, 20, batch=32)
    for kernel in ("linear._forward", "lrn._forward"):
        progress.compiling(kernel)
    assert capsys.readouterr().out == "epoch 1/3  compiling kernels, up to a minute\n"
    Progress("epoch 2/3", 10, 0, 10, batch=32, show=False).compiling("lrn._forward")
    assert not capsys.readouterr().out


class Clock:
    """time.perf_counter and a loader, moved by hand."""

    now, waited = 0.0, 0.0

    def __init__(self):
        self.stages = {"disk": 0.0, "decode": 0.0, "copy": 0.0}

    def perf_counter(self):
        return self.now

    def spent(self):
        return dict(self.stages)

    def step(self, seconds, waiting=0.0, **stages):
        self.now += seconds
        self.waited += waiting
        for kind, spent in stages.items():
            self.stages[kind] += spent


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    monkeypatch.setattr(stall, "time", clock)
    return clock


def test_time_left_and_rate(clock, capsys):
    """Ten steps of 128 images an epoch, 30 to come: a step takes 40 s, the first one, which compiles, far longer."""
    bar = Progress("epoch 1/4", 10, 0, 30, batch=128)
    for seconds in (900, 40, 40, 40):
        clock.step(seconds)
        bar.step(loss=2.5)
    *_, line = capsys.readouterr().out.splitlines()
    assert line == "epoch 1/4  step 4/10, loss 2.5000, 3 images/s, 24:00 left"            # 36 steps of 40 s
    assert bar.rate() == 3.2                                                   # 3 * 128 images in 120 s


def test_waiting_for_data_is_shown_with_its_reason(clock, capsys):
    """A quarter of each step is waiting, while the threads decode for 30 s and read the disk for 2 s."""
    bar, meter = Progress("epoch 1/4", 100, 0, 0, batch=128), StallMeter(clock)
    for _ in range(60):
        clock.step(40, waiting=10, decode=30, disk=2)
        bar.step(2.5, meter)
    assert capsys.readouterr().out.splitlines()[-1].endswith("left, 25 % waiting for data (decode)")
    lap = meter.lap()
    assert lap == {"seconds": 2400, "waited_for_data": 600, "data": {"disk": 120, "decode": 1800, "copy": 0}}
    clock.step(40, copy=1)
    bar.step(2.5, meter)
    assert meter.lap() == {"seconds": 40, "waited_for_data": 0, "data": {"disk": 0, "decode": 0, "copy": 1}}
    for _ in range(60):
        clock.step(40, copy=1)
        bar.step(2.5, meter)
    assert capsys.readouterr().out.splitlines()[-1].endswith("left")          # not worth saying any more
