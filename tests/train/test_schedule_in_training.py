"""From the validation error to the update: the trainer reports the error to the schedule, and uses its factor."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minicnn.train import loop
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.schedule import OneCycle, Plateau
from tests.helpers.small_run import small_recipe, small_trainer

LR, IMAGES, STEPS = 0.004, 16, 2                    # two steps of 8 images in an epoch
ACCURACIES = [0.2, 0.4, 0.6, 0.5, 0.3, 0.6, 0.9]    # of the validation after each epoch


@pytest.fixture
def validated(monkeypatch):
    """Replaces the accuracy of each validation by the next of ACCURACIES."""
    evaluate = loop.evaluate

    def replaced(net, dataset, *arguments, **options):
        return dataclasses.replace(evaluate(net, dataset, *arguments, **options), top1=ACCURACIES[replaced.epoch()])

    monkeypatch.setattr(loop, "evaluate", replaced)
    return replaced


def trainer_with(run_dir, schedule, validated):
    """A trainer without momentum and weight decay, so that an update is -learning rate * gradient; and its updates."""
    recipe = small_recipe(lr=LR)
    recipe = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, momentum=0.0, decay=0.0),
                                 schedule=schedule)
    trainer = small_trainer(run_dir, images=IMAGES, recipe=recipe)
    validated.epoch = lambda: trainer.epoch
    param, step, used = trainer.net.params["fc3.b"], trainer.sgd.step, []

    def measured(*arguments, **options):
        before, gradient = param.data.astype(np.float64), param.grad.astype(np.float64)
        step(*arguments, **options)
        used.append(float((before - param.data) @ gradient / (gradient @ gradient)) / LR)

    trainer.sgd.step = measured
    return trainer, used


def test_a_validation_error_that_stops_falling_lowers_the_learning_rate_of_the_updates(tmp_path, validated):
    """Patience 2: the errors after epochs 4 and 5 are no better than that after epoch 3, so from epoch 6 on."""
    trainer, used = trainer_with(tmp_path / "run", Plateau(patience=2), validated)
    trainer.fit(7)
    assert used == pytest.approx(5 * STEPS * [1.0] + 2 * STEPS * [0.1], rel=1e-3)


def test_the_factor_changes_with_every_step(tmp_path, validated):
    """Warm-up over the first of five epochs from a fifth, to the first factor of the cycle; its peak is at epoch 3."""
    schedule = OneCycle(epochs=5, warmup=1, warmup_start=0.2, pct_start=0.5, div_factor=2, anneal="linear")
    trainer, used = trainer_with(tmp_path / "run", schedule, validated)
    trainer.fit(5)
    assert used == pytest.approx([0.1, 0.3, 0.5, 0.625, 0.75, 0.875, 1.0, 0.75, 0.5, 0.25], rel=1e-3, abs=1e-4)
    logged = [record["lr"] for record in read_metrics(trainer.run_dir / "metrics.jsonl") if record["kind"] == "step"]
    assert logged == pytest.approx([LR * factor for factor in used], rel=1e-3)


@pytest.mark.parametrize("stops", [(6,), (1, 2, 3, 4, 5, 6)], ids=["in one go", "resumed after each epoch"])
def test_the_best_epoch_has_the_highest_accuracy_and_of_equal_ones_the_lowest_loss(tmp_path, monkeypatch, stops):
    """(accuracy, loss) of six validations: a lower loss alone, an equal one, a higher one, then less accuracy."""
    scores = iter([(0.5, 2.0), (0.5, 1.5), (0.5, 1.5), (0.5, 1.9), (0.4, 0.1), (0.6, 3.0)])
    evaluate = loop.evaluate

    def replaced(*arguments, **options):
        top1, loss = next(scores)
        return dataclasses.replace(evaluate(*arguments, **options), top1=top1, loss=loss)

    monkeypatch.setattr(loop, "evaluate", replaced)
    trainer = small_trainer(tmp_path / "run", images=IMAGES)
    trainer.fit(stops[0])
    for epochs in stops[1:]:
        trainer = small_trainer(tmp_path / "run", images=IMAGES).resume()
        trainer.fit(epochs)
    records = [record for record in read_metrics(trainer.run_dir / "metrics.jsonl") if record["kind"] == "epoch"]
    assert [record["best"] for record in records] == [True, True, False, False, False, True]
    assert load_checkpoint(trainer.best_path).meta["epoch"] == 6


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_goes_on_with_the_same_factors(tmp_path, validated, stop):
    """Plateau after a warm-up of two epochs: stopped within it, while it waits, and after the learning rate fell."""
    schedule = Plateau(patience=2, warmup=2)
    first, used = trainer_with(tmp_path / "run", schedule, validated)
    first.fit(stop)
    second, after = trainer_with(tmp_path / "run", schedule, validated)
    second.resume().fit(7)
    assert used + after == pytest.approx([0.01, 0.25, 0.5, 0.75, *(3 * STEPS * [1.0]), *(2 * STEPS * [0.1])], rel=2e-3)
