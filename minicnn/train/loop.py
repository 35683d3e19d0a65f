"""The training loop: batches through the net, the weights after them, and everything that keeps a long run safe.

    batch -> feed.train -> net.loss -> net.backward -> sgd.step          and after each epoch: validation, checkpoint

Where a run stands is (epoch, step) and nothing more: order, crops and dropout masks are functions of seed, epoch and
image. So a run that is interrupted at any moment and resumed has, bit for bit, the weights of one that was not (on the
same backend with the same number of threads).

A run folder holds last.safetensors, best.safetensors (highest validation accuracy; lower loss decides a tie) and
metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.data.scan import scan
from minicnn.data.stage_times import in_words
from minicnn.data.statistics import Statistics, kept_statistics, measure
from minicnn.errors import CheckpointError, ConfigError, DataError, MinicnnError
from minicnn.evaluate.evaluate import Evaluation, evaluate
from minicnn.evaluate.metrics import RunningMetrics, majority
from minicnn.train.calibrate import calibrate
from minicnn.train.loss_scale import LossScale
from minicnn.train.recipe import Recipe, differences
from minicnn.train.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minicnn.train.runs.metrics import MetricsLog, NoLog
from minicnn.train.runs.tensorboard import WithEvents, need_tensorboard
from minicnn.train.sgd import SGD
from minicnn.train.step import TrainStep, not_capturable, step_for
from minicnn.train.watch.diagnostics import Diagnostics
from minicnn.train.watch.interrupt import Interrupt
from minicnn.train.watch.memory import check_memory
from minicnn.train.watch.progress import WORTH_SAYING, Progress, duration
from minicnn.train.watch.stall import StallMeter

LAST, BEST, METRICS = "last.safetensors", "best.safetensors", "metrics.jsonl"
SAVE_AFTER = 15 * 60                        # seconds without a checkpoint, after which one is written within an epoch
LOOK_EVERY = 2000                           # steps between looks of the watch, in epochs that are longer
CALIBRATED_ON = 128                         # images, or a few more: whole batches


class DivergedError(MinicnnError):
    """The loss is no longer a number."""


@dataclass
class Outcome:
    """How `fit` ended. best: {"epoch", "top1", "loss"} of the best validation, None before the first one."""

    interrupted: bool
    epochs: int
    best: dict | None
    run_dir: Path


class Trainer:
    """Trains `net` by `recipe` on `train`, watched on `val`.

    run_dir: made by `fit`, not before.   seed: of order, crops and (in the net) dropout; default the net's.
    save_every: write last.safetensors after every so many steps, too; besides epochs' ends and every 15 minutes.
    about: plain data that the checkpoint is to hold.   say: where lines go; None for silence.   progress: show a bar.
    keep_statistics: in the user's cache, so that the next run on the same files need not decode them all first.
    tensorboard: write the metrics as TensorBoard events, too.   on_epoch: called after each epoch, when its metrics and
    checkpoint are written (the lead alone), such as to draw what they show; an OSError of it is said and ends nothing.
    """

    def __init__(self, net, recipe: Recipe, train: Dataset, val: Dataset, run_dir: str | os.PathLike, *,
                 seed: int | None = None, save_every: int = 0, about: dict | None = None, progress: bool = True,
                 say: Callable[[str], None] | None = print, keep_statistics: bool = False,
                 tensorboard: bool = False, on_epoch: Callable[[], None] | None = None):
        if net.num_classes != len(train.classes):
            raise ConfigError(f"the net tells {net.num_classes} classes apart, but {train.name} has "
                              f"{len(train.classes)}; build the net with num_classes to match")
        if save_every < 0:
            raise ConfigError(f"save_every must be a number of steps, or 0 for never, got {save_every}")
        self.net, self.recipe, self.train, self.val = net, recipe, train, val
        self.run_dir, self.seed = Path(run_dir), net.seed if seed is None else seed
        self.save_every, self.about, self.progress = save_every, about or {}, progress and net.ranks.is_main
        self.keep_statistics, self.tensorboard = keep_statistics, tensorboard
        self.on_epoch = on_epoch if on_epoch and net.ranks.is_main else lambda: None
        if tensorboard:
            need_tensorboard()
        self.say = say if say and net.ranks.is_main else lambda text: None
        self.sgd = SGD(net.params, recipe.sgd.lr, recipe.sgd.momentum, recipe.sgd.decay,
                       lr_mults=recipe.sgd.lr_mults(net))
        net.freeze(layer for layer, factor in recipe.sgd.layer_lr.items() if factor == 0)
        self.schedule = copy.deepcopy(recipe.schedule)
        self.loader = self._loader()
        if net.ranks.is_split and net.ops.needs_loss_scale:
            raise ConfigError(f"device {net.ops.spec} scales the loss by what one rank sees, which is not yet done for "
                              "several; use cuda:tf32 or cuda:bf16 with them")
        self.loss_scale = LossScale(net.ops) if net.ops.needs_loss_scale else None
        self.epoch = self.step = 0                      # whole epochs done, and steps done in the one after them
        self.tally, self.best = RunningMetrics(), None
        self._seen = self.tally.state()                 # what of the tally the watch has looked at
        self._watch = Diagnostics(train.labels)
        self.statistics: Statistics | None = None
        self.start = None                               # what the first layer's weights began as, for its picture
        self._begun, self._saved = False, time.monotonic()
        self._metrics_bytes = 0
        self._log: MetricsLog | None = None

    def _loader(self) -> Loader:
        batch = self.recipe.sgd.batch
        own = self.net.ranks.local_rows(batch)
        return Loader(self.train, batch, seed=self.seed, shuffle=True, drop_last=True, own=own)

    @property
    def last_path(self) -> Path:
        return self.run_dir / LAST

    @property
    def best_path(self) -> Path:
        return self.run_dir / BEST

    # ---- going on
    def resume(self, path: str | os.PathLike | None = None) -> Trainer:
        """Take over weights, velocities and position from a checkpoint (default: the run's last.safetensors).

        CheckpointError when it is missing, cut short, of another net, or of a run with another recipe, seed or data.
        """
        saved = load_checkpoint(path or self.last_path)
        saved.check_classes(self.train.classes)
        self.net.load_arrays(saved.params, str(saved.path))
        self._check_same_run(saved)
        self.sgd.velocities = self.net.ranks.scatter(saved.velocities)
        self.epoch, self.step, self.best = saved.meta["epoch"], saved.meta["step"], saved.meta["best"]
        self.schedule.state = saved.meta["schedule"]
        if self.loss_scale is not None and saved.meta.get("loss_scale"):
            self.loss_scale = LossScale(self.net.ops, **saved.meta["loss_scale"])
        self.tally = RunningMetrics(**saved.meta["tally"]) if self.net.ranks.is_main else RunningMetrics()
        self._metrics_bytes = saved.meta["metrics_bytes"]
        for dataset, name in ((self.train, "train"), (self.val, "val")):
            dataset.leave_out({int(position): reason for position, reason in saved.meta["left_out"][name].items()})
        self.loader = self._loader()
        self.start, self._begun = saved.data.pop("start", None), True
        self.statistics = Statistics(**saved.data, count=saved.meta["statistics_count"])
        return self

    def _check_same_run(self, saved: Checkpoint) -> None:
        here = {**self.recipe.to_dict(), **self._identity()}
        there = {**saved.meta["recipe"], **saved.meta["identity"]}
        if different := differences(there, here):
            knob, was, now = different[0]
            others = f"; {', '.join(knob for knob, _, _ in different[1:4])} differ as well" if different[1:] else ""
            raise CheckpointError(f"{saved.path}: its run had {knob} = {was}, this one has {now}{others}; resume with "
                                  "the settings the run was begun with, or begin a new one")

    def _identity(self) -> dict:
        """What besides the recipe decides what the weights become."""
        return {"seed": self.seed, "net_seed": self.net.seed, "dtype": self.net.dtype,
                "data": {name: f"{dataset.name} ({len(dataset.labels) + len(dataset.skipped)} images, "
                               f"{dataset.fingerprint[:12]})"
                         for name, dataset in (("train", self.train), ("val", self.val))}}

    # ---- running
    def prepare(self) -> InputPipeline:
        """What must be known before the first step: unreadable images, mean image, memory. No run folder yet."""
        room = check_memory(self.net, self.recipe.sgd.batch)
        if self.statistics is None:
            show = self.progress and sys.stderr.isatty()
            self._measure(show)
            self.loader = self._loader()
        for dataset in (self.train, self.val):
            if text := dataset.report_skipped():
                self.say(text)
        self.say(f"{'memory':13s}{room}")
        return InputPipeline(self.net, self.recipe.augment, self.statistics.mean, self.statistics.pca, self.seed)

    def _measure(self, show: bool) -> None:
        """Mean image and unreadable images, found by the lead and told to all."""
        found, arrays = None, {}
        if self.net.ranks.is_main:
            path = kept_statistics(self.train) if self.keep_statistics else None
            try:
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self.say(f"the mean image will be measured again in the next run: {path.parent}: {error.strerror}")
                path = None
            self.statistics = measure(self.train, path, progress=show)
            scan(self.val, progress=show)
            found = {"count": self.statistics.count, "left_out": [self.train.left_out, self.val.left_out]}
            arrays = _arrays(self.statistics)
        found, arrays = self.net.ranks.broadcast(found, arrays)
        if not self.net.ranks.is_main:
            self.statistics = Statistics(**arrays, count=found["count"])
            for dataset, left_out in zip((self.train, self.val), found["left_out"], strict=True):
                dataset.leave_out({int(position): reason for position, reason in left_out.items()})

    def fit(self, epochs: int) -> Outcome:
        """Train until `epochs` epochs are done. Ctrl-C and SIGTERM let the step finish, save, and return."""
        if epochs < 1:
            raise ConfigError(f"the number of epochs must be at least 1, got {epochs}")
        fresh = not self._begun
        if fresh and self.last_path.exists():
            raise ConfigError(f"{self.last_path} exists: resume that run, or choose another folder")
        if self.net.ranks.is_main:
            _must_be_writable(self.run_dir)             # before hours may go into the mean image
        feed = self.prepare()
        self.net.ranks.check_equal({"the recipe": self.recipe.to_dict(), "seed and data": self._identity(),
                             "where the run is": (self.epoch, self.step, len(self.loader)),
                             "how long it is to last": (epochs, self.save_every)})
        if fresh:
            if self.recipe.calibrate:
                self._calibrate(feed)
            first, param = next(iter(self.net.params.items()))
            self.start = self.net.ranks.gather({first: param.data.copy()}).get(first)
            self._begun = True
        try:
            with Interrupt() as interrupt:
                self.run_dir.mkdir(parents=True, exist_ok=True)
                with contextlib.closing(self._open_log()) as self._log:
                    return self._run(feed, epochs, interrupt, fresh)
        except OSError as error:
            if error.errno is None:                     # not the system's
                raise
            raise ConfigError(f"{error.filename or self.run_dir}: cannot be written: {error.strerror or error}; make "
                              f"room or choose another folder ({self._kept()})") from error

    def _run(self, feed: InputPipeline, epochs: int, interrupt: Interrupt, fresh: bool) -> Outcome:
        """The epochs that are still to be done."""
        self._saved = time.monotonic()
        if self.net.ops.capture is not None and not self.net.ranks.is_split and (name := not_capturable(self.net)):
            self.say(f"{'steps':13s}are launched one operation after the other: layer {name!r} cannot be recorded")
        if fresh:
            self._log.write({"kind": "run", "recipe": self.recipe.to_dict(), **self._identity(), "about": self.about,
                             "majority": {"train": majority(self.train.labels), "val": majority(self.val.labels)}})
        while self.epoch < epochs:
            try:
                done = self._steps(feed, epochs, interrupt) and self._end_of_epoch(feed, epochs, interrupt)
            except DataError:                           # an image has gone or changed: between two steps
                if self.step and not self.net.ranks.is_split:
                    self.save()
                raise
            if not done:
                if self.step:                           # else the end of the epoch has just saved
                    self.save()
                return Outcome(True, self.epoch, self.best, self.run_dir)
        return Outcome(False, self.epoch, self.best, self.run_dir)

    def _calibrate(self, feed: InputPipeline) -> None:
        """Let the layers begin as the recipe says, on some training images in the order of the first epoch."""
        if self.net.ranks.is_split:
            raise ConfigError("a recipe that calibrates the layers' outputs needs the whole network on one rank; begin "
                              "the run there, and go on with several ranks by --resume")
        with contextlib.closing(self.loader.epoch(0)) as batches:
            some = itertools.islice(batches, -(-CALIBRATED_ON // self.loader.batch))
            images = [next(feed.test(batch)).copy() for batch in some]
        calibrate(self.net, images, self.recipe.calibrate)
        self.say(f"{'calibrated':13s}outputs of {', '.join(self.recipe.calibrate)} on {sum(map(len, images))} images")

    def _open_log(self):
        if not self.net.ranks.is_main:
            return NoLog()
        log = MetricsLog(self.run_dir / METRICS, keep=self._metrics_bytes)
        if not self.tensorboard:
            return log
        return WithEvents(log, self.run_dir, len(self.loader), self.epoch * len(self.loader) + self.step)

    def _steps(self, feed: InputPipeline, epochs: int, interrupt: Interrupt) -> bool:
        """The steps of this epoch that are still to be done; False when a wish to stop came."""
        net, sgd, steps, batch_size = self.net, self.sgd, len(self.loader), self.loader.batch
        log_every, stalls, loss = max(1, steps // 100), None, None
        progress = Progress(f"epoch {self.epoch + 1}/{epochs}", steps, self.step, (epochs - self.epoch - 1) * steps,
                            batch_size, self.progress)
        began, self._seen = time.perf_counter(), self.tally.state()
        step = step_for(net, sgd, self.loss_scale, self.tally)
        with contextlib.closing(progress), net.ops.telling_of_compiling(progress.compiling), \
                contextlib.closing(self.loader.epoch(self.epoch, self.step)) as batches:
            for batch in self._whole_steps(batches, step):
                stalls = stalls or StallMeter(self.loader)      # the first batch is made while nobody could compute
                x = feed.train(batch, self.epoch)
                sgd.lr = self._rate(self.step)
                step.run(x, batch.labels, batch.sample_ids, self.epoch)
                self.step += 1
                stop, late = net.ranks.any(interrupt.wanted, time.monotonic() - self._saved > SAVE_AFTER)
                log = self.step % log_every == 0
                look = self.step % LOOK_EVERY == 0 and self.step + LOOK_EVERY // 2 <= steps
                save = late or (self.save_every and (self.epoch * steps + self.step) % self.save_every == 0)
                due = self.step % step.read_every == 0 or self.step == steps or loss is None
                if due or stop or log or look or save:
                    loss = self._take_over(step)
                progress.step(loss, stalls)
                if log:
                    self._log.write({"kind": "step", "epoch": self.epoch + 1, "step": self.step, "steps": steps,
                                     "lr": sgd.lr, "loss": loss, "time": stalls.lap()})
                if look:
                    self._look(feed, self.tally.since(self._seen).result())
                    self._seen = self.tally.state()
                if stop:
                    return False
                if save:
                    self.save()
        self._time = {"seconds": round(time.perf_counter() - began, 2),
                      "waited_for_data": round(self.loader.waited, 2), "images_per_second": progress.rate(),
                      "data": {kind: round(spent, 2) for kind, spent in self.loader.spent().items()}}
        return True

    def _whole_steps(self, batches: Iterator, step: TrainStep) -> Iterator:
        """The batches. When one cannot be made, what the steps before it have counted is taken over first."""
        try:
            yield from batches
        except DataError:
            self._take_over(step)
            raise

    def _take_over(self, step: TrainStep) -> float:
        """What the steps have counted so far; gives the loss of the last one. DivergedError when one was no number."""
        loss, self.tally = step.read()
        self._must_be_finite(loss + self.tally.loss, f"epoch {self.epoch + 1}, step {self.step}")
        return loss

    def _scaled(self) -> dict | None:
        """What a checkpoint keeps of the loss scale."""
        return self.loss_scale.to_dict() if self.loss_scale else None

    def _rate(self, step: int) -> float:
        """Learning rate of a step of this epoch."""
        return self.recipe.sgd.lr * self.schedule.factor(self.epoch + step / len(self.loader))

    def _end_of_epoch(self, feed: InputPipeline, epochs: int, interrupt: Interrupt) -> bool:
        """Validation, schedule, metrics, checkpoint; False when a wish to stop came before validation was through."""
        val = evaluate(self.net, self.val, feed, batch=self.loader.batch, title="validation", progress=self.progress,
                       stop=lambda: self.net.ranks.any(interrupt.wanted)[0])
        if val is None:
            return False
        self._must_be_finite(val.loss, f"validation after epoch {self.epoch + 1}")
        is_best = self.best is None or (val.top1, -val.loss) > (self.best["top1"], -self.best["loss"])
        if is_best:
            self.best = {"epoch": self.epoch + 1, "top1": val.top1, "loss": val.loss}
        train = RunningMetrics(**self.net.ranks.sum(self.tally.state())).result()
        lately = RunningMetrics(**self.net.ranks.sum(self.tally.since(self._seen).state())).result()
        self.sgd.lr = self._rate(len(self.loader) - 1)  # a run may have been resumed after the last step
        self._log.write({"kind": "epoch", "epoch": self.epoch + 1, "lr": self.sgd.lr, "train": train,
                         "val": {"loss": val.loss, "top1": val.top1, "top5": val.top5}, "best": is_best,
                         **({"loss_scale": self._scaled()} if self.loss_scale else {}), "time": self._time})
        self._say_epoch(train, val, is_best, epochs)
        self.schedule.epoch_done(1.0 - val.top1)
        self.epoch, self.step, self.tally = self.epoch + 1, 0, RunningMetrics()
        self.save(best=is_best)
        self._look(feed, lately, val)
        try:
            self.on_epoch()
        except OSError as error:                        # a full disk, say
            self.say(f"after epoch {self.epoch}: {error}; training goes on")
        return not self.net.ranks.any(interrupt.wanted)[0] or self.epoch == epochs

    def _look(self, feed: InputPipeline, train: dict, val: Evaluation | None = None) -> None:
        """Let the watch say what goes wrong. train: means over the images since the last look."""
        factor = self.schedule.factor(self.epoch + self.step / len(self.loader))
        for line in self._watch.look(train, val, self.net, self.sgd.velocities, factor, self._some_of_val(feed)):
            self.say(line)

    def _say_epoch(self, train: dict, val: Evaluation, is_best: bool, epochs: int) -> None:
        rate, waited = self._time["images_per_second"], self._time["waited_for_data"]
        why = in_words(self._time["data"]) if waited > WORTH_SAYING * self._time["seconds"] else ""
        self.say(f"epoch {self.epoch + 1}/{epochs}   train loss {train['loss']:.4f}, {100 * train['top1']:.1f} %   "
                 f"val {val}{' (best)' if is_best else ''}   rate {self.sgd.lr:.3g}   "
                 f"{duration(self._time['seconds'])}{f', {rate:.0f} images/s' if rate else ''}, "
                 f"waited {waited:.1f} s for data{f' ({why})' if why else ''}")

    def _some_of_val(self, feed: InputPipeline) -> Iterator:
        """Batches of validation images for the watch; none where a forward pass would need the other ranks."""
        if self.net.ranks.is_split:
            return
        for batch in Loader(self.val, self.loader.batch).epoch(0):
            yield next(feed.test(batch))

    def _must_be_finite(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"the loss became {loss} at {where}, with the rate at {self.sgd.lr:g}: training has "
                                f"diverged; begin again with a smaller rate ({self._kept()})")

    def _kept(self) -> str:
        return f"the last checkpoint is {self.last_path}" if self.last_path.exists() else "nothing was saved yet"

    def save(self, best: bool = False) -> None:
        """Write last.safetensors, and best.safetensors as a second name of the same file where `best`."""
        net, statistics = self.net, self.statistics
        params = net.ranks.gather({name: param.data for name, param in net.params.items()})
        velocities, tally = net.ranks.gather(self.sgd.velocities), net.ranks.sum(self.tally.state())
        if net.ranks.is_main:
            self._metrics_bytes = self._log.position()
            meta = {"epoch": self.epoch, "step": self.step, "steps": len(self.loader), "best": self.best,
                    "schedule": self.schedule.state, "loss_scale": self._scaled(), "tally": tally,
                    "metrics_bytes": self._metrics_bytes,
                    "recipe": self.recipe.to_dict(), "identity": self._identity(), "about": self.about,
                    "classes": self.train.classes, "statistics_count": statistics.count,
                    "left_out": {"train": self.train.left_out, "val": self.val.left_out}}
            start = {} if self.start is None else {"start": net.ops.to_host(self.start)}
            save_checkpoint(self.last_path, params, velocities, _arrays(statistics) | start, meta,
                            also=self.best_path if best else None)
        net.ranks.wait_until_saved()
        self._saved = time.monotonic()


def _arrays(statistics: Statistics) -> dict:
    """What of the statistics a checkpoint holds as arrays."""
    return {name: getattr(statistics, name) for name in ("mean", "eigenvalues", "eigenvectors")}


def _must_be_writable(folder: Path) -> None:
    """ConfigError unless files can be made in the folder, or in what will hold it; nothing is left there."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {there}: {error.strerror}; choose another folder") from error
