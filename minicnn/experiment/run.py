"""A training run, from its arguments to its pictures: on one rank, or on several."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from minicnn.backend.cpu import set_threads
from minicnn.data.dataset import Splits
from minicnn.errors import ConfigError, expected_one_of
from minicnn.experiment.evaluation import evaluate_best
from minicnn.experiment.foreign import load_weights
from minicnn.experiment.introduce import introduce
from minicnn.experiment.nets import name_of, title
from minicnn.experiment.page import add_run, flags, words
from minicnn.experiment.prepare import prepare
from minicnn.experiment.ranks import on_ranks, report_ranks
from minicnn.experiment.recipe import recipe_of
from minicnn.experiment.say import say
from minicnn.experiment.settings import read_about, settle
from minicnn.graph import Net
from minicnn.models.registry import full_name
from minicnn.parallel.comm import Comm
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.system.terminal import lasting
from minicnn.train.loop import Outcome, Trainer
from minicnn.train.recipes import named_recipe
from minicnn.train.runs.folder import RunFolder, new_run
from minicnn.train.runs.results import check_page
from minicnn.train.runs.run_dir import LAST, find_checkpoint, last_intact
from minicnn.train.state import OtherRunError
from minicnn.visualize.report import draw_progress

FREE = ("data", "variant", "device", "threads", "parallel", "ranks")    # of a run that goes on, these may change


@dataclass
class Trained:
    """What training has left.   outcome: None on ranks other than 0.   net: the whole network, also after several.
    settings: those that the checkpoint holds.   held: the run folder, for as long as it is open."""

    run_dir: Path
    outcome: Outcome | None
    splits: Splits
    net: Net
    settings: dict
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


def train_run(options: argparse.Namespace) -> int:
    """Train, or go on training; then test the best checkpoint, once, and draw. Returns the exit code.

    options: those of options.py, and `program`, the words that start such a run. A terminal that is lost ends nothing.
    """
    with lasting():
        return _train_and_test(options)


def _train_and_test(options: argparse.Namespace) -> int:
    checkpoint = None
    if options.resume is not None:
        checkpoint = last_intact(find_checkpoint(options.out, options.resume, LAST), partial(say, "damaged"))
    settings = settle(options, checkpoint)
    if options.results:
        check_page(options.results)
    trained = train(options, settings, checkpoint)
    if trained.outcome is None:
        return 0
    run_dir = trained.run_dir
    again = shlex.join([*options.program[:2], "--resume", str(run_dir)])             # without the model
    with trained.held:
        if trained.outcome.interrupted:
            print(f"stopped; everything is in {run_dir / LAST}\nto go on: {again}")
            return 130
        set_threads(settings["threads"])
        try:
            report = evaluate_best(trained.net, trained.splits, run_dir, settings["batch"], options.ten_crop)
        except KeyboardInterrupt:
            print(f"stopped; the training is done and saved\nto evaluate it: {again}")
            return 130
        if options.results:
            add_run(options, trained.settings, run_dir, trained.splits, report)
    return 0


def train(options: argparse.Namespace, settings: dict, checkpoint: Path | None = None) -> Trained:
    """Prepare and train on as many ranks as the settings say; on this rank's return, what it left."""
    may_fall_back = options.data is None and checkpoint is None

    def on_rank(comm: Comm | None, splits: Splits, net: Net) -> Trained:
        with contextlib.ExitStack() as held:
            folder = None
            if comm is None or comm.rank == 0:
                folder = held.enter_context(RunFolder(checkpoint.parent) if checkpoint else new_run(
                    options.out, options.run_name, f"{splits.name}-{name_of(settings, net)}"))
            trained = fit(settings, splits, net, folder, checkpoint=checkpoint, comm=comm,
                          save_every=options.save_every, keep_every=options.keep_every,
                          tensorboard=options.tensorboard,
                          chosen=options.recipe is None and checkpoint is None)
            trained.held = held.pop_all()
            return trained

    return on_ranks(settings, options, lambda local_size: prepare(settings, may_fall_back, local_size), on_rank)


def fit(settings: dict, splits: Splits, net: Net, folder: RunFolder | None, *, checkpoint: Path | None = None,
        comm: Comm | None = None, save_every: int = 0, keep_every: int = 0, tensorboard: bool = False,
        chosen: bool = False) -> Trained:
    """The training itself, on one rank or as one of several (comm); from `checkpoint` on, where there is one.

    folder: of the run; None on ranks other than 0.
    """
    if unknown := sorted(set(settings["freeze"]) - set(net.layers_with_weights)):
        raise ConfigError(f"--freeze names {unknown[0]!r}: {expected_one_of(unknown[0], net.layers_with_weights)}")
    recipe = recipe_of(settings, len(splits.classes), net.input_shape[0])
    if settings["norm_weight_decay"] is not None and not recipe.optimiser.decays(net):
        raise ConfigError("--norm-weight-decay is that of batch normalisation, which this net does not have; leave "
                          "it out")
    begin = settings["init_from"] if checkpoint is None else None
    taken = [*load_weights(net, begin, settings), *_for_random_weights(settings)] if begin else []
    whole = net
    if comm is not None:
        settings = {**settings, "ranks": comm.size}
        net = SCHEMES[settings["parallel"]](whole, comm)
        path, _ = comm.broadcast_object(str(folder.path) if folder else None)
        folder = folder or RunFolder(path)
    heading, run_dir = f"{title(settings)} on {splits.name}", folder.path
    trainer = Trainer(net, recipe, splits.train, splits.val, folder, save_every=save_every,
                      keep_every=keep_every, about=settings, keep_statistics=True, tensorboard=tensorboard,
                      on_epoch=lambda: draw_progress(run_dir, heading, whole), stop_at_once=True)
    if checkpoint:
        resume(trainer, checkpoint, settings)
    if net.ranks.is_main:
        introduce(settings, splits, net, recipe, chosen)
        for line in taken:
            say("weights", line)
        from_there = f", from epoch {trainer.epoch + 1}, step {trainer.step + 1} on" if checkpoint else ""
        say("run", f"{run_dir}{from_there}")
    outcome = trainer.fit(settings["epochs"])
    if not net.ranks.is_main:
        return Trained(run_dir, None, splits, whole, settings)
    if comm is not None:
        report_ranks(settings, net, run_dir)
    return Trained(run_dir, outcome, splits, whole, settings)


def resume(trainer: Trainer, checkpoint: Path, settings: dict) -> None:
    """Continue from a checkpoint. Where its run had other settings, the error names the options that differ."""
    try:
        trainer.resume(checkpoint)
    except OtherRunError as error:
        before = flags(read_about(checkpoint))
        given = {name: value for name, value in flags(settings).items()
                 if name not in FREE and before.get(name) != value}
        if not given:
            raise
        there = words({"data": settings["data"], **given, "init-from": checkpoint.parent})
        new = shlex.join(["minicnn", "train", full_name(settings["model"], settings["variant"]), *there])
        raise ConfigError(f"{error.differs}; leave out {' and '.join(f'--{name}' for name in given)} to go on with "
                          f"that run, or start a new one from its weights: {new}") from error


def _for_random_weights(settings: dict) -> list[str]:
    """A word on the learning rate, where nobody has chosen one for weights that are trained already."""
    lr = settings["lr"]
    if lr != named_recipe(settings["model"], settings["recipe"]).recipe.optimiser.lr:
        return []
    return [f"the learning rate of {lr:g} is the recipe's, for random weights; trained ones take a third to a tenth: "
            f"--lr {lr / 5:.2g}"]
