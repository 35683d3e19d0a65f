"""One pool of threads for everything the CPU backend does.

The work of an operation is cut into ranges (of pixels, lines, images, weights), and every thread takes the next range
until none is left. What runs inside a range is serial, a Numba kernel compiled with nogil. So there is one pool and
not several (OpenMP's, a BLAS's) whose idle threads spin on the cores that the others need; a tile stays in the cache
of the core that filled it; several Python threads may call operations at once; and Numba compiles these kernels
several times faster than `parallel=True` ones.

The pool and its size are state of the whole process: cores are shared by everything in it, so two nets, or several
ranks that are threads, share one pool. `set_threads` changes it for all of them; its first use creates it, with as many
threads as there are cores, and a forked child creates its own.

Which thread takes which range never changes a result. Where ranges are summed (weight gradients, bias gradients), the
partial sums belong to fixed ranges and are added in a fixed order: same thread count, same bits.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue

from minicnn.system.cores import available_cores, set_gil_switch_interval

TOGETHER = 1 << 22          # elements of a range in `together`: long runs of memory, of which there are still many
SMALL = 16384                   # elements that one thread has done before another one is awake
RANGES_PER_THREAD = 4           # more than one, so that faster cores can take ranges of a slower one

_threads = 0                    # how many threads take part, the calling one included; 0: not yet set
_pool: ThreadPoolExecutor | None = None
_setting = threading.RLock()    # ranks that are threads of one process may call set_threads at the same time


def set_threads(count: int | None = None) -> None:
    """Use `count` threads (None: every core this process may run on). What other threads have begun goes on."""
    global _threads, _pool
    with _setting:
        old, chosen = _pool, count or available_cores()
        _pool = ThreadPoolExecutor(chosen - 1, "minicnn") if chosen > 1 else None
        if chosen > 1:
            set_gil_switch_interval()
        _threads = chosen                                   # last: a thread that reads it may use the pool
        if old is not None:
            old.shutdown(wait=False)                        # its threads end when their work is done


def threads() -> int:
    """How many threads take part."""
    if not _threads:
        with _setting:
            if not _threads:
                set_threads()
    return _threads


def _after_fork() -> None:
    """The child of a fork has none of the parent's threads; the next operation makes a new pool."""
    global _threads, _pool, _setting
    _threads, _pool, _setting, _deferred.tasks = 0, None, threading.RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Deferred(threading.local):
    """The ranges that a `together` of this thread has collected so far; None outside of one."""

    tasks: SimpleQueue | None = None


_deferred = _Deferred()


def split(total: int, parts: int) -> list[tuple[int, int]]:
    """range(total) as at most `parts` consecutive ranges (first, last) of nearly equal length, none empty."""
    parts = max(1, min(parts, total))
    return [(total * i // parts, total * (i + 1) // parts) for i in range(parts)]


def blocks(total: int, size: int) -> list[tuple[int, int]]:
    """range(total) as consecutive ranges (first, last) of `size`, the last one shorter."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]


def run(tasks: list, body: Callable, lanes: list | None = None) -> None:
    """Call body(*task) for every task, on all threads; with `lanes`, body(lane, *task).

    A lane is memory that one thread at a time may use; there are at most as many threads as lanes. The first exception
    of a body is raised here.
    """
    workers = min(len(tasks), threads() if lanes is None else min(len(lanes), threads()))
    queue = deque(tasks)

    def work(*lane):
        while True:
            try:
                task = queue.popleft()
            except IndexError:
                return
            body(*lane, *task)

    arguments = [() if lanes is None else (lane,) for lane in (lanes or [None] * workers)[:workers]]
    helpers: list[Future] = []
    try:
        _submit(helpers, work, arguments[1:])
        work(*(arguments[0] if arguments else ()))
    finally:
        queue.clear()                                       # after an exception here: what nobody has begun is left out
        pending = _waited_for(helpers)
    for helper in pending:
        helper.result()


def _submit(helpers: list[Future], work: Callable, arguments: list[tuple]) -> None:
    """Let as many threads of the pool work(*arguments), too; none, where another thread is just changing the pool."""
    pool = _pool
    if pool is not None:
        with contextlib.suppress(RuntimeError):             # it was shut down: this thread does the work
            for extra in arguments:
                helpers.append(pool.submit(work, *extra))


def _waited_for(helpers: list[Future]) -> list[Future]:
    """Those that had begun, and now are done; one that never started found nothing left to do."""
    pending = [helper for helper in helpers if not helper.cancel()]
    wait(pending)
    return pending


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Calls of `parallel_for` inside are run together, so that the threads synchronise once, at the end.

    For operations that do not need each other's results, such as the updates of several arrays. The other threads begin
    while this one still collects.
    """
    if _deferred.tasks is not None or threads() == 1:
        yield
        return
    _deferred.tasks = tasks = SimpleQueue()

    def work():
        while (task := tasks.get()) is not None:
            kernel, first, last, arguments = task
            kernel(first, last, *arguments)
        tasks.put(None)                                     # the end, for the next thread

    helpers: list[Future] = []
    try:
        _submit(helpers, work, [()] * (threads() - 1))
        yield
        _deferred.tasks = None
        tasks.put(None)
        work()
    except BaseException:
        with contextlib.suppress(Empty):                    # what nobody has begun is left out
            while True:
                tasks.get_nowait()
        raise
    finally:
        _deferred.tasks = None
        tasks.put(None)
        pending = _waited_for(helpers)
    for helper in pending:
        helper.result()


def parallel_for(total: int, cost: int, kernel: Callable, *arguments) -> None:
    """Call kernel(first, last, *arguments) on ranges that cover range(total), on all threads.

    cost: elements touched by one step of the range; small work runs in the calling thread, because handing it over
    would take longer.
    """
    if _deferred.tasks is not None and total * cost >= SMALL:
        for first, last in blocks(total, -(-TOGETHER // cost)):
            _deferred.tasks.put((kernel, first, last, arguments))
        return
    parts = min(threads() * RANGES_PER_THREAD, total * cost // SMALL)
    if _deferred.tasks is not None or threads() == 1 or parts < 2:
        kernel(0, total, *arguments)
    else:
        run(split(total, parts), lambda first, last: kernel(first, last, *arguments))
