"""Results computed ahead by threads, in order, at most `depth` of them at a time.

Threads and not processes: decoders release the GIL. No thread ever waits for the consumer: each finishes its task, and
the next is submitted when a result is taken, so a consumer that stops early, or Ctrl-C, leaves no thread blocked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from minicnn.system.cores import set_gil_switch_interval


def prefetched(function: Callable, items: Iterable, workers: int, depth: int) -> Iterator:
    """Yields function(item) for each item, in order. An exception in a thread is raised here, at its item's turn."""
    set_gil_switch_interval()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minicnn-data")
    waiting, items = deque(), iter(items)
    try:
        waiting.extend(pool.submit(function, item) for item in islice(items, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
