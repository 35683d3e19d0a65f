"""What a run reports, on rank 0: printed lines, a progress bar, warnings, metrics.jsonl.

Nothing here changes what is trained.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.data.stage_times import in_words
from minicnn.errors import plural
from minicnn.evaluate.evaluate import Evaluation
from minicnn.evaluate.metrics import RunningMetrics, majority
from minicnn.system.progress import duration
from minicnn.system.terminal import beside, escaped
from minicnn.train.recipes import other_weights
from minicnn.train.runs.metrics import MetricsLog, NoLog
from minicnn.train.runs.run_dir import METRICS
from minicnn.train.runs.tensorboard import WithEvents, need_tensorboard
from minicnn.train.state import RunState, described
from minicnn.train.watch.diagnostics import Diagnostics, sample_of
from minicnn.train.watch.progress import WORTH_SHOWING, Progress
from minicnn.train.watch.stall import StallMeter

FORECAST_AFTER = 8                  # steps, after which a log says how long the run will take; a bar says it always


class Report:
    """Reports of the run with this state.

    say: takes a line; None for silence.   progress: show bars.   tensorboard: write the metrics as events, too.
    """

    def __init__(self, state: RunState, say: Callable[[str], None] | None, progress: bool, tensorboard: bool):
        if tensorboard:
            need_tensorboard()
        is_main = state.net.ranks.is_main
        self._state, self._tensorboard, self.progress = state, tensorboard, progress and is_main
        self._say, self._said_beside = say if is_main else None, set()
        self.log: MetricsLog | NoLog | WithEvents = NoLog()
        self._diagnostics = Diagnostics(state.train.labels, other_weights(state.recipe))
        self._diagnosed = state.metrics.state()

    def say(self, text: str) -> None:
        """Print a line, as far as the terminal can; what it cannot is no reason to end a run."""
        if self._say:
            with contextlib.suppress(OSError, UnicodeError):
                try:
                    self._say(text)
                except UnicodeEncodeError:
                    self._say(escaped(text))

    def beside(self, work: Callable) -> None:
        """Work beside the training, such as pictures; an error there is printed once, and ends nothing."""
        def say_once(text: str) -> None:
            if text not in self._said_beside:
                self.say(f"after epoch {self._state.epoch}: {text}; training goes on")
            self._said_beside.add(text)

        beside(work, say_once)

    def line(self, label: str, text: str) -> None:
        self.say(f"{label:13s}{text}")

    def lines(self, texts: Iterable[str]) -> None:
        """Those that say something."""
        for text in filter(None, texts):
            self.say(text)

    # ---- metrics
    @contextlib.contextmanager
    def writing(self, run_dir: Path) -> Iterator[None]:
        """Open metrics.jsonl for what follows, cut back to its length at the last checkpoint."""
        state = self._state
        if state.net.ranks.is_main:
            self.log, steps = MetricsLog(run_dir / METRICS, keep=state.metrics_bytes), len(state.loader)
            if state.metrics_crc32 not in (None, self.log.crc32):
                self.say(f"{self.log.path} has changed since the last checkpoint: the curves may be incomplete")
            if self._tensorboard:
                self.log = WithEvents(self.log, run_dir, steps, state.epoch * steps + state.step, self.say)
        with contextlib.closing(self.log):
            yield

    def run(self) -> None:
        """A new run begins."""
        state = self._state
        if described(state.net) is None:
            self.line("network", "is not described in checkpoints, as a layer of it is made from more than plain data; "
                                 "to use them, build it again")
        self.log.write({"kind": "run", "recipe": state.recipe.to_dict(), **state.identity(), "about": state.about,
                        "majority": {"train": majority(state.train.labels), "val": majority(state.val.labels)}})

    def step(self, loss: float, timing: dict) -> None:
        state = self._state
        self.log.write({"kind": "step", "epoch": state.epoch + 1, "step": state.step, "steps": len(state.loader),
                        "lr": state.optimiser.lr, "loss": loss, "time": timing})

    def epoch(self, train: dict, val: Evaluation, best: bool, timing: dict) -> None:
        """An epoch and its validation are done. train: {"loss", "top1", "top5"}; timing: of EpochMonitor."""
        state = self._state
        scale = {"loss_scale": state.loss_scale.to_dict()} if state.loss_scale else {}
        self.log.write({"kind": "epoch", "epoch": state.epoch, "lr": state.optimiser.lr, "train": train,
                        "val": {"loss": val.loss, "top1": val.top1, "top5": val.top5}, "best": best, **scale,
                        "time": timing})

    def say_epoch(self, epochs: int, train: dict, val: Evaluation, best: bool, timing: dict) -> None:
        """Print the same, once the epoch is saved."""
        state = self._state
        speed, waited = timing["images_per_second"], timing["waited_for_data"]
        why = in_words(timing["data"]) if waited > WORTH_SHOWING * timing["seconds"] else ""
        self.say(f"epoch {state.epoch}/{epochs}   "
                 f"train accuracy {100 * train['top1']:.1f} %, loss {train['loss']:.4f}   "
                 f"val {val}{' (best)' if best else ''}   learning rate {state.optimiser.lr:.3g}   "
                 f"{duration(timing['seconds'])}{f', {speed:.0f} images/s' if speed else ''}, "
                 f"waited {waited:.1f} s for data{f' ({why})' if why else ''}")

    # ---- while steps are taken
    def monitor(self, epochs: int) -> EpochMonitor:
        """Of the steps of this epoch that are still to be done."""
        self._diagnosed = self._state.metrics.state()
        return EpochMonitor(self._state, epochs, self.progress, self.line)

    def since_diagnosis(self) -> RunningMetrics:
        """Metrics of the steps since the last diagnosis."""
        return self._state.metrics.since(self._diagnosed)

    def diagnose(self, pipeline: InputPipeline, train: dict, val: Evaluation | None = None) -> None:
        """Print warnings. train: means over the images since the last diagnosis."""
        state = self._state
        factor = state.schedule.factor(state.epoch + state.step / len(state.loader))
        sample = partial(sample_of, state.net.ops)
        self.lines(self._diagnostics.check(train, val, state.net, state.optimiser.last_updates(sample), factor,
                                           self._some_of_val(pipeline)))
        self._diagnosed = state.metrics.state()

    def _some_of_val(self, pipeline: InputPipeline) -> Iterator:
        """Batches of validation images; none where a forward pass would need the other ranks."""
        if not self._state.net.ranks.is_split:
            yield from map(pipeline.evaluation, Loader(self._state.val, self._state.loader.batch).epoch(0))


class EpochMonitor:
    """Progress and time of the steps of one epoch of `epochs`; a context manager. line: prints a label and a text."""

    def __init__(self, state: RunState, epochs: int, show: bool, line: Callable[[str, str], None]):
        self._state, self._epochs, self._line = state, epochs, line
        steps, self._loader, self._began = len(state.loader), state.loader, time.perf_counter()
        self._progress = Progress(f"epoch {state.epoch + 1}/{epochs}", steps, state.step,
                                  (epochs - state.epoch - 1) * steps, state.loader.batch, show)
        self._compiling = state.net.ops.telling_of_compiling(self._progress.compiling)
        self._stalls: StallMeter | None = None

    def __enter__(self) -> EpochMonitor:
        self._compiling.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._compiling.__exit__(*exception)
        self._progress.close()

    def watch(self, batches: Iterator) -> Iterator:
        """The batches. Waiting is counted from the second one on: the first is made while nothing can be computed."""
        for batch in batches:
            self._stalls = self._stalls or StallMeter(self._loader)
            yield batch

    def step(self, loss: float) -> None:
        """One step is done. loss: the last known."""
        self._progress.step(loss, self._stalls)
        first = min(FORECAST_AFTER, self._progress.steps)
        if self._progress.done == first and self._state.epoch == 0 and not self._progress.has_bar:
            self._forecast()

    def _forecast(self) -> None:
        """How long the run will take. A validation image costs a third of a training image: there is no backward."""
        speed, images = self._progress.rate(), len(self._state.loader) * self._state.loader.batch
        if speed:
            seconds = self._epochs * (images + len(self._state.val.labels) / 3) / speed
            epochs = plural(self._epochs, "epoch")
            self._line("time", f"about {duration(seconds)} for {epochs}, at {speed:.0f} images/s")

    def lap(self) -> dict:
        """Time since the last lap; see StallMeter."""
        return self._stalls.lap()

    def timing(self) -> dict:
        """Seconds of the whole epoch so far, and images per second."""
        return {"seconds": round(time.perf_counter() - self._began, 2),
                "waited_for_data": round(self._loader.waited, 2),
                "images_per_second": self._progress.rate(),
                "data": {kind: round(spent, 2) for kind, spent in self._loader.spent().items()}}
