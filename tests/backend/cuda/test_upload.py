"""Uploads while the GPU lags behind: streams as queues, run in any order that their events allow."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn.backend.cuda import upload
from minicnn.backend.cuda.upload import BUFFERS, Uploads


class Machine:
    """Two streams and what is queued on them. A step that is ready runs at random, or when a caller waits for it."""

    def __init__(self, seed: int):
        self.chance, self.streams = random.Random(seed), []
        machine = self

        class Stream:
            def __init__(self, non_blocking=False):
                self.queue = []
                machine.streams.append(self)

            def record(self, event=None):
                event = event or Event()
                event.reached = reached = []
                self.queue.append((lambda: True, lambda: reached.append(True)))
                return event

            def wait_event(self, event):                    # for its latest record()
                reached = event.reached
                self.queue.append((lambda: reached, lambda: None))

        class Event:
            def __init__(self, block=False, disable_timing=False):
                self.reached = [True]                       # an event without record() is not waited for

            def record(self, stream):
                stream.record(self)

            def synchronize(self):
                while not self.reached:
                    assert machine.run_one(), "deadlock: nothing can run"

        class Array:
            def __init__(self, shape, dtype):
                self.cells = np.full(shape, 255, dtype)

            def __getitem__(self, part):
                view = Array((0,), "u1")
                view.cells = self.cells[part]
                return view

            def set(self, host, stream):
                stream.queue.append((lambda: True, lambda: np.copyto(self.cells, host)))

        self.compute = Stream()
        self.cupy = SimpleNamespace(empty=Array, cuda=SimpleNamespace(
            Stream=Stream, Event=Event, get_current_stream=lambda: self.compute, alloc_pinned_memory=bytearray))

    def run_one(self) -> bool:
        ready = [stream for stream in self.streams if stream.queue and stream.queue[0][0]()]
        if ready:
            self.chance.choice(ready).queue.pop(0)[1]()
        return bool(ready)


def read_by_the_gpu(seed: int, batches: list[np.ndarray]) -> list[np.ndarray]:
    """What a kernel launched after each upload has read."""
    machine, read = Machine(seed), []
    upload = Uploads(machine.cupy)
    for batch in batches:
        array = upload(batch)
        machine.compute.queue.append((lambda: True, lambda array=array: read.append(array.cells.copy())))
        for _ in range(machine.chance.randrange(6)):
            machine.run_one()
    while machine.run_one():
        pass
    assert not any(stream.queue for stream in machine.streams)
    return read


FLAT = [np.full(8 + i % 3 + 9 * (i == 11), i, "u1") for i in range(20)]                # of sizes that differ
BATCHES = [np.full((3 if i % 7 == 6 else 4, 2), i, "u1") for i in range(20)]        # every seventh is shorter


def is_right(seed: int) -> bool:
    read = read_by_the_gpu(seed, BATCHES)
    return len(read) == len(BATCHES) and all(map(np.array_equal, read, BATCHES))


@pytest.mark.parametrize("seed", range(30))
def test_every_batch_arrives_whatever_runs_first(seed):
    assert is_right(seed)
    assert all(map(np.array_equal, read_by_the_gpu(seed, FLAT), FLAT))


@pytest.mark.parametrize(("old", "new"), [
    ("buffer.used.synchronize()", "pass"), ("stream.wait_event(buffer.copied)", "pass"),
    ("self._last.used.record(stream)", "pass"), ("buffer.copied.record(self._stream)", "buffer.copied.record(stream)")])
def test_each_wait_is_needed(monkeypatch, old, new):
    from pathlib import Path
    text = Path(upload.__file__).read_text()
    assert old in text
    broken = {"__name__": "broken"}
    exec(compile(text.replace(old, new), "broken", "exec"), broken)       # noqa: S102
    monkeypatch.setitem(globals(), "Uploads", broken["Uploads"])
    assert not all(is_right(seed) for seed in range(30))


def test_buffers_are_allocated_once():
    machine = Machine(0)
    allocated, empty = [], machine.cupy.empty
    machine.cupy.empty = lambda *shape: allocated.append(shape) or empty(*shape)
    upload = Uploads(machine.cupy)
    for i in range(10):
        upload(np.full((4, 2), i, "u1"))
    assert len(allocated) == BUFFERS
    upload = Uploads(machine.cupy)
    for i in range(10):
        upload(np.full(100 + 5 * (i % 4), i, "u1"))                 # a buffer of 125 takes all of these
    assert len(allocated) == 2 * BUFFERS
