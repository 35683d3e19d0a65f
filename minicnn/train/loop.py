"""The training loop. What happens to each batch can be read in `Trainer._train_epoch`:

    batch -> pipeline.train -> net.loss -> net.backward -> optimiser.step   and after each epoch: validation, checkpoint

What a run has learned and where it is: state.py. What it prints and writes down: report.py. A run that is interrupted
at any moment and resumed has, bit for bit, the weights of one that was not (on the same backend with the same number of
threads).

A run folder holds last.safetensors, the one before it as previous.safetensors, best.safetensors (highest validation
accuracy; lower loss decides a tie) and metrics.jsonl; with keep_every also weights/epoch-0010.safetensors and so on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.errors import ConfigError, DataError
from minicnn.evaluate.evaluate import evaluate
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.layers.base import stored_dtype
from minicnn.system.files import cannot_write
from minicnn.system.terminal import lasting
from minicnn.train.calibrate import calibrate_on
from minicnn.train.recipe import Recipe
from minicnn.train.report import EpochMonitor, Report
from minicnn.train.runs.folder import RunFolder
from minicnn.train.runs.run_dir import BEST, LAST, METRICS, last_intact
from minicnn.train.state import DivergedError, RunState
from minicnn.train.step import READ_EVERY, backward_and_update, captured_step, not_capturable
from minicnn.train.watch.interrupt import Interrupt
from minicnn.train.watch.memory import check_memory
from minicnn.train.whiten import whiten_on

SAVE_AFTER = 15 * 60                        # seconds without a checkpoint, after which one is written within an epoch
DIAGNOSE_EVERY = 2000                       # steps between diagnostics, in epochs that are longer


@dataclass
class Outcome:
    """How `fit` ended. best: {"epoch", "top1", "loss"} of the best validation, None before the first one."""

    interrupted: bool
    epochs: int
    best: dict | None
    run_dir: Path


class Trainer:
    """Trains `net` by `recipe` on `train`, and validates it on `val`.

    run_dir: a path, or a RunFolder; made and locked by `fit`, not before, and removed again if no step is taken.
    seed: of order, crops and (in the net) dropout; default the net's.   save_every: write last.safetensors after every
    so many steps, too; besides epochs' ends and every 15 minutes.   keep_every: keep the weights alone of every so many
    epochs, in weights/.
    about: plain data that the checkpoint is to hold.   say: takes printed lines; None for silence.   progress: show a
    bar.   keep_statistics: in the user's cache, so that the next run on the same files need not decode them all first.
    tensorboard: write the metrics as TensorBoard events, too.   on_epoch: called after each epoch, when its metrics and
    checkpoint are written (on rank 0), such as to draw pictures; an exception of it is printed and ends nothing.
    stop_at_once: until the first step is finished, with which kernels are compiled, a signal raises KeyboardInterrupt.
    """

    def __init__(self, net, recipe: Recipe, train: Dataset, val: Dataset, run_dir: str | os.PathLike, *,
                 seed: int | None = None, save_every: int = 0, keep_every: int = 0, about: dict | None = None,
                 progress: bool = True,
                 say: Callable[[str], None] | None = print, keep_statistics: bool = False,
                 tensorboard: bool = False, on_epoch: Callable[[], None] | None = None, stop_at_once: bool = False):
        if net.num_classes != len(train.classes):
            raise ConfigError(f"the network has {net.num_classes} classes, but {train.name} has {len(train.classes)}; "
                              "build the network with num_classes to match")
        if save_every < 0:
            raise ConfigError(f"save_every must be a number of steps, or 0 for never, got {save_every}")
        if keep_every < 0:
            raise ConfigError(f"keep_every must be a number of epochs, or 0 for never, got {keep_every}")
        self.net, self.recipe, self.train, self.val = net, recipe.of(train), train, val
        self.folder = run_dir if isinstance(run_dir, RunFolder) else RunFolder(run_dir)
        self.run_dir, self.save_every, self.keep_statistics = self.folder.path, save_every, keep_statistics
        self.keep_every = keep_every
        self._stop_at_once = stop_at_once and not net.ranks.is_split
        self.on_epoch = on_epoch if net.ranks.is_main else None
        self.state = RunState(net, self.recipe, train, val, self.run_dir, net.seed if seed is None else seed,
                              about or {})
        self.optimiser = self.state.optimiser
        self.report = Report(self.state, say, progress, tensorboard)
        self._captured = self._loss = self._timing = None      # CapturedStep, loss and time of the epoch under way

    sgd = property(lambda self: self.optimiser, doc="The name of `optimiser` in 0.1.0.")
    epoch = property(lambda self: self.state.epoch, doc="Whole epochs done.")
    step = property(lambda self: self.state.step, doc="Steps done in the epoch after them.")
    loader = property(lambda self: self.state.loader, doc="Of the training images.")
    statistics = property(lambda self: self.state.statistics, doc="Of the training images; None before `prepare`.")
    last_path = property(lambda self: self.state.last_path)
    best_path = property(lambda self: self.state.best_path)

    # ---- before the first step
    def resume(self, path: str | os.PathLike | None = None) -> Trainer:
        """Continue from a checkpoint: weights, optimiser, position. By default it is the run's last.safetensors, or
        where that is damaged, previous.safetensors.

        CheckpointError when it is missing, cut short, of another net, or of a run with another recipe, seed or data.
        """
        self.state.resume(path or last_intact(self.last_path, self.report.say))
        return self

    def prepare(self) -> InputPipeline:
        """Find unreadable images, measure the mean image, check the memory. No run folder yet."""
        memory = check_memory(self.net, self.recipe.optimiser.batch, more=self.optimiser.more_memory)
        if self.statistics is None:
            self.state.measure(self.keep_statistics, self.report.progress, self.report.say)
        self.report.lines(dataset.report_skipped() for dataset in (self.train, self.val))
        self.report.line("memory", memory)
        if self.recipe.average:
            self.report.line("validation", "with the moving average of the weights over the steps, factor "
                                           f"{self.recipe.average.factor:g}")
        return InputPipeline(self.net, self.recipe.preprocess, self.statistics.mean, augment=self.recipe.augment,
                             pca=self.statistics.pca, seed=self.state.seed)

    # ---- training
    def fit(self, epochs: int) -> Outcome:
        """Train until `epochs` epochs are done. On Ctrl-C, SIGTERM and SIGHUP, finish the step, save, and return."""
        if epochs < 1:
            raise ConfigError(f"the number of epochs must be at least 1, got {epochs}")
        if not self.net.ranks.is_main:
            return self._fit(epochs)
        with lasting(), self.folder:                    # before hours may go into the mean image
            before = self.epoch, self.step
            try:
                return self._fit(epochs)
            except KeyboardInterrupt:
                if (self.epoch, self.step) == before:
                    raise KeyboardInterrupt("before the first step: nothing was saved") from None
                raise
            finally:
                self.folder.begun |= self.epoch + self.step > 0

    def _fit(self, epochs: int) -> Outcome:
        fresh = not self.state.started
        if fresh and self.last_path.exists():
            raise ConfigError(f"{self.last_path} exists: resume that run, or choose another folder")
        pipeline = self.prepare()
        self.net.ranks.check_equal({"the recipe": self.recipe.to_dict(), "seed and data": self.state.identity(),
                                    "where the run is": (self.epoch, self.step, len(self.loader)),
                                    "how long it is to last": (epochs, self.save_every, self.keep_every)})
        if fresh:
            if self.recipe.calibrate:
                self.report.line("calibrating", "the initial weights of " + ", ".join(self.recipe.calibrate))
                self.report.line("calibrated", calibrate_on(self.net, self.recipe.calibrate, self.loader, pipeline))
            if self.recipe.whiten:
                self.report.line("whitened", whiten_on(self.net, self.recipe.whiten, self.loader, pipeline))
            self.state.begin()
        try:
            with Interrupt(self._stop_at_once) as interrupt:
                with self.report.writing(self.run_dir):
                    if fresh:
                        self.report.run()
                    return self._epochs(pipeline, epochs, interrupt)
        except OSError as error:
            if error.errno is None:                     # not the system's
                raise
            where = error.filename or self.run_dir
            raise cannot_write(where, error, ConfigError, f" ({self.state.kept()})") from error

    def _epochs(self, pipeline: InputPipeline, epochs: int, interrupt: Interrupt) -> Outcome:
        """The epochs that are still to be done."""
        self.state.saved_at = time.monotonic()
        if self.net.ops.capture is not None and not self.net.ranks.is_split and (name := not_capturable(self.net)):
            self.report.line("steps", f"are launched one operation after the other: layer {name!r} cannot be captured")
        elif self.net.ops.capture is None and self.net.ops.stored_dtype(self.net.dtype) != self.net.dtype and (
                name := not_capturable(self.net)):
            self.report.line("activations", f"are stored in {self.net.dtype}: layer {name!r} takes no others")
        self._keep_weights()                            # where the run was stopped between the two files
        while self.epoch < epochs:
            try:
                done = self._train_epoch(pipeline, epochs, interrupt) and self._validate(pipeline, epochs, interrupt)
            except DataError:                           # an image has gone or changed: between two steps
                self._read_metrics()
                if self.step and not self.net.ranks.is_split:
                    self.save()
                raise
            if not done:
                if self.step:                           # else the end of the epoch has just saved
                    self.save()
                return Outcome(True, self.epoch, self.state.best, self.run_dir)
        return Outcome(False, self.epoch, self.state.best, self.run_dir)

    def _train_epoch(self, pipeline: InputPipeline, epochs: int, interrupt: Interrupt) -> bool:
        """The steps of this epoch that are still to be done; False when a shutdown was requested."""
        net, optimiser, state, scale = self.net, self.optimiser, self.state, self.state.loss_scale
        state.begin_epoch()
        self._captured, self._loss = captured_step(net, optimiser, scale, state.metrics), None
        stored = stored_dtype(net.nodes, net.dtype, net.ops)            # of activations, and so of images
        with self.report.monitor(epochs) as monitor, \
                contextlib.closing(self.loader.epoch(state.epoch, state.step)) as batches:
            for batch in monitor.watch(batches):
                # uint8 (N, A, B, 3) -> (N, H, W, 3)
                x = pipeline.train(batch, state.epoch, stored=stored)
                optimiser.lr = state.learning_rate(state.step)
                if self._captured is not None:                      # the lines below as one CUDA graph: step.py
                    self._captured.run(x, batch.labels, batch.sample_ids, state.epoch)
                else:
                    self._loss = net.loss(x, batch.labels, sample_ids=batch.sample_ids, epoch=state.epoch,
                                          stored=x.dtype != net.dtype)
                    state.count(self._loss, batch.labels)
                    backward_and_update(net, optimiser, scale)
                state.after_step(epochs)
                if not self._after_step(pipeline, monitor, interrupt):
                    return False
            self._captured, self._timing = None, monitor.timing()
        return True

    def _after_step(self, pipeline: InputPipeline, monitor: EpochMonitor, interrupt: Interrupt) -> bool:
        """Metrics, diagnostics and checkpoints that are due; False when a shutdown was requested."""
        interrupt.at_once = False
        step, steps = self.step, len(self.loader)
        stop, late = self.net.ranks.any(interrupt.requested, time.monotonic() - self.state.saved_at > SAVE_AFTER)
        log = step % max(1, steps // 100) == 0
        diagnose = step % DIAGNOSE_EVERY == 0 and step + DIAGNOSE_EVERY // 2 <= steps
        save = late or (self.save_every and (self.epoch * steps + step) % self.save_every == 0)
        read = self._captured is None or self._loss is None or step % READ_EVERY == 0 or step == steps
        if read or stop or log or diagnose or save:
            self._read_metrics()
        monitor.step(self._loss)
        if log:
            self.report.step(self._loss, monitor.lap())
        if save and not stop:
            self.save()
        if diagnose:
            self.report.diagnose(pipeline, self.report.since_diagnosis().result())
        return not stop

    def _validate(self, pipeline: InputPipeline, epochs: int, interrupt: Interrupt) -> bool:
        """The end of an epoch: validation, schedule, metrics, checkpoint; False when a shutdown was requested."""
        ranks, state = self.net.ranks, self.state
        with self.optimiser.averaged():
            val = evaluate(self.net, self.val, pipeline, batch=self.loader.batch, title="validation",
                           progress=self.report.progress, stop=lambda: ranks.any(interrupt.requested)[0])
        if val is None:
            return False
        state.check_finite(val.loss, f"validation after epoch {self.epoch + 1}")
        train, lately = (RunningMetrics(**ranks.sum(metrics.state())).result()
                         for metrics in (state.metrics, self.report.since_diagnosis()))
        self.optimiser.lr = state.learning_rate(len(self.loader) - 1)   # a run may be resumed after the last step
        best = state.end_epoch(val)
        self.report.epoch(train, val, best, self._timing)
        self.save(best=best)
        self._keep_weights()
        self.report.say_epoch(epochs, train, val, best, self._timing)
        self.report.diagnose(pipeline, lately, val)
        if self.on_epoch:
            self.report.beside(self.on_epoch)
        return not ranks.any(interrupt.requested)[0] or self.epoch == epochs

    def _read_metrics(self) -> None:
        """Bring loss and metrics up to date. DivergedError when a loss was not finite."""
        if self._captured is not None:
            self._loss, self.state.metrics = self._captured.read()
        self.state.check_finite((self._loss or 0.0) + self.state.metrics.loss,
                                f"epoch {self.epoch + 1}, step {self.step}")

    def _keep_weights(self) -> None:
        """Keep the weights, where an epoch has just ended whose weights are to be kept."""
        if self.keep_every and self.epoch and not self.step and self.epoch % self.keep_every == 0:
            self.state.keep_weights()

    def save(self, best: bool = False) -> None:
        """Write last.safetensors, and best.safetensors as a second name of the same file where `best`."""
        self.state.save(lambda: self.report.log.position(), best)


__all__ = ["BEST", "LAST", "METRICS", "DivergedError", "Outcome", "Trainer"]
