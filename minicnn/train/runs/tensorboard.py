"""The metrics as TensorBoard events beside metrics.jsonl (extra "tensorboard").

They are written at once: the writer that tensorboardX offers has a thread, which ends on a full disk, and whoever adds
an event after that waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from minicnn.errors import ConfigError, one_line
from minicnn.train.runs.metrics import MetricsLog

INSTALL = "pip install 'minicnn[tensorboard]'"


def need_tensorboard() -> type:
    """The class that writes events. Raises ConfigError, with what to install, where its package is missing."""
    try:
        from tensorboardX.event_file_writer import EventsWriter
    except ImportError as error:
        raise ConfigError(f"TensorBoard events need a package that is not installed; run: {INSTALL}") from error
    return EventsWriter


class WithEvents:
    """A MetricsLog whose records also go to event files in `folder`, by the step of the whole run.

    steps: of an epoch.   done: steps that the run has done; TensorBoard hides later events, of a run that was killed.
    say: takes the line that events cannot be written any more, which ends nothing.
    """

    def __init__(self, log: MetricsLog, folder: str | os.PathLike, steps: int, done: int, say: Callable[[str], None]):
        self._log, self._steps, self._say = log, steps, say
        # Event files are named by the second in which they are created; two of a run may share it.
        self._events = need_tensorboard()(os.path.join(folder, "events"), f".{done}")
        self.position = log.position
        if done:
            self._try(lambda: self._purge(done + 1))

    def write(self, record: dict) -> None:
        self._log.write(record)
        self._try(lambda: self._write_events(record))

    def _write_events(self, record: dict) -> None:
        if record["kind"] == "step":
            at = (record["epoch"] - 1) * self._steps + record["step"]
            self._add({"train/step_loss": record["loss"], "learning_rate": record["lr"]}, at)
        elif record["kind"] == "epoch":
            scores = {f"{part}/{name}": record[part][name] for part in ("train", "val")
                      for name in ("loss", "top1", "top5")}
            self._add({**scores, "images_per_second": record["time"].get("images_per_second") or 0.0,
                       "waited_for_data": record["time"]["waited_for_data"]}, record["epoch"] * self._steps)
            self._events.flush()

    def _add(self, scalars: dict[str, float], at: int) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in scalars.items():
            self._events.write_event(Event(wall_time=time.time(), step=at, summary=scalar(name, value)))

    def _purge(self, step: int) -> None:
        """Hide the events of this step, and of those after it, that are in earlier files."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._events.write_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def _try(self, work: Callable[[], None]) -> None:
        if self._events is not None:
            try:
                work()
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._events.close()
                self._events = None
                self._say(f"no more TensorBoard events, training goes on: {one_line(error)}")

    def close(self) -> None:
        self._try(lambda: self._events.close())
        self._log.close()
