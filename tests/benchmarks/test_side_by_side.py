"""Taking turns, and the interval of a median. Nothing here depends on how fast the machine is."""

import itertools
import math
from collections import Counter

import pytest
import side_by_side
from devices import Gpu, Host
from hypothesis import given
from hypothesis import strategies as st
from side_by_side import compare, in_turns, median_interval, order_of, rounds


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_every_program_comes_first_and_last_equally_often(count):
    names = [f"p{i}" for i in range(count)]
    orders = [order_of(names, i) for i in range(2 * count)]
    assert all(sorted(order) == names for order in orders)
    assert set(Counter(order[0] for order in orders).values()) == {2}
    assert set(Counter(order[-1] for order in orders).values()) == {2}


@pytest.mark.parametrize("count", [3, 4, 5])
def test_no_program_always_follows_the_same_one(count):
    names = [f"p{i}" for i in range(count)]
    follows = {pair for i in range(2 * count) for pair in itertools.pairwise(order_of(names, i))}
    assert all(len({before for before, after in follows if after == name}) > 1 for name in names)


def test_rounds_time_what_they_call(monkeypatch):
    """On a clock of our own: slow takes 3 s a call; quick about 1 ms, and is repeated until its turn is long enough."""
    now, calls = [0.0], Counter()

    def program(name, cost):
        def call():
            now[0] += cost
            calls[name] += 1
        return call

    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(side_by_side.time, "sleep", lambda seconds: None)
    assert (Host.turn, Host.pause, Gpu.turn, Gpu.pause) == (0.02, 0.005, 0.2, 0.0)
    seconds = rounds({"slow": program("slow", 3.0), "quick": program("quick", 2**-10)}, 4)
    assert seconds["slow"] == [3.0] * 4
    assert seconds["quick"] == [2**-10] * 4
    assert calls["slow"] == 4 + 2
    assert calls["quick"] == 4 * math.ceil(side_by_side.TURN * 2**10) + 2
    rounds({"longer": program("longer", 2**-10)}, 4, turn=0.2, pause=0.0)       # as on a GPU
    assert calls["longer"] == 4 * math.ceil(0.2 * 2**10) + 2
    ours, theirs = in_turns(program("ours", 1.0), program("theirs", 2.0), 3)
    assert (ours, theirs) == ([1.0] * 3, [2.0] * 3)
    assert compare(ours, theirs)["ratio"] == 0.5


def test_the_interval_holds_the_median_as_often_as_it_says():
    """Values k and n + 1 - k of n miss the median with chance 2 P(Binomial(n, 1/2) < k); the next ones too often."""
    for n in range(5, 60):
        _, low, high = median_interval(list(range(n)))
        k = low + 1
        assert high == n - k
        misses = [2 * sum(math.comb(n, i) for i in range(j)) / 2**n for j in (k, k + 1)]
        assert misses[0] <= 0.1 < misses[1]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_interval_surrounds_the_median(values):
    median, low, high = median_interval(values)
    assert min(values) <= low <= median <= high <= max(values)
    assert median_interval(values[::-1]) == (median, low, high)
