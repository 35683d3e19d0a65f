"""One thread, in which all work on the network is done, in order: a network's arrays are not for two at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class SupersededError(Exception):
    """A newer job of the same topic came before this one was begun."""


class Worker:
    """Jobs have a topic, such as the occluder of one browser tab. Of those that wait, only the newest of a topic is
    done: while somebody drags, the positions in between are left out."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explore")
        self._newest: dict[str, object] = {}

    async def run(self, topic: str, work: Callable):
        """What work() returns. SupersededError where it was not begun."""
        job = self._newest[topic] = object()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, topic, job, work)
        finally:
            if self._newest.get(topic) is job:
                del self._newest[topic]

    def _do(self, topic: str, job: object, work: Callable):
        if self._newest.get(topic) is not job:
            raise SupersededError(topic)
        return work()

    def close(self) -> None:
        """Leave out what waits. What is being done ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
