"""The CPU backend and its pool of threads: its report, its errors, and concurrent callers."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minicnn.backend.cpu import set_threads, thread_report
from minicnn.backend.select import get_ops
from minicnn.errors import DeviceError, ShapeError
from minicnn.kernels.cpu import threads
from minicnn.system.cores import available_cores


@pytest.fixture(autouse=True)
def three_threads():
    """Three threads, then as many as before."""
    before = threads.threads()
    set_threads(3)
    yield
    set_threads(before)


def test_report():
    assert thread_report().startswith(f"3 of {available_cores()} cores, vectors of ")


@pytest.mark.parametrize("count", [0, -1])
def test_a_wrong_number_of_threads_is_refused(count):
    with pytest.raises(DeviceError, match=f"at least 1, got {count}"):
        set_threads(count)


def test_ranges_cover_everything_once():
    for total in (0, 1, 5, 64):
        for cut in (threads.split(total, 4), threads.blocks(total, 7)):
            assert [i for first, last in cut for i in range(first, last)] == list(range(total))


def test_every_task_runs_once():
    seen = []
    threads.run([(i,) for i in range(100)], seen.append)
    assert sorted(seen) == list(range(100))


@pytest.mark.parametrize("bad", range(4))
def test_an_error_in_any_task_reaches_the_caller(bad):
    def body(i):
        if i == bad:
            raise ValueError(f"task {i}")

    with pytest.raises(ValueError, match=f"task {bad}"):
        threads.run([(i,) for i in range(4)], body)
    threads.run([(i,) for i in range(4)], lambda i: None)


def test_a_lane_belongs_to_one_thread_at_a_time():
    lanes, clashes = [[], []], []

    def body(lane, i):
        lane.append(i)
        clashes.extend(lane[1:])
        lane.remove(i)

    threads.run([(i,) for i in range(200)], body, lanes)
    assert not clashes


def test_several_python_threads_get_the_results_of_one(rng):
    ops = get_ops("cpu")
    x, w = rng.standard_normal((6, 20, 20, 8)).astype("f4"), rng.standard_normal((3, 3, 8, 16)).astype("f4")
    dy = rng.standard_normal((6, 20, 20, 16)).astype("f4")
    options = {"stride": (1, 1), "pads": (1, 1, 1, 1)}

    def once(_):
        y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(w)
        ops.conv_forward(x, w, y, **options)
        ops.conv_backward_data(dy, w, dx, **options)
        ops.conv_backward_weights(x, dy, dw, **options)
        return y, dx, dw

    wanted = once(0)
    with ThreadPoolExecutor(4) as callers:
        for got in callers.map(once, range(12)):
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b)


def test_an_array_that_is_not_contiguous_is_refused_and_not_copied(rng):
    x = rng.standard_normal((4, 6)).astype("f4")
    with pytest.raises(ShapeError, match="not C-contiguous"):
        get_ops("cpu").relu_forward(x, np.empty((6, 4), "f4").T)


def test_compilation_is_reported(tmp_path):
    """A kernel of minicnn that is compiled is named; one compiled before, or Numba's own, is not."""
    module = tmp_path / "fresh.py"
    module.write_text("import numba\n\n@numba.njit\ndef twice(x):\n    return 2 * max(x, 1)\n")
    spec = importlib.util.spec_from_file_location("minicnn.fresh", module)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    names = []
    with get_ops("cpu").telling_of_compiling(names.append):
        fresh.twice(3)
        fresh.twice(4)
    fresh.twice(4.0)
    assert names == ["fresh.twice"]
    with get_ops("reference").telling_of_compiling(names.append):
        pass
