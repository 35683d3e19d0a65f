"""The state of a run: what a checkpoint holds, how it is saved, and how a run is resumed from it.

The position is (epoch, step) and nothing more: order, crops and dropout masks are functions of seed, epoch and image.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

from minicnn.data.dataset import Dataset
from minicnn.data.loader import Loader
from minicnn.data.scan import scan
from minicnn.data.statistics import Statistics, measure, measure_and_keep
from minicnn.errors import CheckpointError, ConfigError, MinicnnError
from minicnn.evaluate.evaluate import Evaluation
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.train.loss_scale import LossScale
from minicnn.train.recipe import Recipe, differences
from minicnn.train.runs.checkpoint import Checkpoint, interpreting, load_checkpoint, save_checkpoint
from minicnn.train.runs.run_dir import BEST, LAST, PREVIOUS, kept_path, saved_recipe

ARRAYS = ("mean", "eigenvalues", "eigenvectors")            # of Statistics, in a checkpoint's data


class DivergedError(MinicnnError):
    """The loss is no longer finite."""


class OtherRunError(CheckpointError):
    """A checkpoint of a run with another recipe, seed or data.   differs: in words, without what to do."""

    def __init__(self, differs: str, what_to_do: str):
        super().__init__(f"{differs}; {what_to_do}")
        self.differs = differs


class RunState:
    """The state of training `net` by `recipe` on `train`, validated on `val`; its checkpoints are in `run_dir`.

    epoch: whole epochs done.   step: steps done in the one after them.   metrics: over those steps.
    best: {"epoch", "top1", "loss"} of the best validation.   start: initial values of `first_kernels`, or None.
    """

    def __init__(self, net, recipe: Recipe, train: Dataset, val: Dataset, run_dir: Path, seed: int, about: dict):
        if net.ranks.is_split and net.ops.needs_loss_scale:
            raise ConfigError(f"device {net.ops.spec} scales the loss by what one rank sees, which is not yet done for "
                              "several; use cuda:tf32 or cuda:bf16 with them")
        self.net, self.recipe, self.train, self.val = net, recipe, train, val
        self.last_path, self.best_path, self.seed, self.about = run_dir / LAST, run_dir / BEST, seed, about
        self.optimiser = recipe.optimiser.make(net)
        self.optimiser.average = recipe.average and recipe.average.make(net)
        self.lookahead = recipe.lookahead and recipe.lookahead.make(net)
        net.freeze(recipe.frozen(0))
        self.schedule = copy.deepcopy(recipe.schedule)
        self.loss_scale = LossScale(net.ops) if net.ops.needs_loss_scale else None
        self.loader = self.new_loader()
        self.epoch = self.step = 0
        self.metrics, self.best = RunningMetrics(), None
        self.statistics: Statistics | None = None
        self.start, self.started = None, False
        self.images: dict | None = None    # part -> {"files": Dataset.state(), "content": Dataset.content}; on rank 0
        # Of the last save: the length and the CRC-32 of metrics.jsonl, when it was, and whether it is worth keeping.
        self.metrics_bytes, self.metrics_crc32, self.saved_at, self.last_is_ours = 0, None, time.monotonic(), True

    def new_loader(self) -> Loader:
        """Batches of the training images that are not left out, of which this rank gets its rows."""
        batch = self.recipe.optimiser.batch
        return Loader(self.train, batch, seed=self.seed, shuffle=True, drop_last=True,
                      own=self.net.ranks.local_rows(batch))

    def identity(self) -> dict:
        """What besides the recipe decides what the weights become."""
        return {"seed": self.seed, "net_seed": self.net.seed, "dtype": self.net.dtype,
                "data": {part: _in_words(dataset.name, dataset.listed, dataset.fingerprint)
                         for part, dataset in self._parts().items()}}

    def _parts(self) -> dict[str, Dataset]:
        return {"train": self.train, "val": self.val}

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step of this epoch."""
        return self.recipe.optimiser.lr * self.schedule.factor(self.epoch + step / len(self.loader))

    # ---- as the run goes on
    def begin_epoch(self) -> None:
        """Freeze the layers that the recipe trains no longer."""
        if self.recipe.freeze_after:
            self.net.freeze(self.recipe.frozen(self.epoch))

    def after_step(self, epochs: int) -> None:
        """After a step of a run of so many epochs."""
        self.step += 1
        if self.lookahead is not None:
            steps = len(self.loader)
            self.lookahead.step(self.epoch * steps + self.step, epochs * steps)

    def begin(self) -> None:
        """Before the first step of a new run."""
        if self.lookahead is not None:
            self.lookahead.begin()
        if first := first_kernels(self.net):
            self.start = self.net.ranks.gather({first: self.net.params[first].data.copy()}).get(first)
        self.started = True

    def count(self, loss: float, labels) -> None:
        """Add the loss and the predictions of the net's last step to the metrics."""
        if self.net.ranks.has_logits:
            self.metrics.add(loss, self.net.ops.to_host(self.net.logits), labels)

    def check_finite(self, loss: float, where: str) -> None:
        """DivergedError where it is not."""
        if not math.isfinite(loss):
            raise DivergedError(f"the loss became {loss} at {where}, with a learning rate of {self.optimiser.lr:g}: "
                                f"training has diverged; start again with a smaller learning rate ({self.kept()})")

    def end_epoch(self, val: Evaluation) -> bool:
        """One more epoch is done, with this validation; returns whether it is the best so far."""
        better = self.best is None or (val.top1, -val.loss) > (self.best["top1"], -self.best["loss"])
        self.epoch, self.step, self.metrics = self.epoch + 1, 0, RunningMetrics()
        self.schedule.epoch_done(1.0 - val.top1, self.epoch)
        if better:
            self.best = {"epoch": self.epoch, "top1": val.top1, "loss": val.loss}
        return better

    # ---- what is measured before the first step
    def measure(self, keep: bool, show: bool, say: Callable[[str], None]) -> None:
        """Mean image and unreadable images, found by rank 0 and sent to all. keep: in the user's cache."""
        found, arrays = None, {}
        if self.net.ranks.is_main:
            files = {part: dataset.state() for part, dataset in self._parts().items()}
            self.statistics = (measure_and_keep(self.train, progress=show, say=say) if keep else
                               measure(self.train, progress=show))
            scan(self.val, progress=show)
            self.images = {part: {"files": files[part], "content": dataset.content}
                           for part, dataset in self._parts().items()}
            found = {"count": self.statistics.count, "left_out": [self.train.left_out, self.val.left_out]}
            arrays = {name: getattr(self.statistics, name) for name in ARRAYS}
        found, arrays = self.net.ranks.broadcast(found, arrays)
        if not self.net.ranks.is_main:
            self.statistics = Statistics(**arrays, count=found["count"])
            self._leave_out(*found["left_out"])
        self.loader = self.new_loader()

    def _leave_out(self, train: dict, val: dict) -> None:
        for dataset, left_out in ((self.train, train), (self.val, val)):
            dataset.leave_out({int(position): reason for position, reason in left_out.items()})

    # ---- checkpoints
    def save(self, position: Callable[[], tuple[int, int]], best: bool = False) -> None:
        """Write last.safetensors, and best.safetensors as a second name of the same file where `best`, on rank 0.

        The last.safetensors before it becomes previous.safetensors, for when the new one is damaged one day.
        position: called there, gives the length of the metrics file and its CRC-32.
        """
        net = self.net
        arrays = net.ranks.gather(net.arrays())
        slots = {slot: net.ranks.gather(own) for slot, own in self._slots().items()}
        counted = net.ranks.sum(self.metrics.state())
        if net.ranks.is_main:
            self.metrics_bytes, self.metrics_crc32 = position()
            data = self._data()
            start = {} if self.start is None else {"start": net.ops.to_host(self.start)}
            previous = self.last_path.with_name(PREVIOUS)
            previous.unlink(missing_ok=True)            # not later: three checkpoints need more room than two
            save_checkpoint(self.last_path, arrays, slots, data | start, {**self._meta(), "tally": counted},
                            also=self.best_path if best else None,
                            keep=previous if self.last_is_ours else None)
            self.last_is_ours = True
        net.ranks.wait_until_saved()
        self.saved_at = time.monotonic()

    def keep_weights(self) -> None:
        """Keep the weights after this epoch, the averaged ones where there are any, and nothing of the optimiser.

        To be called once the epoch is saved; a run that is resumed there keeps what is missing.
        """
        path, net = kept_path(self.last_path.parent, self.epoch), self.net
        if net.ranks.any(net.ranks.is_main and not path.exists())[0]:
            with self.optimiser.averaged():             # which swaps the arrays in place: save inside
                arrays = net.ranks.gather(net.arrays())
                if net.ranks.is_main:
                    path.parent.mkdir(exist_ok=True)
                    save_checkpoint(path, arrays, {}, self._data(), {**self._meta(), "weights_alone": True})
            net.ranks.wait_until_saved()

    def _data(self) -> dict:
        """What was measured on the training images."""
        return {name: getattr(self.statistics, name) for name in ARRAYS}

    def _slots(self) -> dict[str, dict]:
        """The arrays of the optimiser, and of the average of the weights and of lookahead, where there are some."""
        others = {"average": self.optimiser.average, "lookahead": self.lookahead}
        return self.optimiser.arrays | {name: other.arrays for name, other in others.items() if other is not None}

    def _meta(self) -> dict:
        average = self.optimiser.average
        return {"epoch": self.epoch, "step": self.step, "steps": len(self.loader), "best": self.best,
                "schedule": self.schedule.state, "loss_scale": self.loss_scale.to_dict() if self.loss_scale else None,
                "optimiser": self.optimiser.to_dict(), "average": average and average.to_dict(),
                "metrics_bytes": self.metrics_bytes, "metrics_crc32": self.metrics_crc32,
                "recipe": self.recipe.to_dict(), "identity": self.identity(), "images": self.images,
                "about": self.about, "net": described(self.net), "classes": self.train.classes,
                "statistics_count": self.statistics.count,
                "left_out": {"train": self.train.left_out, "val": self.val.left_out}}

    def kept(self) -> str:
        """What there is to go back to."""
        return f"the last checkpoint is {self.last_path}" if self.last_path.exists() else "nothing was saved yet"

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint. CheckpointError when it is of another net, recipe, seed or data."""
        saved = load_checkpoint(path)
        if saved.meta.get("weights_alone"):
            raise CheckpointError(f"{path}: holds the weights of an epoch alone, and a run needs the optimiser's "
                                  f"arrays to go on; resume with {LAST}, or start a new run from it (--init-from)")
        with interpreting(path):
            self._resume(saved)
        self.last_is_ours = Path(path).name == LAST

    def _resume(self, saved: Checkpoint) -> None:
        net, meta = self.net, saved.meta
        saved.check_classes(self.train.classes)
        net.load_arrays(saved.arrays(), str(saved.path))
        self._check_same_run(saved)
        slots = {slot: net.ranks.scatter(arrays) for slot, arrays in saved.slots.items()}
        self.optimiser.load(slots, meta.get("optimiser", {}))
        if self.optimiser.average is not None:
            self.optimiser.average.load(slots.get("average", {}), meta["average"])
        if self.lookahead is not None:
            self.lookahead.arrays = slots["lookahead"]
        self.epoch, self.step, self.best = meta["epoch"], meta["step"], meta["best"]
        self.schedule.state = meta["schedule"]
        if self.loss_scale is not None and meta.get("loss_scale"):
            self.loss_scale = LossScale(net.ops, **meta["loss_scale"])
        self.metrics = RunningMetrics(**meta["tally"]) if net.ranks.is_main else RunningMetrics()
        self.metrics_bytes, self.metrics_crc32 = meta["metrics_bytes"], meta.get("metrics_crc32")
        self._leave_out(meta["left_out"]["train"], meta["left_out"]["val"])
        self.loader = self.new_loader()
        self.start, self.started = saved.data.get("start"), True
        self.statistics = Statistics(**{name: saved.data[name] for name in ARRAYS}, count=meta["statistics_count"])

    def _check_same_run(self, saved: Checkpoint) -> None:
        here = {**self.recipe.to_dict(), **self.identity()}
        there = {**saved_recipe(saved).to_dict(), **saved.meta["identity"]}
        for part, is_same in self._same_images(saved.meta).items():
            if is_same:
                there["data"][part] = here["data"][part]    # under another name, perhaps
            elif there["data"][part] == here["data"][part]:
                here["data"][part] += " with other images in files of the same names"
        if different := differences(there, here):
            knob, was, now = different[0]
            more = [name for name, _, _ in different[1:4]]
            others = f"; {', '.join(more)} {'differs' if len(more) == 1 else 'differ'} as well" if more else ""
            raise OtherRunError(f"{saved.path}: its run had {knob} = {was}, this one has {now}{others}",
                                "resume with the settings the run was started with, or start a new one from its "
                                "weights (--init-from)")

    def _same_images(self, meta: dict) -> dict[str, bool]:
        """Whether "train" and "val" have the images of a saved run, whatever they are called; found by rank 0.

        Where files have other names, sizes or times than then, their contents decide, in a pass over them.
        """
        same = {}
        if self.net.ranks.is_main:
            self.images = {}
            for part, dataset in self._parts().items():
                known, was = meta.get("images", {}).get(part), meta["identity"]["data"][part]
                files, name = dataset.state(), was.rpartition(" (")[0]
                if known is None or known["content"] is None:    # begun by version 0.1.0: the listing decides
                    prints = (dataset.fingerprint, dataset.former_fingerprint(name))
                    same[part] = was in [_in_words(name, dataset.listed, found) for found in prints]
                else:
                    same[part] = known["files"] == files or known["content"] == _content(dataset)
                self.images[part] = {"files": files, "content": known["content"] if known else dataset.content}
        return self.net.ranks.broadcast(same, {})[0]


def _in_words(name: str, count: int, fingerprint: str) -> str:
    return f"{name} ({count} images, {fingerprint[:12]})"


def is_of(dataset: Dataset, meta: dict) -> bool:
    """Whether these are the training images of the run that wrote a checkpoint with this metadata: by their list, and
    where that is the same, by their pixels.
    """
    listed, known = meta["identity"].get("data", {}).get("train", ""), meta.get("images", {}).get("train")
    if not any(each[:12] in listed for each in (dataset.fingerprint, dataset.former_fingerprint(dataset.name))):
        return False
    return not known or known["files"] == dataset.state() or known["content"] == _content(dataset)


def _content(dataset: Dataset) -> str:
    """The hash of its images, from a pass over them unless it is known."""
    if dataset.content is None:
        scan(dataset)
    return dataset.content


def first_kernels(net) -> str | None:
    """The weights of the first convolution, (R, S, C, K), which the pictures show; None where there is none."""
    return next((name for name, param in net.params.items() if name.endswith(".w") and param.data.ndim == 4), None)


def described(net) -> dict | None:
    """The network as plain data, from which it can be built again; None where a layer's arguments are no plain data."""
    try:
        return net.description()
    except ConfigError:
        return None
