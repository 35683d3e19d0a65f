"""One thread, in which all work on the network is done, in order: a network's arrays are not for two at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread

import numpy as np


class SupersededError(Exception):
    """A newer job of the same topic came before this one was begun."""


class Worker:
    """Jobs have a topic, such as the occluder of one browser tab. Of those that wait, only the newest of a topic is
    done: while somebody drags, the positions in between are left out."""

    def __init__(self):
        self._jobs: SimpleQueue[tuple[str, Future, Callable]] = SimpleQueue()
        self._newest: dict[str, Future] = {}
        self._closed = False
        Thread(target=self._do_all, name="explore", daemon=True).start()        # the end does not wait for a long job

    async def run(self, topic: str, work: Callable):
        """What work() returns. SupersededError where it was not begun."""
        job = self._newest[topic] = Future()
        self._jobs.put((topic, job, work))
        try:
            return await asyncio.wrap_future(job)
        finally:
            if self._newest.get(topic) is job:
                del self._newest[topic]

    def _do_all(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):          # what is not finite is an error in the page
            while not self._closed:
                topic, job, work = self._jobs.get()
                if job.set_running_or_notify_cancel():
                    self._do(topic, job, work)

    def _do(self, topic: str, job: Future, work: Callable) -> None:
        try:
            if self._newest.get(topic) is not job:
                raise SupersededError(topic)
            job.set_result(work())
        except BaseException as error:
            job.set_exception(error)

    def close(self) -> None:
        """Leave out what waits, and end the thread after what is being done."""
        self._closed = True
        self._jobs.put(("", Future(), lambda: None))                # wakes a thread that waits
