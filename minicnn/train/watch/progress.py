"""Progress of an epoch: a bar with loss, images/s and time left; plain lines where there is no terminal."""

from __future__ import annotations

import time

from minicnn.system.progress import SECONDS_BETWEEN_LINES, duration
from minicnn.system.terminal import is_terminal
from minicnn.train.watch.stall import StallMeter

WORTH_SHOWING = 0.02            # share of the time spent waiting for data


class Progress:
    """The steps of one epoch. `left` steps of the whole run are still to do after this epoch's."""

    def __init__(self, title: str, steps: int, done: int, later: int, batch: int, show: bool = True):
        self.title, self.steps, self.done, self.later, self.batch = title, steps, done, later, batch
        self.pace = None                                # seconds a step, recent ones counting most
        self._began, self._from = None, done            # the first step is not counted: it may compile kernels
        self._last = self._printed = time.perf_counter()
        self._bar = None
        self._compiles = False
        self.show = show
        if show and is_terminal():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=done, desc=title, leave=False, dynamic_ncols=True,
                             bar_format="{desc}  {percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt} steps{postfix}")
            self._bar.set_postfix_str("first step")

    def compiling(self, kernel: str) -> None:
        """A kernel is about to be compiled: each is named on the bar; a line elsewhere says it for all."""
        text = "compiling kernels, up to a minute"
        if self._bar is not None:
            self._bar.set_postfix_str(f"{text}: {kernel}")
        elif self.show and not self._compiles:
            print(f"{self.title}  {text}", flush=True)
        self._compiles = True

    def step(self, loss: float, stalls: StallMeter | None = None) -> None:
        """One step is done. loss: the last known.   stalls: how long it waited for data, shown where it matters."""
        now = time.perf_counter()
        taken, self._last = now - self._last, now
        self.done += 1
        if stalls is not None:
            stalls.step(taken)
        text = f"loss {loss:.4f}"
        if self._began is None:
            self._began, self._from = now, self.done
        else:
            self.pace = taken if self.pace is None else 0.9 * self.pace + 0.1 * taken
            text += (f", {self.batch / self.pace:.0f} images/s, "
                     f"{duration(self.pace * (self.steps - self.done + self.later))} left")
            if stalls is not None and stalls.share > WORTH_SHOWING:
                text += f", {100 * stalls.share:.0f} % waiting for data ({stalls.reason()})"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        elif self.show and now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            print(f"{self.title}  step {self.done}/{self.steps}, {text}", flush=True)

    @property
    def has_bar(self) -> bool:
        return self._bar is not None

    def rate(self) -> float | None:
        """Images per second over these steps, without the first; None before there are two."""
        if self.done <= self._from or self._began is None:
            return None
        return round((self.done - self._from) * self.batch / (self._last - self._began), 1)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
