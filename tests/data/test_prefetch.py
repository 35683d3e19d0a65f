"""Results computed ahead: in the order of the items, whichever is done first."""

from __future__ import annotations

import threading

import pytest

from minicnn.data.prefetch import prefetched


def test_results_come_in_the_order_of_the_items():
    """The first item is done last: it waits until all others that may be computed ahead are done."""
    others = threading.Barrier(4, timeout=60)

    def square(number: int) -> int:
        if number < 4:                                      # all four at once; the first ends after the others
            others.wait()
            finished.wait(60) if number == 0 else done.append(number)
            if len(done) == 3:
                finished.set()
        return number * number

    done, finished = [], threading.Event()
    assert list(prefetched(square, range(9), workers=4, depth=4)) == [number * number for number in range(9)]


def test_an_exception_comes_at_its_items_turn():
    def halves(number: int) -> float:
        if number == 2:
            raise ValueError("not this one")
        return number / 2

    results = prefetched(halves, range(5), workers=3, depth=3)
    assert [next(results), next(results)] == [0.0, 0.5]
    with pytest.raises(ValueError, match="not this one"):
        next(results)


def test_no_more_are_begun_than_asked_for():
    begun = []
    results = prefetched(lambda number: begun.append(number) or number, range(9), workers=2, depth=3)
    assert next(results) == 0
    results.close()
    assert sorted(begun)[-1] <= 3
