"""The metrics as TensorBoard events beside metrics.jsonl (extra "tensorboard")."""

from __future__ import annotations

import os

from minicnn.errors import ConfigError
from minicnn.train.runs.metrics import MetricsLog

INSTALL = "pip install 'minicnn[tensorboard]'"


def need_tensorboard() -> type:
    """The class that writes events. Raises ConfigError, with what to install, where its package is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ConfigError(f"TensorBoard events need a package that is not installed; run: {INSTALL}") from error
    return SummaryWriter


class WithEvents:
    """A MetricsLog whose records also go to event files in `folder`, by the step of the whole run.

    steps: of an epoch.   done: steps that the run has done; TensorBoard hides later events, of a run that was killed.
    """

    def __init__(self, log: MetricsLog, folder: str | os.PathLike, steps: int, done: int):
        self._log, self._steps = log, steps
        # Event files are named by the second in which they are created; two of a run may share it.
        self._events = need_tensorboard()(os.fspath(folder), purge_step=done + 1 if done else None,
                                          filename_suffix=f".{done}")
        self.position = log.position

    def write(self, record: dict) -> None:
        self._log.write(record)
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
        for name, value in scalars.items():
            self._events.add_scalar(name, value, at)

    def close(self) -> None:
        self._events.close()
        self._log.close()
