"""Progress of a pass over a set: a bar on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from minicnn.system.terminal import is_terminal

SECONDS_BETWEEN_LINES = 30      # in a log file or a pipe
BAR = "{desc}  {percentage:3.0f} % |{bar}| {n:,.0f} of {total:,} images, {rate_noinv_fmt}, {remaining} left"


@contextlib.contextmanager
def progress_of(title: str, images: int, show: bool = True) -> Iterator[Callable[[float], None]]:
    """Gives what is called whenever so many images are done: also parts of one, as of its views.

    show: False for silence.
    """
    from tqdm import tqdm

    lines = _Lines(title, images) if show and not is_terminal() else None
    with tqdm(total=images, desc=title, unit=" images", leave=False, dynamic_ncols=True, bar_format=BAR,
              disable=not show or lines is not None) as bar:
        yield lines or bar.update


class _Lines:
    """What is done, how fast, and how long the rest will take, as a line every SECONDS_BETWEEN_LINES."""

    def __init__(self, title: str, images: int):
        self.title, self.images, self.done = title, images, 0.0
        self.began = self.printed = time.perf_counter()

    def __call__(self, count: float) -> None:
        self.done, now = self.done + count, time.perf_counter()
        if now - self.printed < SECONDS_BETWEEN_LINES:
            return
        self.printed, pace = now, self.done / (now - self.began)
        print(f"{self.title}  {self.done:,.0f} of {self.images:,} images, {pace:{',.0f' if pace >= 10 else '.2g'}} "
              f"images/s, {duration((self.images - self.done) / pace)} left", flush=True)


def duration(seconds: float) -> str:
    """1:05, or 2:03:10."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
